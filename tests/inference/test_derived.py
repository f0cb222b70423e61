"""Amateurs made of the expert, against slow oracles; and a pipeline with one, to its end."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import write_model
from transformers import AutoModelForCausalLM

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.derivation import Derivation
from lightreasoner.errors import ModelError
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import GRAPH, STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.progress import Silent
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.fingerprint import code_files

IDS = torch.arange(24).reshape(2, 12) * 7 % 256


@pytest.mark.parametrize("n", [1, 2])
def test_layers_left_out_are_an_early_exit(n: int, tmp_path: Path) -> None:
    """The expert's own states after its layer 3 - n, through its last norm and its head."""
    expert = write_model(tmp_path / "expert", seed=5, hidden=16, layers=3)
    whole = AutoModelForCausalLM.from_pretrained(expert, dtype=torch.float32)
    found = loading.load_model(expert, "cpu", "float32", Derivation("layers", n))
    assert (found.config.num_hidden_layers, len(found.model.layers)) == (3 - n, 3 - n)
    with torch.no_grad():
        states = whole(IDS, output_hidden_states=True).hidden_states[3 - n]
        expected = whole.lm_head(whole.model.norm(states))
        torch.testing.assert_close(found(IDS).logits, expected, rtol=1e-5, atol=1e-5)
        assert (whole(IDS).logits - expected).abs().max() > 0.1


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_rows_are_rounded_to_their_nearest_level(bits: int, tiny_expert: Path) -> None:
    """Each weight by itself, in float64: of all levels k s the nearest one."""
    whole = AutoModelForCausalLM.from_pretrained(tiny_expert, dtype=torch.float32)
    found = loading.load_model(tiny_expert, "cpu", "float32", Derivation("bits", bits))
    most = 2 ** (bits - 1) - 1
    steps = np.arange(-most, most + 1)
    originals = dict(whole.named_parameters())
    for name, weight in found.named_parameters():
        expected, rounded = (each.detach().double().numpy() for each in (originals[name], weight))
        if expected.ndim == 1:  # norms and biases
            np.testing.assert_array_equal(rounded, expected)
            continue
        for row, found_row in zip(expected[:40], rounded[:40], strict=True):
            levels = steps * (np.abs(row).max() / most)
            nearest = levels[np.abs(row[:, None] - levels).argmin(axis=1)]
            np.testing.assert_allclose(found_row, nearest, rtol=1e-5, atol=1e-7)
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_a_row_of_zeros_stays_one() -> None:
    from lightreasoner.inference.derived import round_rows

    layer = torch.nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[0.0, 0.0, 0.0], [0.9, -0.2, 0.6]])
    round_rows(layer, 2)
    torch.testing.assert_close(layer.weight.data, torch.tensor([[0, 0, 0], [0.9, 0, 0.9]]))


def test_its_digest_is_the_experts_and_the_derivation(tiny_expert: Path, tmp_path: Path) -> None:
    expert = shutil.copytree(tiny_expert, tmp_path / "expert")
    found = loading.resolve_amateur("self:bits:3", str(expert))
    assert found.digest == f"{loading.resolve(str(expert)).digest}+self:bits:3"
    assert (found.path, found.derivation) == (expert, Derivation("bits", 3))
    assert not found.has_changed()
    with (expert / "generation_config.json").open("a") as file:
        file.write("\n")
    assert found.has_changed()


def test_a_model_without_layers_is_refused_at_once(tiny_params: Params) -> None:
    params = config.changed(tiny_params, ["models.amateur=self:layers:2"])
    with pytest.raises(ModelError, match=r"^self:layers:2: leaves none of the 2 layers of /"):
        external_inputs(params, ("expert", "amateur"))


def test_each_derivation_has_its_own_key(tiny_params: Params) -> None:
    """And the code that derives is in it."""
    keys = set()
    for name in (tiny_params.models.amateur, "self:layers:1", "self:bits:3", "self:bits:4"):
        params = config.changed(tiny_params, [f"models.amateur={name}"])
        inputs = external_inputs(params, ("expert", "amateur"))
        trajectories = {"trajectories": Artifact(Path("none"), "0" * 32)}
        keys.add(Job.of(STAGES["score"], inputs | trajectories, params).key)
    assert len(keys) == 4
    assert {"derived.py", "derivation.py"} <= {
        file.name for file in code_files(STAGES["score"].module)
    }


def made_by(stages: Sequence[Stage], params: Params, home: Path) -> Inputs:
    """What stages put out, beside the inputs that they start from."""

    def make(stage: Stage, needed: Inputs) -> Artifact:
        return Store(home).run(Job.of(stage, needed, params), Silent()).artifact

    inputs = external_inputs(params)
    return inputs | walk(stages, inputs, make)


def test_a_sample_set_without_a_second_model(tiny_params: Params, tmp_path: Path) -> None:
    """The steps' KL is that of the expert from its own early exit."""
    params = config.changed(tiny_params, ["models.amateur=self:layers:1"])
    made = made_by(GRAPH[:4], params, tmp_path)
    steps = tables.read_table(made["steps"].path / "steps.parquet", tables.STEPS).to_pylist()
    rows = tables.read_table(made["steps"].path / "trajectories.parquet", tables.TRAJECTORIES)
    (row,) = rows.slice(0, 1).to_pylist()
    whole = AutoModelForCausalLM.from_pretrained(params.models.expert, dtype=torch.float64)
    with torch.no_grad():
        found = whole(
            torch.tensor([row["prompt_ids"] + row["completion_ids"][:-1]]),
            output_hidden_states=True,
        )
        early = whole.lm_head(whole.model.norm(found.hidden_states[1]))
    at = slice(len(row["prompt_ids"]) - 1, None)
    e, a = (logits[0, at, :259].log_softmax(-1) for logits in (found.logits, early))
    expected = (e.exp() * (e - a)).sum(-1).numpy()
    own = [step["kl"] for step in steps if step["problem_id"] == row["problem_id"]]
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6)
    provenance = tables.provenance(made["samples"].path / "samples.parquet")
    assert provenance["score"]["amateur"] == made["amateur"].digest
    assert provenance["pull"] > 0


@pytest.mark.slow
def test_a_pipeline_without_a_second_model(tiny_params: Params, tmp_path: Path) -> None:
    params = config.changed(tiny_params, ["models.amateur=self:layers:1"])
    made = made_by(GRAPH, params, tmp_path)
    provenance = tables.provenance(made["samples"].path / "samples.parquet")
    said = json.loads((made["report"].path / "tables.json").read_text())["samples"]
    assert said["pull"] == provenance["pull"]
    assert "+self:layers:1" in (made["report"].path / "report.html").read_text()
