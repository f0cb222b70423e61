"""Drift: taught and untaught steps told apart, against a dense oracle in float64."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pytest
import torch
from checkout import ROOT
from peft import PeftModel
from test_finetune import settings

from lightreasoner import config
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.progress import Silent
from lightreasoner.report.page import HELD_OUT
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Artifact, Workspace
from lightreasoner.tuning import validation
from lightreasoner.tuning.finetune import with_lora
from lightreasoner.tuning.rows import read_rows, step_rows
from lightreasoner.tuning.validation import Validation


@pytest.fixture
def tuned(tiny_expert: Path) -> PeftModel:
    """A model in float64 with an adapter that changes it."""
    torch.manual_seed(3)
    model = with_lora(loading.load_model(tiny_expert, "cpu", "float64"), settings())
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return model.eval()


@torch.no_grad()
def test_the_drift_equals_a_dense_oracle(
    tuned: PeftModel, tiny_expert: Path, samples_dir: Path
) -> None:
    base = loading.load_model(tiny_expert, "cpu", "float64")
    rows = read_rows(samples_dir, "sample")
    taught = {(row.problem_id, row.positions[0]) for row in rows}
    steps = step_rows(samples_dir, rows)
    found: dict[bool, list[tuple[float, bool]]] = {True: [], False: []}
    for row in steps:
        ids = torch.tensor([row.input_ids])
        before, after = (model(ids).logits[0].log_softmax(-1) for model in (base, tuned))
        for at in row.positions:
            kl = (before[at].exp() * (before[at] - after[at])).sum().item()
            kept = bool(before[at].argmax() == after[at].argmax())
            found[(row.problem_id, at) in taught].append((kl, kept))
    assert sum(map(len, found.values())) == sum(len(row.positions) for row in steps)
    measured = Validation(rows, [], steps).drift(tuned)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    assert 0 < mean([kept for _, kept in found[False]]) < 1
    assert measured == pytest.approx(
        {
            "drift": mean([kl for kl, _ in found[False]]),
            "top1_kept": mean([kept for _, kept in found[False]]),
            "drift_taught": mean([kl for kl, _ in found[True]]),
        },
        rel=1e-4,
    )


def test_an_untouched_model_has_not_drifted(tiny_expert: Path, samples_dir: Path) -> None:
    model = with_lora(loading.load_model(tiny_expert, "cpu", "float32"), settings()).eval()
    rows = read_rows(samples_dir, "trajectory")
    found = Validation(rows, [], step_rows(samples_dir, rows)).drift(model)
    assert found == {"drift": 0, "top1_kept": 1, "drift_taught": 0}


def test_every_step_of_a_trajectory_is_there_once(samples_dir: Path) -> None:
    """Also of a trajectory without samples, if its problem is held out; labels where taught."""
    rows = read_rows(samples_dir, "sample")
    steps = step_rows(samples_dir, rows)
    labels = [
        (row.problem_id, at, label)
        for row in steps
        for at, label in zip(row.positions, row.labels, strict=True)
        if label[0]
    ]
    wanted = [(row.problem_id, row.positions[0], row.labels[0]) for row in rows]
    assert sorted(labels) == sorted(wanted)
    assert all(row.positions == sorted(set(row.positions)) for row in steps)


def test_where_all_is_taught_nothing_else_is_measured(tuned: PeftModel, samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "trajectory")
    (row,) = step_rows(samples_dir, rows)[:1]
    row = type(row)(row.problem_id, row.input_ids, row.positions, [([1], [1.0])] * len(row.labels))
    assert set(Validation([row], [], [row]).drift(tuned)) == {"drift_taught"}


def test_the_report_reads_what_is_measured() -> None:
    assert HELD_OUT == validation.MEASURES


@pytest.mark.nightly
def test_a_tuning_that_breaks_is_stopped_by_drift_and_passes_by_loss(tmp_path: Path) -> None:
    """The micro-world's expert on its labels of several tokens alone: the held-out loss falls all
    the way, while the accuracy on `tuned` goes from 13.8% over 32.5 (update 10) to 8.6."""
    changes = ["finetune.updates=40", "finetune.validate_every=5"]
    by_loss = [*changes, "finetune.stop=loss", "finetune.patience=2"]
    params = config.load(ROOT / "params.yaml", by_loss)
    compute = params.compute.model_copy(update={"device": "cpu", "dtype": "float32"})

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        folders = [tmp_path / f"{kind}_{len(list(tmp_path.iterdir()))}" for kind in ("out", "work")]
        for folder in folders:
            folder.mkdir()
        section = stage.settings(params)
        return stage.run(inputs, section, Workspace(*folders, compute), Silent())

    chain = [STAGES[name] for name in ("prepare", "generate", "score", "select")]
    inputs = external_inputs(params) | walk(chain, external_inputs(params), make)
    table = tables.read_sample_set(inputs["samples"].path)[0]
    several = table.filter(pc.greater(pc.list_value_length(table["token_ids"]), 1))
    assert len(several) == 151
    several_dir = tmp_path / "several"
    shutil.copytree(inputs["samples"].path, several_dir)
    provenance = tables.provenance(several_dir / "samples.parquet")
    tables.write_table(several, tables.SAMPLES, several_dir / "samples.parquet", provenance)
    inputs = {**inputs, "samples": artifacts.of(several_dir)}

    def tuned(stop: list[str]) -> tuple[pd.DataFrame, int]:
        nonlocal params
        params = config.load(ROOT / "params.yaml", stop)
        (adapter,) = walk([STAGES["finetune"]], inputs, make).values()
        kept = json.loads((adapter.path / "validation.json").read_text())["kept_update"]
        return pd.read_csv(adapter.path / "validation.csv").set_index("update"), kept

    readings, kept = tuned(by_loss)
    assert kept == readings.index[-1] == 40
    assert readings["loss"][40] < readings["loss"][0] / 10
    assert readings["drift"][40] > 2 * params.finetune.drift_limit
    readings, kept = tuned([*changes, "finetune.stop=drift"])
    assert readings.index[-1] == 15
    assert kept == 10
    assert readings["drift"][10] <= params.finetune.drift_limit < readings["drift"][15]
