"""Scoring against a float64 oracle that runs one whole prefix at a time."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_models import write_model
from transformers import AutoModelForCausalLM

from lightreasoner.config import Compute, Score
from lightreasoner.errors import ModelError
from lightreasoner.inference import loading, vocabulary
from lightreasoner.progress import Silent
from lightreasoner.sampling.score import Scorer, _check_finite, write
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace

ALPHA_MIN = 0.05


def trajectories() -> list[dict[str, Any]]:
    """Five trajectories of different lengths over the 259 ids."""
    generator = np.random.default_rng(0)
    return [
        {
            "problem_id": f"p{index}",
            "prompt_ids": generator.integers(0, 256, 5 + 3 * index).tolist(),
            "completion_ids": [*generator.integers(0, 256, 4 + 2 * index).tolist(), 258],
        }
        for index in range(5)
    ]


def oracle(expert: Path, amateur: Path, row: dict[str, Any]) -> list[dict[str, Any]]:
    """KL and distributions of each step from one float64 forward pass a prefix."""
    pair = [AutoModelForCausalLM.from_pretrained(d, dtype=torch.float64) for d in (expert, amateur)]
    steps = []
    for step in range(len(row["completion_ids"])):
        prefix = torch.tensor([row["prompt_ids"] + row["completion_ids"][:step]])
        with torch.no_grad():
            e, a = (model(prefix).logits[0, -1, :259].log_softmax(-1) for model in pair)
        kept = (e >= e.max() + np.log(ALPHA_MIN)).nonzero().flatten()
        steps.append(
            {
                "kl": (e.exp() * (e - a)).sum().item(),
                "entropy": -(e.exp() * e).sum().item(),
                "tops": (e.argmax().item(), a.argmax().item()),
                "ids": kept.tolist(),
                "log_probs": (e[kept].numpy(), a[kept].numpy()),
            }
        )
    return steps


def score(expert: Path, amateur: Path, rows: list[dict[str, Any]]) -> list[pa.Table]:
    pair = [loading.load_model(directory, "cpu", "float32") for directory in (expert, amateur)]
    shared = torch.tensor(vocabulary.check_pair(expert, amateur))
    return Scorer(*pair, shared, ALPHA_MIN).score_batch(rows)


def test_every_step_equals_the_oracle(tiny_expert: Path, tiny_amateur: Path) -> None:
    """Measured worst case: KL 7e-7 nats, log-probabilities 4e-6. A shift by one step is 0.1 off."""
    rows = trajectories()
    for table, row in zip(score(tiny_expert, tiny_amateur, rows), rows, strict=True):
        expected = oracle(tiny_expert, tiny_amateur, row)
        found = table.to_pylist()
        assert [step["step"] for step in found] == list(range(len(row["completion_ids"])))
        for step, true in zip(found, expected, strict=True):
            assert step["kl"] == pytest.approx(true["kl"], rel=1e-5, abs=1e-6)
            assert step["expert_entropy"] == pytest.approx(true["entropy"], rel=1e-5, abs=1e-5)
            assert (step["expert_top1"], step["amateur_top1"]) == true["tops"]
            assert step["token_ids"] == true["ids"]
            np.testing.assert_allclose(step["expert_log_probs"], true["log_probs"][0], atol=2e-5)
            np.testing.assert_allclose(step["amateur_log_probs"], true["log_probs"][1], atol=2e-5)


def test_alone_and_in_a_batch_are_the_same(tiny_expert: Path, tiny_amateur: Path) -> None:
    rows = trajectories()
    together = score(tiny_expert, tiny_amateur, rows)
    for row, table in zip(rows, together, strict=True):
        alone = score(tiny_expert, tiny_amateur, [row])[0]
        np.testing.assert_allclose(alone["kl"], table["kl"], rtol=1e-4, atol=1e-5)
        assert alone["token_ids"] == table["token_ids"]


def test_pieces_of_positions_are_the_same(
    tiny_expert: Path, tiny_amateur: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = trajectories()
    whole = score(tiny_expert, tiny_amateur, rows)
    monkeypatch.setattr("lightreasoner.sampling.score.LOGITS_IN_FLIGHT", {"cpu": 3 * 259})
    for one, other in zip(whole, score(tiny_expert, tiny_amateur, rows), strict=True):
        np.testing.assert_allclose(one["kl"], other["kl"], rtol=1e-5, atol=1e-6)
        assert one["step"] == other["step"]


def test_a_padded_embedding_changes_nothing(tiny_expert: Path, tmp_path: Path) -> None:
    """Rows beyond the tokenizer, as Qwen2.5's 152,064 against 151,936, are masked out."""
    small = write_model(tmp_path / "small", seed=3, hidden=16, layers=1)
    padded = write_model(tmp_path / "padded", seed=3, hidden=16, layers=1)
    model = AutoModelForCausalLM.from_pretrained(padded)
    model.resize_token_embeddings(300)
    model.get_input_embeddings().weight.data[259:] = 5.0
    model.save_pretrained(padded)
    rows = trajectories()[:2]
    for one, other in zip(
        score(tiny_expert, small, rows), score(tiny_expert, padded, rows), strict=True
    ):
        np.testing.assert_allclose(one["kl"], other["kl"], rtol=1e-4, atol=1e-5)


