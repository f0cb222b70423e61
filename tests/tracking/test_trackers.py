"""Other trackers beside MLflow, each read back with its own reader."""

import json
import logging
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stored_pipeline
from mlflow import MlflowClient

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.errors import ConfigError
from lightreasoner.pipeline.graph import GRAPH, STAGES
from lightreasoner.pipeline.store import Outcome
from tasks.tracking import mlflow_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's, and theirs
]
LOSSES = [(step, value) for _, value, step in stored_pipeline.CURVE]


@pytest.fixture(scope="module")
def home(new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an MLflow database of its own."""
    path = tmp_path_factory.mktemp("home")
    mlflow_runs.configure(new_database(path), path)
    return path


@pytest.fixture(scope="module")
def outcomes(home: Path, tiny_expert: Path) -> dict[str, Outcome]:
    """A stored pipeline's outcomes, by stage."""
    return stored_pipeline.write(home, tiny_expert)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the trackers' own settings."""
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


def tracked_by(*names: str) -> Params:
    return config.changed(stored_pipeline.params(), [f"compute.track={json.dumps(names)}"])


def replay(params: Params, outcomes: dict[str, Outcome], home: Path, name: str) -> str:
    """A run of a pipeline that the store had already; its id in MLflow."""
    with mlflow_runs.pipeline_run(params, name) as run_id:
        for stage in GRAPH:
            mlflow_runs.replay_stage(run_id, stage, outcomes[stage.name], home)
        mlflow_runs.log_report(run_id, outcomes["report"])
    return run_id


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of its event files below a folder, as it reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.out.tfevents.*")
    found = EventAccumulator(str(file), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_shows_the_curves_and_measures_that_mlflow_has(
    home: Path, outcomes: dict[str, Outcome]
) -> None:
    run_id = replay(tracked_by("mlflow", "tensorboard"), outcomes, home, "a/b beta=0.5")
    found = scalars(home / "tensorboard" / f"a-b beta=0.5 {run_id[:8]}")
    steps, losses = zip(*LOSSES, strict=True)
    assert tuple(step for step, _ in found["train/finetune/loss"]) == steps
    assert [value for _, value in found["train/finetune/loss"]] == pytest.approx(losses)  # float32
    assert found["train/accuracy/tuned"] == [(0, pytest.approx(0.8))]
    client = MlflowClient()
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    nested = client.search_runs([mlflow_runs.experiment_id()], query)
    named = {f"train/{run.info.run_name}/{key}" for run in nested for key in run.data.metrics}
    assert set(found) == named | {f"train/{key}" for key in client.get_run(run_id).data.metrics}


def test_a_running_stages_curve_arrives_and_runs_do_not_mix(home: Path) -> None:
    ids = []
    for value in (1.0, 2.0):
        with mlflow_runs.pipeline_run(tracked_by("tensorboard"), "live") as run_id:
            ids.append(run_id)
            with mlflow_runs.stage_run(run_id, STAGES["finetune"], "sft") as watcher:
                watcher.metric("loss", value, 3)
    for run_id, value in zip(ids, (1.0, 2.0), strict=True):
        found = scalars(home / "tensorboard" / f"live {run_id[:8]}")
        assert found["train/finetune (sft)/loss"] == [(3, value)]


def test_the_parameters_are_beside_the_numbers(home: Path, outcomes: dict[str, Outcome]) -> None:
    """As the callback writes a Trainer's arguments: as text."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_id = replay(tracked_by("tensorboard"), {**outcomes}, home, "said")
    (file,) = (home / "tensorboard" / f"said {run_id[:8]}").rglob("events.*")
    found = EventAccumulator(str(file))
    found.Reload()
    (text,) = found.Tensors("args/text_summary")
    (said,) = text.tensor_proto.string_val
    assert json.loads(said)["select.beta"] == "0.4"


def test_a_tracker_that_fails_costs_its_own_record_alone(
    home: Path,
    outcomes: dict[str, Outcome],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(home / "file"))
    run_id = replay(tracked_by("tensorboard"), outcomes, home, "failing")
    assert MlflowClient().get_run(run_id).data.metrics["accuracy/tuned"] == 0.8
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("tensorboard misses numbers of the run (")
    assert said[0].endswith("; MLflow has them")


def test_without_being_asked_nobody_is_told(home: Path, outcomes: dict[str, Outcome]) -> None:
    before = set((home / "tensorboard").glob("*"))
    replay(stored_pipeline.params(), outcomes, home, "alone")
    assert set((home / "tensorboard").glob("*")) == before


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_refused_before_the_run(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    before = len(MlflowClient().search_runs([mlflow_runs.experiment_id()]))
    with pytest.raises(ConfigError) as error, mlflow_runs.pipeline_run(tracked_by(name), "no"):
        pass
    assert error.value.faults == [
        f"compute.track {name}: the package is not installed; `pip install {name}`, or take it "
        "out of the list"
    ]
    assert len(MlflowClient().search_runs([mlflow_runs.experiment_id()])) == before


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compute\.track\.0.*'mlflow', 'tensorboard'"):
        tracked_by("comet")


def test_trackio_keeps_them_on_this_machine(
    home: Path,
    outcomes: dict[str, Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Read from its database; where a machine reads, stdout stays its own."""
    monkeypatch.setenv("TRACKIO_DIR", str(home / "trackio"))
    pytest.importorskip("trackio")
    run_id = replay(tracked_by("trackio"), outcomes, home, "kept here")
    assert capsys.readouterr().out == ""
    with sqlite3.connect(home / "trackio" / "lightreasoner.db") as database:
        query = "SELECT metrics FROM metrics WHERE run_name = ?"
        rows = [json.loads(row) for (row,) in database.execute(query, [f"kept here {run_id[:8]}"])]
    curve = [
        (row["train/global_step"], row["train/finetune/loss"])
        for row in rows
        if "train/finetune/loss" in row
    ]
    assert curve == LOSSES
    assert [row["train/accuracy/tuned"] for row in rows if "train/accuracy/tuned" in row] == [0.8]


def records(file: Path) -> Iterator[Any]:
    """What wandb keeps of an offline run: its messages in LevelDB's log format, seven bytes in."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 < len(data):
        if (room := 2**15 - at % 2**15) < 7:
            at += room
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def test_wandb_writes_runs_to_be_sent_later(
    home: Path,
    outcomes: dict[str, Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two runs, each with a file of its own; nothing that would send them is asked for."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(home))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    ids = {name: replay(tracked_by("wandb"), outcomes, home, name) for name in ("one", "two")}
    assert wandb.run is None
    assert capsys.readouterr().out == ""
    found = {}
    for file in home.glob("wandb/offline-run-*/*.wandb"):
        said = list(records(file))
        (name,) = {each.run.display_name for each in said if each.HasField("run")}
        found[name] = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in row}
            for each in said
            if (row := each.history.item)
        ]
    assert sorted(found) == [f"{name} {ids[name][:8]}" for name in ("one", "two")]
    for rows in found.values():
        curve = "train/finetune/loss"
        assert [(r["train/global_step"], r[curve]) for r in rows if curve in r] == LOSSES
        assert [r["train/accuracy/tuned"] for r in rows if "train/accuracy/tuned" in r] == [0.8]
