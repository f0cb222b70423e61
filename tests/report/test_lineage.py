"""What was run: facts by group, what is not known left out."""

from pathlib import Path
from typing import Any

from written_steps import write_samples

from lightreasoner.config import Compute
from lightreasoner.report import lineage
from lightreasoner.storage.artifacts import Artifact

CONDITIONS = {"style": "cot", "base_style": "cot", "n": 1, "shots": {}}
COMPUTE = Compute(device="cpu", dtype="float32")


def facts(root: Path, conditions: dict[str, Any] = CONDITIONS, **provenance: Any) -> lineage.Facts:
    samples = Artifact(write_samples(root / "samples", **provenance), "d" * 32 + ".dir")
    return lineage.of({"samples": samples}, conditions, {"r": 8, "first_loss": 1.0}, COMPUTE)


def test_what_no_input_says_is_left_out(tmp_path: Path) -> None:
    found = facts(tmp_path, quantile=None, reference=[])
    assert [*found] == ["Samples", "Tuning", "Evaluation", "Computed with", "Artifacts"]
    assert found["Samples"] == {"alpha": "0.2", "beta": "0.4", "label": "contrast"}
    assert found["Tuning"] == {"r": "8"}
    assert found["Evaluation"] == {"style": "cot", "n": "1"}
    assert found["Computed with"]["device"] == "cpu, float32"
    assert found["Artifacts"] == {"samples": "d" * 32 + ".dir"}


def test_models_and_seeds_come_from_the_provenance(tmp_path: Path) -> None:
    score = {"expert": "e", "amateur": "a", "shared_vocabulary": 151_643, "alpha_min": 0.01}
    found = facts(tmp_path, score=score, generate={"seed": 7, "tokenizer": "t", "code": "c"})
    assert found["Models"] == {
        "expert": "e", "amateur": "a", "tokenizer": "t", "shared vocabulary": "151,643",
    }  # fmt: skip
    assert found["Trajectories"] == {"seed": "7", "alpha_min": "0.01"}


def test_another_prompt_of_the_base_is_named(tmp_path: Path) -> None:
    found = facts(tmp_path, {**CONDITIONS, "base_style": "chat"})
    assert found["Evaluation"]["style of the base"] == "chat"


def test_worked_examples_are_counted_and_named(tmp_path: Path) -> None:
    """Names are there where `evaluate.shots` was set; a set's own examples are a number."""
    conditions = {**CONDITIONS, "shots": {"gsm8k": 2, "mmlu_stem": 5, "own": 0}}
    found = facts(tmp_path, conditions)
    assert found["Evaluation"]["worked examples"] == "gsm8k 2, mmlu_stem 5"
    conditions["demos"] = {"gsm8k": ["gsm8k/train/00001", "gsm8k/train/00007"]}
    found = facts(tmp_path, conditions)
    said = "gsm8k 2 (gsm8k/train/00001, gsm8k/train/00007), mmlu_stem 5"
    assert found["Evaluation"]["worked examples"] == said