def test_logits_that_are_not_finite_are_named() -> None:
    kl = np.array([0.0, np.nan, np.inf])
    with pytest.raises(ModelError, match=r"problem p1, step 7: KL is not finite"):
        _check_finite(kl, np.array(["p0", "p1", "p1"]), np.array([3, 7, 8]))


def test_weights_that_are_not_finite_are_named(tiny_expert: Path, tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken", seed=4, hidden=16, layers=1)
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(ModelError, match=r"broken: the weight model.norm.weight is not finite"):
        score(tiny_expert, broken, trajectories()[:1])


def test_a_step_whose_own_token_is_not_shared_is_left_out(
    tiny_expert: Path, tiny_amateur: Path
) -> None:
    """Else the rest of the vocabulary, renormalised, would teach the expert not to stop."""
    pair = [
        loading.load_model(directory, "cpu", "float32") for directory in (tiny_expert, tiny_amateur)
    ]
    scorer = Scorer(*pair, torch.arange(258), ALPHA_MIN)
    rows = trajectories()
    for table, row in zip(scorer.score_batch(rows), rows, strict=True):
        assert row["completion_ids"][-1] == 258
        assert table["step"].to_pylist() == list(range(len(row["completion_ids"]) - 1))
    empty = {"problem_id": "empty", "prompt_ids": [1], "completion_ids": []}
    assert scorer.score([rows[0], empty])["problem_id"].unique().to_pylist() == ["p0"]


def test_the_stage_passes_trajectories_on_and_says_what_it_left_out(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = {"problem_id": "p9", "prompt_ids": [1], "completion_ids": []}
    rows = [{"finish_reason": "stop"} | row for row in [*trajectories(), empty]]
    write_trajectories(rows, tmp_path / "given")
    write_steps_of(tiny_expert, tiny_amateur, tmp_path)
    steps = tables.read_table(tmp_path / "out" / "steps.parquet", tables.STEPS)
    assert steps["problem_id"].unique().to_pylist() == ["p0", "p1", "p2", "p3", "p4"]
    assert caplog.messages == ["score: 1 trajectories have no step: p9"]
    said = tables.provenance(tmp_path / "out" / "steps.parquet")
    assert (said["empty_trajectories"], said["unshared_steps"]) == (1, 0)
    assert said["misread_tokens"] == 0
    assert said["expert"] == artifacts.digest(tiny_expert)
    passed_on, given = (tmp_path / name / "trajectories.parquet" for name in ("out", "given"))
    assert passed_on.read_bytes() == given.read_bytes()


def test_a_trajectory_beyond_the_context_is_named(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    long = {"problem_id": "long", "prompt_ids": [1] * 1020, "completion_ids": [2] * 5}
    write_trajectories([{"finish_reason": "stop"} | long], tmp_path / "given")
    with pytest.raises(ModelError, match=r"trajectory of long: its 1025 tokens exceed .* 1024"):
        write_steps_of(tiny_expert, tiny_amateur, tmp_path)


@pytest.mark.parametrize("part", ["prompt_ids", "completion_ids"])
def test_a_token_that_a_model_has_no_row_for_is_named(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path, part: str
) -> None:
    row = {"problem_id": "p", "prompt_ids": [1, 2], "completion_ids": [3, 4]} | {part: [259, 5]}
    write_trajectories([{"finish_reason": "stop"} | row], tmp_path / "given")
    with pytest.raises(ModelError, match=r"p: holds token 259, .* only for the first 259"):
        write_steps_of(tiny_expert, tiny_amateur, tmp_path)


def test_tokens_that_are_others_to_the_amateur_are_counted(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Id 257 has another name there: the prompt has it twice, the completion once; its last token,
    such another one, is read by neither."""
    shutil.copytree(tiny_amateur, tmp_path / "amateur")
    file = tmp_path / "amateur" / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("<|im_start|>", "<|object|>"), encoding="utf-8")
    row = {"problem_id": "p", "prompt_ids": [257, 2, 257], "completion_ids": [3, 257, 257]}
    write_trajectories([{"finish_reason": "stop"} | row], tmp_path / "given")
    write_steps_of(tiny_expert, tmp_path / "amateur", tmp_path)
    said = tables.provenance(tmp_path / "out" / "steps.parquet")
    assert (said["misread_tokens"], said["unshared_steps"]) == (3, 2)
    assert (
        "the amateur reads 3 of 5 tokens, prompts included, as different tokens: "
        "<|im_start|> as <|object|>" in caplog.text
    )


def write_trajectories(rows: list[dict[str, Any]], directory: Path) -> None:
    directory.mkdir()
    table = pa.Table.from_pylist(rows, schema=tables.TRAJECTORIES)
    tables.write_table(table, tables.TRAJECTORIES, directory / "trajectories.parquet")


def write_steps_of(expert: Path, amateur: Path, root: Path) -> None:
    (root / "out").mkdir()
    paths = {"expert": expert, "amateur": amateur, "trajectories": root / "given"}
    inputs = {name: artifacts.of(path) for name, path in paths.items()}
    compute = Compute(device="cpu", dtype="float32")
    write(inputs, Score(), Workspace(root / "out", root / "shards", compute), Silent())


def test_the_tables_schema_is_kept(tiny_expert: Path, tiny_amateur: Path) -> None:
    for table in score(tiny_expert, tiny_amateur, trajectories()):
        assert table.schema.equals(tables.STEPS)
