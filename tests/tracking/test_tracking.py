"""MLflow's runs of a pipeline: what they hold, and that MLflow never stops or slows a stage."""

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import stored_pipeline
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.exceptions import TerminationSignal

from flows.servers import local
from lightreasoner.pipeline.graph import GRAPH, STAGES
from lightreasoner.pipeline.store import Outcome
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import versions
from tasks.tracking import lookup, measures, mlflow_runs, route

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow asks SQLAlchemy 2.1
)
PARAMS = stored_pipeline.params()


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


@pytest.fixture(scope="module")
def replayed(home: Path, outcomes: dict[str, Outcome]) -> tuple[Run, dict[str, Run]]:
    """The runs of a pipeline that the store had already: its own, and each stage's."""
    with mlflow_runs.pipeline_run(PARAMS, "replayed") as run_id:
        for stage in GRAPH:
            outcome = Outcome(outcomes[stage.name].artifact, outcomes[stage.name].manifest, True)
            mlflow_runs.replay_stage(run_id, stage, outcome, home)
        mlflow_runs.log_report(run_id, outcomes["report"], mlflow_runs.named(run_id))
    return MlflowClient().get_run(run_id), _nested(run_id)


@pytest.fixture
def no_loss(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which MLflow did not take something."""
    yield
    records = caplog.get_records("setup") + caplog.get_records("call")
    assert not [record for record in records if record.levelno >= logging.WARNING]


nothing_lost = pytest.mark.usefixtures("no_loss")


def _nested(run_id: str) -> dict[str, Run]:
    found = MlflowClient().search_runs(
        [mlflow_runs.experiment_id()], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    return {run.info.run_name: run for run in found}


CPU = "system/cpu_utilization_percentage"


def _curve(run_id: str, name: str = "loss") -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient().get_metric_history(run_id, name)]


@nothing_lost
def test_pipeline_run_holds_every_parameter(replayed: tuple[Run, dict[str, Run]]) -> None:
    run, _ = replayed
    assert run.info.status == "FINISHED"
    assert run.data.params["select.beta"] == "0.4"
    assert run.data.params["finetune.target_modules"] == '["q_proj", "v_proj"]'
    assert run.data.params["compute.batch_size"] == "null"
    assert len(run.data.params) == len(mlflow_runs.flatten(PARAMS))


def test_a_cached_stage_has_its_run_with_its_curve(replayed: tuple[Run, dict[str, Run]]) -> None:
    _, nested = replayed
    assert set(nested) == {stage.name for stage in GRAPH}
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    assert {run.data.tags["cached"] for run in nested.values()} == {"true"}
    assert _curve(nested["finetune"].info.run_id) == [
        (step, value) for _, value, step in stored_pipeline.CURVE
    ]


def test_a_stage_run_leads_back_to_its_inputs_and_code(
    replayed: tuple[Run, dict[str, Run]], outcomes: dict[str, Outcome]
) -> None:
    run = replayed[1]["finetune"]
    tags = run.data.tags
    assert tags["digest"] == outcomes["finetune"].artifact.digest
    assert tags["input.samples"] == outcomes["select"].artifact.digest
    assert tags["input.expert"] == stored_pipeline.SOURCES["expert"]
    assert (tags["code"], tags["commit"]) == ("code-finetune", stored_pipeline.COMMIT)
    assert tags["fingerprint"] == outcomes["finetune"].manifest["fingerprint"]
    assert run.data.params["finetune.r"] == "8"
    assert run.data.metrics["seconds"] == 1.5
    assert run.data.metrics["peak_memory_mib"] == 100.0


def test_data_sets_carry_the_artifacts_digests(
    replayed: tuple[Run, dict[str, Run]], outcomes: dict[str, Outcome]
) -> None:
    """A directory's digest has just the 36 characters that MLflow allows; a commit is cut."""
    _, nested = replayed
    data = {d.dataset.name: d.dataset.digest for d in nested["finetune"].inputs.dataset_inputs}
    assert data == {
        "samples": outcomes["select"].artifact.digest,
        "problems": outcomes["prepare"].artifact.digest,
    }
    assert len(data["samples"]) == 36
    hub = nested["evaluate"].inputs.dataset_inputs[0].dataset
    assert (hub.name, hub.digest) == ("benchmark_source", stored_pipeline.COMMIT[:36])
    assert stored_pipeline.SOURCES["benchmark_source"] in hub.source


@nothing_lost
def test_contamination_is_on_the_pipelines_run(replayed: tuple[Run, dict[str, Run]]) -> None:
    """Questions that share 8 or 13 words, and the gain without those; where none is left, none."""
    metrics = replayed[0].data.metrics
    assert metrics["contamination_8_problems/tuned"] == 7
    assert metrics["contamination_8_trajectories/tuned"] == 2
    assert metrics["contamination_13_any/tuned"] == 1
    assert metrics["gain_without_contamination/tuned"] == 0.38
    assert metrics["gain_without_contamination_low/tuned"] == 0.34
    assert metrics["gain_without_contamination_high/tuned"] == 0.42
    assert metrics["contamination_13_problems/transfer"] == 200
    assert "gain_without_contamination/transfer" not in metrics


@nothing_lost
def test_the_headline_and_the_page_are_on_the_pipelines_run(
    replayed: tuple[Run, dict[str, Run]],
) -> None:
    run, nested = replayed
    metrics = run.data.metrics
    assert metrics["accuracy/tuned"] == 0.8
    assert metrics["accuracy_base/tuned"] == 0.4
    assert (metrics["drift"], metrics["pull"]) == (0.03125, 12.5)
    assert metrics["several_tokens_share"] == 0.5
    assert metrics["gain_that_shows/tuned"] == pytest.approx(0.0751, abs=5e-5)  # 260 of 600 change
    assert metrics["gain/tuned"] == pytest.approx(0.4)
    assert metrics["p/tuned"] == 1e-50
    assert metrics["accuracy_base"] == pytest.approx(
        (metrics["accuracy_base/tuned"] + metrics["accuracy_base/transfer"]) / 2
    )
    assert metrics["gain"] == pytest.approx(metrics["accuracy"] - metrics["accuracy_base"])
    assert metrics["gained/tuned"] == 250
    for run_id in (run.info.run_id, nested["report"].info.run_id):
        assert {f.path for f in MlflowClient().list_artifacts(run_id)} == {"report.html", "figures"}


@nothing_lost
def test_a_runs_own_page_names_it_and_the_stages_does_not(
    replayed: tuple[Run, dict[str, Run]],
) -> None:
    """The stage's is the stored one, which every run that comes to it shares."""
    run, nested = replayed
    own, stored = (
        Path(MlflowClient().download_artifacts(each.info.run_id, "report.html")).read_text("utf-8")
        for each in (run, nested["report"])
    )
    assert "<dt>run</dt><dd>replayed</dd><dt>run.date</dt><dd>20" in own
    assert stored == stored_pipeline.PAGE


def test_artifacts_are_files_under_home(home: Path, replayed: tuple[Run, dict[str, Run]]) -> None:
    assert replayed[0].info.artifact_uri.startswith((home / "mlflow" / "artifacts").as_uri())


def test_payload_numbers(outcomes: dict[str, Outcome]) -> None:
    """Counts by hand from tests/stored_pipeline.py: 3 + 2 tokens; KL (0.5 + 1.5) / 2."""
    numbers = {
        name: measures.of_payload(name, outcome.artifact.path) for name, outcome in outcomes.items()
    }
    assert numbers["prepare"] == {"problems": 1}
    assert numbers["generate"] == {"trajectories": 2, "completion_tokens": 5, "truncated": 1}
    assert numbers["score"] == {"steps": 3}
    assert numbers["select"] == {
        "samples": 2,
        "problems": 1,
        "kl_mean": 1.0,
        "support_mean": 1.5,
        "several_tokens_share": 0.5,
    }
    assert numbers["finetune"] == {}
    assert numbers["merge"] == {f"parity/{k}": v for k, v in stored_pipeline.PARITY.items()}
    assert numbers["evaluate"]["accuracy/tuned"] == 0.8
    assert numbers["evaluate"]["accuracy_low/tuned"] == pytest.approx(0.75)
    assert numbers["evaluate"]["qwen/accuracy/tuned"] == 0.8
    assert numbers["evaluate"]["no_answer/transfer"] == 2


@nothing_lost
def test_mlflow_shows_what_was_answered(replayed: tuple[Run, dict[str, Run]]) -> None:
    """The stage's run holds the table; what has no answer is empty, not the text "nan"."""
    for stage in ("evaluate", "evaluate_base"):
        run_id = replayed[1][stage].info.run_id
        path = MlflowClient().download_artifacts(run_id, "predictions.json")
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        assert [row["problem_id"] for row in rows] == [
            "tuned/0", "tuned/1", "transfer/0", "transfer/1",
        ]  # fmt: skip
        assert [row["extracted"] for row in rows] == ["2", None] * 2
        assert "prompt" not in table["columns"]


@nothing_lost
def test_curves_arrive_while_the_stage_runs(home: Path) -> None:
    with (
        mlflow_runs.pipeline_run(PARAMS, "live") as run_id,
        mlflow_runs.stage_run(run_id, STAGES["finetune"]) as live,
    ):
        live.metric("loss", 2.0, 0)
        deadline = time.monotonic() + 20
        while not _curve(live.run_id) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _curve(live.run_id) == [(0, 2.0)]
        live.metric("loss", 1.0, 1)
    assert _curve(live.run_id) == [(0, 2.0), (1, 1.0)]
    assert MlflowClient().get_run(live.run_id).info.status == "FINISHED"


@nothing_lost
def test_a_long_stage_has_system_metrics(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reading a second in place of one in ten; a stage that is shorter has none."""
    monkeypatch.setattr("tasks.tracking.system.SECONDS", 0.5)
    with mlflow_runs.pipeline_run(PARAMS, "watched") as parent:
        with mlflow_runs.stage_run(parent, STAGES["finetune"]) as live:
            deadline = time.monotonic() + 30
            while not _curve(live.run_id, CPU) and time.monotonic() < deadline:
                time.sleep(0.05)
        with mlflow_runs.stage_run(parent, STAGES["merge"]) as short:
            pass
    steps = [step for step, _ in _curve(live.run_id, CPU)]
    assert steps == list(range(1, len(steps) + 1))
    assert _curve(live.run_id, "system/system_memory_usage_percentage")[0][1] > 0
    assert _curve(short.run_id, CPU) == []


def test_stages_in_threads_keep_their_curves_apart(home: Path) -> None:
    """One stage ends its run while the other goes on: neither loses a point."""
    points: dict[str, list[tuple[int, float]]] = {}

    def work(name: str, steps: int) -> None:
        with mlflow_runs.stage_run(run_id, STAGES[name]) as live:
            for step in range(steps):
                live.metric("loss", float(step), step)
                time.sleep(0.005)
        points[name] = _curve(live.run_id)

    with mlflow_runs.pipeline_run(PARAMS, "threads") as run_id:
        threads = [
            threading.Thread(target=work, args=arguments)
            for arguments in (("finetune", 300), ("evaluate", 20), ("evaluate_base", 100))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sizes = {name: len(curve) for name, curve in points.items()}
    assert sizes == {"finetune": 300, "evaluate": 20, "evaluate_base": 100}
    assert set(_nested(run_id)) == set(points)


@nothing_lost
def test_a_failed_stage_ends_its_runs_as_failed(home: Path) -> None:
    runs: list[str] = []

    def fail() -> None:
        with (
            mlflow_runs.pipeline_run(PARAMS, "failing") as run_id,
            mlflow_runs.stage_run(run_id, STAGES["merge"]) as live,
        ):
            runs.extend([run_id, live.run_id])
            live.metric("loss", 1.0, 0)
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        fail()
    for failed in runs:
        run = MlflowClient().get_run(failed)
        assert run.info.status == "FAILED"
        assert run.data.tags["error"] == "ValueError: no luck"
    assert _curve(runs[1]) == [(0, 1.0)]


@nothing_lost
def test_a_run_says_what_it_learns_from_and_is_graded_on(home: Path) -> None:
    sources = {name: Artifact(home, digest) for name, digest in stored_pipeline.SOURCES.items()}
    with mlflow_runs.pipeline_run(PARAMS, "data") as run_id:
        mlflow_runs.log_data(run_id, PARAMS, sources)
    found = MlflowClient().get_run(run_id).inputs.dataset_inputs
    said = {(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in found}
    commit = stored_pipeline.COMMIT[:36]
    evaluated = ("tuned,transfer", commit, "evaluation")
    assert said == {("tuned", "microworld", "training"), evaluated}
    with mlflow_runs.pipeline_run(PARAMS, "an evaluation") as run_id:
        mlflow_runs.log_data(run_id, PARAMS, {"benchmark_source": sources["benchmark_source"]})
    (one,) = MlflowClient().get_run(run_id).inputs.dataset_inputs
    assert one.dataset.name == "tuned,transfer"


@nothing_lost
@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(129), TerminationSignal(15)])
def test_an_interrupted_stage_has_not_failed(home: Path, end: BaseException) -> None:
    runs: list[str] = []
    with (  # noqa: PT012
        pytest.raises(type(end)),
        mlflow_runs.pipeline_run(PARAMS, "interrupted") as run_id,
        mlflow_runs.stage_run(run_id, STAGES["merge"]) as live,
    ):
        runs.extend([run_id, live.run_id])
        raise end
    for killed in map(MlflowClient().get_run, runs):
        assert killed.info.status == "KILLED"
        assert "error" not in killed.data.tags
    seen = lookup.look_up(runs[0], f"sqlite:///{home}/mlflow/mlflow.db", home)
    assert seen == lookup.Seen("pipeline", "it was interrupted", False)


def test_the_address_stays_in_this_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else environment.py would take one home's database for the user's choice for another."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow_runs.configure(f"sqlite:///{home}/mlflow/mlflow.db", home)
    assert mlflow.get_tracking_uri() == f"sqlite:///{home}/mlflow/mlflow.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_deleted_experiment_is_restored(home: Path) -> None:
    MlflowClient().delete_experiment(mlflow_runs.experiment_id())
    mlflow_runs.configure(f"sqlite:///{home}/mlflow/mlflow.db", home)
    assert MlflowClient().get_experiment(mlflow_runs.experiment_id()).lifecycle_stage == "active"


def test_an_interrupted_database_is_made_again(tmp_path: Path) -> None:
    """What a killed process left beside the place is not a database yet."""
    (tmp_path / "mlflow.new").write_bytes(b"half")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    route.make_database(uri)
    assert MlflowClient(uri).get_experiment("0").name == "Default"
    assert not (tmp_path / "mlflow.new").exists()


def test_a_moved_home_is_said(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mlflow_runs.configure(f"sqlite:///{home}/mlflow/mlflow.db", tmp_path)
    assert "was the home moved?" in caplog.text


def test_what_no_database_takes_is_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the server is there nor may the database be made."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "mlflow").write_text("a file, not a folder", encoding="utf-8")
    mlflow_runs.configure("http://127.0.0.1:9", tmp_path)
    with mlflow_runs.pipeline_run(PARAMS, "down") as run_id:
        assert run_id == mlflow_runs.UNTRACKED
        with mlflow_runs.stage_run(run_id, STAGES["finetune"]) as live:
            live.metric("loss", 1.0, 0)
    assert "MLflow did not take the run down" in caplog.text
    assert all(len(record.message) < 300 for record in caplog.records)


@nothing_lost
def test_a_database_that_is_busy_holds_no_stage_up(home: Path) -> None:
    """Another process writes: a hundred calls do not wait for it, each as long as SQLite would."""
    mlflow_runs.configure(f"sqlite:///{home}/mlflow/mlflow.db", home)
    with (
        mlflow_runs.pipeline_run(PARAMS, "busy") as run_id,
        mlflow_runs.stage_run(run_id, STAGES["finetune"]) as live,
        contextlib.closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        for step in range(100):
            live.metric("loss", 1.0, step)
            time.sleep(0.02)
        assert time.monotonic() - started < 30
        other.rollback()
    assert _curve(live.run_id) == [(step, 1.0) for step in range(100)]


@nothing_lost
def test_the_server_of_up_may_be_gone(
    home: Path, monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Outcome]
) -> None:
    """It serves the database under home, which runs are written to whether it is there or not."""
    gone = "http://127.0.0.1:9"
    monkeypatch.setattr(local, "announced", lambda _: local.Servers(gone, gone))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gone)
    local.track(home)
    with mlflow_runs.pipeline_run(PARAMS, "of up") as run_id:
        mlflow_runs.replay_stage(run_id, STAGES["finetune"], outcomes["finetune"], home)
        assert versions.register_version(
            outcomes["merge"].artifact, outcomes, PARAMS, run_id
        ).created
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
    assert set(_nested(run_id)) == {"finetune"}
    assert MlflowClient().get_model_version_by_alias("micro", "candidate").run_id == run_id
