"""The flow and its cached tasks, on real stages, a real Prefect API and a real MLflow database."""

import io
import json
import logging
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import json_lines
import pytest
import stored_pipeline
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
)
from prefect.client.schemas.filters import FlowRunFilterStateName as StateName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.runtime import flow_run
from prefect.serializers import PickleSerializer
from rich.console import Console
from test_trackers import scalars
from written_scores import write_scores

from flows import compare, controls, pipeline, registering, table1
from flows import environment as homes
from flows.dvc import publish
from flows.forms import naming
from flows.forms.form import Form, name_of
from flows.results import prefect_page, records, report_json, terminal
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError, ModelError, ProblemsError, SelectionError
from lightreasoner.evaluation import gains, power
from lightreasoner.evaluation.gains import Asked
from lightreasoner.evaluation.promotion import Champion, Decision, decide
from lightreasoner.experiments import methods
from lightreasoner.experiments.comparison import Result
from lightreasoner.experiments.table1 import ENDS, notes, tables
from lightreasoner.pipeline.graph import GRAPH, STAGES, Stage, external_inputs
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.progress import Silent
from lightreasoner.storage import digests, outputs
from tasks.registry.gate import Gated
from tasks.registry.versions import Registered, RegistryError
from tasks.stages import StageRun, run_stage
from tasks.tracking import lookup, mlflow_runs

pytestmark = [
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect and of MLflow
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]
NAMES = [stage.name for stage in GRAPH]


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> Params:
    """Parameters of a pipeline of seconds."""
    return tiny_params


def changed(params: Params, **sections: dict[str, Any]) -> Params:
    """The parameters with some values of some sections replaced."""
    tree = params.model_dump(mode="json")
    return config.parse({**tree, **{k: {**tree[k], **v} for k, v in sections.items()}}, "test")


def prepare_job(params: Params) -> Job:
    stage = STAGES["prepare"]
    return Job.of(stage, external_inputs(params, stage.inputs), params)


def run_prepare(params: Params, home: Path) -> StageRun:
    """The first stage as a task of a flow, MLflow left out."""

    @flow
    def first_stage() -> list[StageRun]:
        return [run_stage(prepare_job(params), home, mlflow_runs.UNTRACKED)]

    return first_stage()[0]


def test_a_second_run_is_cached(params: Params, tmp_path: Path) -> None:
    first, second = run_prepare(params, tmp_path), run_prepare(params, tmp_path)
    assert (first.state.name, first.outcome.cached) == ("Completed", False)
    assert (second.state.name, second.outcome.cached) == ("Cached", True)
    assert second.outcome.artifact == first.outcome.artifact
    assert second.outcome.manifest == first.outcome.manifest


def test_what_another_driver_stored_is_cached(params: Params, tmp_path: Path) -> None:
    stored = Store(tmp_path).run(prepare_job(params), Silent())
    run = run_prepare(params, tmp_path)
    assert (run.state.name, run.outcome.cached) == ("Cached", True)
    assert run.outcome.artifact == stored.artifact


def test_a_changed_section_runs_again(params: Params, tmp_path: Path) -> None:
    first = run_prepare(params, tmp_path)
    other = run_prepare(changed(params, prepare={"seed": 7}), tmp_path)
    same = run_prepare(changed(params, select={"beta": 1.0}), tmp_path)
    assert not other.outcome.cached
    assert other.outcome.artifact.digest != first.outcome.artifact.digest
    assert same.outcome.cached


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_what_is_gone_or_damaged_is_made_again(
    damage: str, params: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_prepare(params, tmp_path).outcome
    if damage == "gone":
        shutil.rmtree(first.artifact.path.parent)
    else:
        file = first.artifact.path / "problems.jsonl"
        file.chmod(0o644)
        file.write_text("{}\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        again = run_prepare(params, tmp_path)
    assert again.outcome.artifact == first.artifact
    assert not again.outcome.cached
    said = [record.message for record in caplog.records if "making it again" in record.message]
    assert bool(said) is (damage == "changed")
    assert run_prepare(params, tmp_path).outcome.cached


class Trap:
    """What a pickle can do when it is loaded: here, it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "new"])
def test_no_record_of_prefects_cache_is_loaded(
    stored: bool, params: Params, tmp_path: Path
) -> None:
    """Prefect takes the serializer from the record, whatever the task says; that may be pickle."""
    sprung = tmp_path / "sprung"
    record = ResultRecord(
        result=Trap(sprung),
        metadata=ResultRecordMetadata(serializer=PickleSerializer(), storage_key="key"),
    )
    job = prepare_job(params)
    if stored:
        Store(tmp_path).run(job, Silent())
    for folder in ("cache", "storage"):
        (tmp_path / "prefect" / folder).mkdir(parents=True)
        (tmp_path / "prefect" / folder / job.key).write_bytes(record.serialize())
    run = run_prepare(params, tmp_path)
    assert not sprung.exists()
    assert run.state.name == ("Cached" if stored else "Completed")
    assert run.outcome.artifact == Store(tmp_path).find(job).artifact  # type: ignore[union-attr]
    ResultRecord.deserialize(record.serialize())
    assert sprung.exists()


@pytest.fixture(scope="module")
def home(new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for whole pipelines."""
    home = tmp_path_factory.mktemp("home")
    new_database(home)
    return home


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow's home is the tests' home, its MLflow a database there."""
    monkeypatch.setenv("LIGHTREASONER_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def first_report(params: Params, home: Path, prefect_api: None) -> dict[str, Any]:
    """What the first run of the whole pipeline reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTREASONER_HOME", str(home))
        return pipeline.lightreasoner(params)


@pytest.mark.usefixtures("first_report")
def test_a_flow_that_a_server_starts_keeps_digests_too(home: Path) -> None:
    """No console script has asked for it there."""
    assert digests._kept == [home / "digests.json"]


@pytest.mark.usefixtures("first_report")
def test_the_plan_is_the_runs_first_artifact(home: Path) -> None:
    """All of it was still to do."""
    run = UUID(records.newest_first(home)[-1].prefect)
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_run)
    first = min(found, key=lambda each: each.created)
    assert first.key == "plan"
    rows = json.loads(first.data)
    assert [(row["stage"], row["state"]) for row in rows] == [(name, "to do") for name in NAMES]
    assert rows[1]["time"].endswith("s")
    assert "of the hub: nothing" in first.description


def edges(run: str, last: str) -> dict[str, set[str]]:
    """The names of the tasks from which Prefect's graph of a flow run has an edge to each task.

    Prefect hears of tasks by events, a little later: of the task `last` when it ends.
    """
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run)]))
    end, names = time.monotonic() + 60, dict[UUID, str]()
    with get_client(sync_client=True) as client:
        while last not in names.values():
            assert time.monotonic() < end
            time.sleep(0.5)
            tasks = client.read_task_runs(flow_run_filter=of_run)
            names = {task.id: task.name for task in tasks if task.state and task.state.is_final()}
    return {
        task.name: {
            names[each.id]
            for parameter, inputs in task.task_inputs.items()
            if parameter != "__parents__"
            for each in inputs
        }
        for task in tasks
    }


@pytest.mark.usefixtures("first_report")
def test_prefects_graph_shows_the_direct_inputs_alone(home: Path) -> None:
    makers = {stage.output: stage.name for stage in GRAPH}
    expected = {
        stage.name: {makers[name] for name in stage.inputs if name in makers} for stage in GRAPH
    }
    expected |= {"register": {"merge", "report"}}
    expected |= {"gate": {"register", "evaluate_base", "evaluate"}}
    assert edges(records.newest_first(home)[-1].prefect, "gate") == expected


def test_the_report_is_on_disk(first_report: dict[str, Any], home: Path) -> None:
    written = json.loads((home / "latest" / "report.json").read_text(encoding="utf-8"))
    assert written == first_report
    page = (home / "latest" / "report.html").read_text(encoding="utf-8")
    name = re.escape(records.newest_first(home)[0].name)
    assert re.search(f"<dt>run</dt><dd>{name}, 20[0-9-]+ [0-9:]+ UTC</dd>", page)
    assert "<dd>by sample, " in page
    assert list((home / "latest" / "figures").glob("*.png"))
    assert not list((home / "latest").glob(".*"))


def test_the_report_has_the_agreed_names(first_report: dict[str, Any]) -> None:
    assert set(first_report["scores"]) == {"base", "lightreasoner"}
    assert {"n", "correct", "accuracy", "ci95"} <= set(first_report["scores"]["base"]["small"])
    assert {"gained", "lost", "p"} <= set(first_report["paired"]["small"])
    assert set(first_report["drift"]) == {"drift", "top1_kept", "drift_taught"}
    assert list(first_report["stages"]) == [*NAMES, "register"]
    for cost in first_report["stages"].values():
        assert set(cost) == {"seconds", "cached", "peak_memory_mib"}
        assert cost["cached"] is False
        assert cost["seconds"] > 0
        assert cost["peak_memory_mib"] > 0
    model = dict(first_report["registered_model"])
    gate = model.pop("gate")
    assert model == {"name": "tiny", "version": "1", "alias": "candidate"}
    assert (gate["verdict"], gate["n"], gate["champion"]) == ("kept", 6, None)
    assert gate["reason"].startswith("There is no champion yet: ")
    assert list(first_report["fingerprints"]) == NAMES


def test_dvcs_workspace_may_be_written_again(
    first_report: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store has is told from other files there."""
    monkeypatch.chdir(tmp_path)
    for stage in GRAPH:
        payload = home / "store" / stage.name / first_report["fingerprints"][stage.name] / "payload"
        out = outputs.DATA / stage.output
        shutil.copytree(payload, out)
        outputs.check(out, home)
        (out / "thesis.txt").touch()
        with pytest.raises(ArtifactError, match="holds other files"):
            outputs.check(out, home)


def test_a_second_run_takes_all_from_the_store(
    first_report: dict[str, Any], params: Params, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever else is told of it: that changes no result. It says that six problems are few."""
    with caplog.at_level(logging.WARNING, "flows"):
        report = pipeline.lightreasoner(changed(params, compute={"track": ["tensorboard"]}))
    (warned,) = (each for each in caplog.messages if "seldom show" in each)
    assert [warned] == power.warnings(params)
    (told,) = (home / "tensorboard").iterdir()
    shown = scalars(told)
    accuracy = report["scores"]["lightreasoner"]["small"]["accuracy"]
    assert shown["train/accuracy/small"] == [(0, pytest.approx(accuracy))]
    assert len(shown["train/finetune/loss"]) == params.finetune.updates
    assert all(cost["cached"] for cost in report["stages"].values())
    for name in ("scores", "paired", "registered_model", "fingerprints"):
        assert report[name] == first_report[name]


def test_a_finished_run_leaves_a_record(
    first_report: dict[str, Any], params: Params, home: Path
) -> None:
    record = records.newest_first(home)[-1]
    assert records.find(home, record.prefect, "") == record
    assert record.values() == params
    assert record.fingerprints == first_report["fingerprints"]
    assert record.registered_model == first_report["registered_model"]
    stored = registering.stored_outcomes(params, home)
    assert record.digests == {name: each.artifact.digest for name, each in stored.items()}
    mlflow_runs.configure(homes.tracking_uri(home), home)
    run = MlflowClient().get_run(record.mlflow)
    assert run.info.run_name == record.name
    # Both are of the same file, which MLflow names once.
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["small"]


@pytest.mark.usefixtures("first_report")
def test_ctrl_c_cancels_the_run(params: Params, home: Path) -> None:
    """In Prefect and in MLflow; an error in its place fails it, as ever."""
    seen: list[UUID] = []
    ends = (KeyboardInterrupt(), SystemExit(129), ValueError("no luck"))

    @flow(name="lightreasoner-sweep")
    def ended(place: int) -> None:
        mlflow_runs.configure(homes.tracking_uri(home), home)
        naming.tag(Form.of(params), "sweep")
        with pipeline.tracked(params, {}):
            seen.append(UUID(flow_run.id))
            raise ends[place]

    for place, error in enumerate(ends):
        with pytest.raises(type(error)):
            ended(place)
    with get_client(sync_client=True) as client:
        found = [client.read_flow_run(each) for each in seen]
    assert [each.state_name for each in found] == ["Cancelled", "Crashed", "Failed"]
    assert set(found[0].tags) == {"lightreasoner", "sweep", name_of(params)}
    client = MlflowClient()
    runs = client.search_runs([mlflow_runs.experiment_id()], "tags.kind = 'sweep'")
    assert [each.info.status for each in runs] == ["FAILED", "KILLED", "KILLED"]


def test_a_failed_stage_fails_the_run_in_one_line(params: Params, home: Path) -> None:
    before = (home / "latest" / "report.json").read_bytes()
    with pytest.raises(SelectionError, match=r"select\.beta") as error:
        pipeline.lightreasoner(changed(params, select={"beta": 1000.0}))
    with get_client(sync_client=True) as client:
        failed = FlowRunFilter(state=FlowRunFilterState(name=StateName(any_=["Failed"])))
        failures = client.read_flow_runs(
            flow_run_filter=failed, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1
        )
    assert failures[0].state
    assert str(error.value) in str(failures[0].state.message)
    assert (home / "latest" / "report.json").read_bytes() == before
    seen = lookup.look_up(failures[0].name, homes.tracking_uri(home), home)
    assert seen
    assert (seen.kind, seen.finished) == ("pipeline", False)
    assert seen.state.startswith("it failed (SelectionError: ")
    seen = lookup._in_prefect(str(failures[0].id))
    assert seen == lookup.Seen("pipeline", "it is Failed", False)
    assert lookup.look_up("nobody's", homes.tracking_uri(home), home) is None


@contextmanager
def refusing(home: Path, where: str) -> Iterator[None]:
    """A registry that refuses: a table that takes no row, or a folder that is none."""
    blocked = home / "mlflow" / "artifacts" / "models"
    aside = blocked.with_name("aside")
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as database:
        if where == "files":
            blocked.rename(aside)
            blocked.touch()
        else:
            refused = "BEGIN INSERT INTO no_room_here VALUES (1); END"
            database.execute(f"CREATE TRIGGER refusal BEFORE INSERT ON {where} {refused}")
        database.commit()
        try:
            yield
        finally:
            if where == "files":
                blocked.unlink()
                aside.rename(blocked)
            database.execute("DROP TRIGGER IF EXISTS refusal")
            database.commit()


@pytest.mark.usefixtures("first_report")
@pytest.mark.parametrize("where", ["registered_models", "model_versions", "files"])
def test_a_registry_that_refuses_costs_nothing_that_was_computed(
    where: str, params: Params, home: Path, tmp_path: Path
) -> None:
    """Report and record are there, the error is one line, the next run registers."""
    other = changed(params, register={"name": f"refused-{where}"})
    with refusing(home, where), pytest.raises(RegistryError) as error:
        pipeline.lightreasoner(other)
    assert str(error.value).count("\n") == 0
    assert "run the same command again: it takes all results from the store" in str(error.value)
    assert ("no_room_here" if where != "files" else "cannot be written") in str(error.value)
    report = json.loads((home / "latest" / "report.json").read_text(encoding="utf-8"))
    assert (report["registered_model"], list(report["stages"])) == (None, NAMES)
    assert (home / "latest" / "report.html").is_file()
    record = records.newest_first(home)[0]
    assert (record.registered_model, record.values()) == (None, other)
    with pytest.raises(publish.PublishError, match="its model was not registered; run it again"):
        publish.publish_run(record, tmp_path, home)

    report = pipeline.lightreasoner(other)
    assert all(cost["cached"] for name, cost in report["stages"].items() if name != "register")
    assert report["registered_model"]["version"] == "1"
    written = json.loads((home / "latest" / "report.json").read_text(encoding="utf-8"))
    assert written == report
    found = records.find(home, record.name, "")  # not the one that failed
    assert found.registered_model == report["registered_model"]


@pytest.mark.usefixtures("first_report")
def test_a_registry_that_refuses_dvc_registers_the_next_time(params: Params, home: Path) -> None:
    other = changed(params, register={"name": "refused-dvc"})
    model = registering.stored_outcomes(other, home)["merge"].artifact
    with refusing(home, "model_versions"), pytest.raises(RegistryError, match="no_room_here"):
        registering.register_stored(other, model, home)
    assert registering.register_stored(other, model, home)["version"] == "1"


def data_sets(run: str) -> dict[str, str]:
    """What the newest run of this name learnt from and was graded on, as MLflow's list has it."""
    query = f"attributes.run_name = '{run}'"
    found = MlflowClient().search_runs([mlflow_runs.experiment_id()], query, max_results=1)
    return {each.dataset.name: each.tags[0].value for each in found[0].inputs.dataset_inputs}


@pytest.mark.usefixtures("first_report")
def test_registering_outside_a_flow_finds_the_version(params: Params, home: Path) -> None:
    model = registering.stored_outcomes(params, home)["merge"].artifact
    found = registering.register_stored(params, model, home)
    assert data_sets("dvc repro") == {"small": "training"}  # MLflow has a set once in a run
    assert found.pop("gate")["verdict"] == "kept"
    assert found == {"name": "tiny", "version": "1", "alias": "candidate"}


@pytest.mark.usefixtures("first_report")
def test_a_champion_is_graded_as_a_task_of_the_run(params: Params, home: Path) -> None:
    """The champion, of the first run, has no scores under another token limit."""
    other = changed(params, evaluate={"max_new_tokens": 3}, select={"alpha": 0.5})
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client = MlflowClient()
    client.set_registered_model_alias("tiny", "champion", "1")
    try:
        gate = pipeline.lightreasoner(other)["registered_model"]["gate"]
    finally:
        client.delete_registered_model_alias("tiny", "champion")
    assert (gate["verdict"], gate["against"], gate["champion"]) == ("kept", "1", "1")
    assert gate["over_champion"]["difference"] == 0
    runs = client.search_runs([mlflow_runs.experiment_id()], "tags.kind = 'stage'")
    assert "evaluate (champion)" in {run.info.run_name for run in runs}
    with get_client(sync_client=True) as prefect:
        names = {run.name for run in prefect.read_task_runs(limit=200)}
    assert {"gate", "evaluate (champion)"} <= names


@pytest.mark.usefixtures("first_report")
def test_registering_another_model_is_refused(params: Params, home: Path) -> None:
    adapter = registering.stored_outcomes(params, home)["finetune"].artifact
    with pytest.raises(ArtifactError, match="the model of these parameters has"):
        registering.register_stored(params, adapter, home)
    with pytest.raises(ArtifactError, match="no result of select"):
        registering.stored_outcomes(changed(params, select={"beta": 0.1}), home)


def test_the_summary_shows_what_matters(tmp_path: Path, tiny_expert: Path) -> None:
    outcomes = stored_pipeline.write(tmp_path, tiny_expert)
    state: Any = None
    runs = {name: StageRun(outcome, state, 1.25) for name, outcome in outcomes.items()}
    gated = Gated(_decision(tmp_path), "2")
    registered = report_json.Registering(Registered("m", "3", "candidate", False), 0.5, 10.0, gated)
    report = report_json.report_tree(runs, registered)
    assert report["stages"]["register"]["cached"] is True
    written = io.StringIO()
    terminal.show_run(report, Console(width=40, file=written), {"report": "/here/report.html"})
    text = written.getvalue()
    row = next(re.split("  +", line) for line in text.splitlines() if line.startswith("tuned"))
    gain = ["+40.0 (+36.0 to +44.0)", "250/10", "2.0 × 10⁻⁵⁰"]  # p corrected for two sets
    of_toolkit = ["40.0%", "80.0%"]
    strict = ["tuned", "600", "40.0% (35.0-45.0)", "80.0% (75.0-85.0)"]
    assert row == [*strict, *gain, "+7.5", *of_toolkit]  # 260 of 600 changed
    assert "models:/m@candidate (version 3)" in text
    assert "gate         kept. Version 2 stays champion: it cannot be graded. On 3 probl" in text
    assert report["registered_model"]["gate"]["champion"] == "2"
    assert "register" in text
    assert "/here/report.html" in text


def test_the_page_in_prefect_shows_what_matters(tmp_path: Path, tiny_expert: Path) -> None:
    outcomes = stored_pipeline.write(tmp_path, tiny_expert)
    state: Any = None
    runs = {name: StageRun(outcome, state, 1.25) for name, outcome in outcomes.items()}
    gated = Gated(_decision(tmp_path), "2")
    registered = report_json.Registering(Registered("m", "3", "candidate", False), 0.5, 10.0, gated)
    report = report_json.report_tree(runs, registered)
    addresses = {"registered-model": "http://h/m", "sample-set": "http://h/s"}
    params = stored_pipeline.params()
    ids = {"name": "a run", "prefect": "1d", "mlflow": ""}
    record = records.of(ids, params, runs, report["registered_model"])
    finished = prefect_page.Finished(record, report, runs, params, addresses)
    text = prefect_page.markdown(finished)
    assert text.startswith(
        "**Accuracy on the set tuned rises from 40.0% to 80.0%: +40.0 points (95% inter"
    )
    assert "2 of 8 steps (25.0%) were selected. Steps with KL(expert ‖ amateur) above 0.4" in text
    cells = ["tuned", "600", "40.0% (35.0-45.0)", "80.0% (75.0-85.0)", "+40.0 (+36.0 to +44.0)"]
    assert f"| {' | '.join(cells)} | 2.0 × 10⁻⁵⁰ |" in text
    assert "qwen" not in text  # no column is by that verdict
    assert "[m, version 3](http://h/m), alias `candidate`" in text
    assert "Gate: kept. Version 2 stays champion" in text
    assert "[The sample set](http://h/s): the run of" in text
    assert str(outcomes["select"].artifact.path) in text
    assert "| register | 0.5 | cached |" in text
    assert "`lightreasoner publish 1d`" in text
    assert "data:" not in text
    assert "m, version 3, alias" in prefect_page.markdown(replace(finished, addresses={}))


def _decision(folder: Path) -> Decision:
    """A champion that cannot be graded stays."""
    marks = {"base": "---", "candidate": "+++"}
    paths = [write_scores(folder / name, "cot", {"s": each}) for name, each in marks.items()]
    return decide("s", *paths, Champion("2", why="it cannot be graded"))


def test_the_comparisons_form_offers_the_methods() -> None:
    schema = compare.compare.parameters.model_dump()
    assert schema["required"] == ["params"]
    offered = schema["properties"]["methods"]
    assert tuple(offered["items"]["enum"]) == tuple(offered["default"]) == methods.NAMES


def test_home_never_depends_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTREASONER_HOME")
    here = homes.home()
    monkeypatch.chdir(tmp_path)
    assert homes.home() == here
    assert here.name == ".lightreasoner"


def test_home_of_an_installed_wheel_is_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a folder within it, and from DVC's copies for queued experiments."""
    monkeypatch.delenv("LIGHTREASONER_HOME")
    monkeypatch.setattr(homes, "ROOT", tmp_path / "site-packages")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    project = tmp_path / "project"
    copy = project / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    places = {
        project: project,
        project / "notes": project,
        copy: project,
        tmp_path: tmp_path / "user",
    }
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (project, copy):
        for name in homes.PROJECT:
            (folder / name).touch()
    for folder, owner in places.items():
        monkeypatch.chdir(folder)
        assert homes.home() == owner / ".lightreasoner", folder


@pytest.fixture(scope="module")
def compared(params: Params, home: Path) -> dict[str, Any]:
    """A comparison in which rejection sampling keeps nothing: the models are random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTREASONER_HOME", str(home))
        return compare.compare(params, ("sft", "gold", "no_contrast", "neither"))


def test_a_comparison_has_a_row_a_method(compared: dict[str, Any], home: Path) -> None:
    names = ["base", "sft", "gold", "no_contrast", "neither"]
    assert list(compared["methods"]) == names
    tuned = {name: compared["methods"][name] for name in ("gold", "no_contrast", "neither")}
    assert {entry["scores"]["small"]["n"] for entry in tuned.values()} == {6}
    assert all(entry["tuning"]["seconds"] > 0 for entry in tuned.values())
    assert tuned["gold"]["tuning"]["updates"] == 1
    assert (compared["device"], compared["params"]["register"]["name"]) == ("cpu", "tiny")
    folder = home / "compare"
    assert json.loads((folder / "compare.json").read_text(encoding="utf-8")) == compared
    assert "SFT, ground truth" in (folder / "compare.md").read_text(encoding="utf-8")


def test_a_method_without_samples_says_why_and_spares_the_others(
    compared: dict[str, Any], home: Path
) -> None:
    reason = compared["methods"]["sft"]["missing"]
    assert reason.startswith("none of 6 generated solutions is correct and complete: 0 kept")
    assert reason in (home / "compare" / "compare.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("compared")
def test_a_comparison_is_one_run_with_a_nested_run_a_stage(home: Path) -> None:
    mlflow_runs.configure(homes.tracking_uri(home), home)
    experiment = [mlflow_runs.experiment_id()]
    client = MlflowClient()
    (run,) = client.search_runs(experiment, "tags.kind = 'comparison'")
    assert run.info.status == "FINISHED"
    seen = lookup.look_up(run.info.run_id, homes.tracking_uri(home), home)
    assert seen == lookup.Seen("comparison", "FINISHED", True)
    assert run.data.metrics["gold/small/accuracy"] >= 0
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"compare.json", "compare.md"}
    children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    nested = [child.info.run_name for child in client.search_runs(experiment, children)]
    assert {"evaluate_base (base)", "finetune (gold)", "finetune (neither)"} <= set(nested)
    # What methods share runs once, under the first one's name.
    assert [name for name in nested if name.startswith("score")] == ["score (no_contrast)"]
    assert not [name for name in nested if name.startswith("register")]


@pytest.mark.usefixtures("compared")
def test_a_comparison_fails_if_nothing_can_be_tuned(params: Params) -> None:
    wanted = changed(params, select={"beta": 1000.0})
    with pytest.raises(SelectionError, match=r"no method could be tuned: lightreasoner: .*; sft: "):
        compare.compare(wanted, ("lightreasoner", "sft"))


def test_a_comparison_without_gold_answers_is_refused_first(params: Params, tmp_path: Path) -> None:
    """Of what it compares only sft and gold need them."""
    path = json_lines.write(tmp_path / "q.jsonl", [{"question": f"{n}?"} for n in range(6)])
    asked = changed(params, prepare={"source": str(path)})
    assert methods.checked_inputs(asked, ("base", "lightreasoner", "neither"))
    for name in ("sft", "gold"):
        with pytest.raises(ProblemsError, match=r"q.jsonl:1: answer missing .* sft and gold"):
            methods.checked_inputs(asked, ("base", name))


def test_the_comparisons_table_in_the_terminal(compared: dict[str, Any], tmp_path: Path) -> None:
    written = io.StringIO()
    terminal.show_comparison(compared, Console(width=40, file=written), tmp_path)
    lines = written.getvalue().splitlines()
    assert [line for line in lines if line.startswith("SFT, ground truth")]
    assert lines[-1] == f"files        {tmp_path}"


def test_a_method_whose_model_breaks_says_why_and_spares_the_later_ones(
    params: Params, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole solutions have no step that is not taught, and so no drift."""
    monkeypatch.setenv("LIGHTREASONER_HOME", str(home))
    drifting = {"stop": "drift", "drift_limit": 1e-6, "validate_every": 1, "learning_rate": 10}
    finetune = {**drifting, "validation_share": 0.4}
    broken = changed(params, select={"quantile": 0.5}, finetune=finetune)
    found = compare.compare(broken, ("lightreasoner", "gold"))["methods"]
    assert "over finetune.drift_limit 1e-06" in found["lightreasoner"]["missing"]
    assert found["gold"]["scores"]["small"]["n"] == 6


@pytest.mark.parametrize("stage", ["evaluate_base", "generate", "score"])
def test_a_model_that_breaks_before_anything_is_tuned_ends_a_comparison(
    stage: str, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stages(stages: Sequence[Stage], *_: object) -> dict[str, StageRun]:
        if STAGES[stage] in stages:
            raise ModelError("expert: damaged")
        return {}

    monkeypatch.setattr(compare, "run_stages", run_stages)
    monkeypatch.setattr(compare, "_result", lambda *_: Result(tmp_path))
    with pytest.raises(ModelError, match="damaged"):
        compare.run_methods(("base", "lightreasoner"), {}, params, tmp_path, "run")


COT, CHAT = "cot", "qwen25-math-cot"


@pytest.fixture(scope="module")
def two_prompts(params: Params) -> Params:
    """The pipeline's parameters with a prompt of its own for the base."""
    return changed(params, evaluate={"base_style": COT})


@pytest.fixture(scope="module")
def tabled(two_prompts: Params, home: Path, first_report: dict[str, Any]) -> dict[str, Any]:
    """The table of an expert of which the store has the pipeline under one prompt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTREASONER_HOME", str(home))
        return table1.table1(two_prompts)


def test_the_pipelines_own_cells_are_the_tables(two_prompts: Params) -> None:
    """By their keys: base under its style, tuned under its own; the other two are others."""
    assert gains.reported(two_prompts.evaluate) == (Asked(COT), Asked(CHAT))
    inputs = external_inputs(two_prompts, ("expert", "benchmark_source"))
    for name, own, other in (("evaluate_base", COT, CHAT), ("evaluate", CHAT, COT)):
        stage = STAGES[name]
        given = {each: inputs.get(each, inputs["expert"]) for each in stage.inputs}
        key = Job.of(stage, given, two_prompts).key
        assert Job.of(stage, given, controls.under(two_prompts, Asked(own))).key == key
        assert Job.of(stage, given, controls.under(two_prompts, Asked(other))).key != key


def test_the_table_has_four_cells_of_two_prompts(tabled: dict[str, Any], home: Path) -> None:
    cells = [(cell["model"], cell["style"], cell["best_fitting"]) for cell in tabled["cells"]]
    assert cells == [
        ("base", COT, True),
        ("base", CHAT, False),
        ("tuned", COT, False),
        ("tuned", CHAT, True),
    ]
    assert (tabled["problems"], tabled["expert"], tabled["device"]) == ({"small": 6}, None, "cpu")
    assert tabled["params"]["evaluate"]["base_style"] == COT
    assert [gain["gain"] for gain in tabled["gains"]["strict"]][-1] == "format"
    folder = home / "table1"
    assert json.loads((folder / "table1.json").read_text(encoding="utf-8")) == tabled
    assert "Gains, qwen and strict" in (folder / "table1.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("tabled")
def test_the_table_is_one_run_and_takes_the_pipelines_results(home: Path) -> None:
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    (run,) = client.search_runs(experiment, "tags.kind = 'table1'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best/tuned/small/strict"] >= 0
    assert f"reasoning_gain_{COT}/small/qwen" in run.data.metrics
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"table1.json", "table1.md"}
    children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    nested = {
        child.info.run_name: child.data.tags["cached"] == "true"
        for child in client.search_runs(experiment, children)
    }
    made = {f"evaluate_base ({COT})", f"evaluate ({COT})"}
    stored = {stage.name for stage in controls.TUNING}
    stored |= {f"evaluate_base ({CHAT})", f"evaluate ({CHAT})"}
    assert nested == dict.fromkeys(made, False) | dict.fromkeys(stored, True)


def test_one_prompt_for_both_gives_two_cells(params: Params, first_report: dict[str, Any]) -> None:
    found = table1.table1(params)
    assert [(cell["model"], cell["style"]) for cell in found["cells"]] == [
        ("base", CHAT),
        ("tuned", CHAT),
    ]
    assert {gain["gain"] for gain in found["gains"]["qwen"]} == {"total", "reasoning"}


def test_the_table_in_the_terminal(tabled: dict[str, Any], tmp_path: Path) -> None:
    """All of it on a narrow terminal, too."""
    written = io.StringIO()
    terminal.show_table1(tabled, Console(width=40, file=written), tmp_path, notes(tabled))
    lines = written.getvalue().splitlines()
    titles = list(tables(tabled))
    assert titles[-1] == ENDS
    folded = " ".join(written.getvalue().split())
    assert all(title in folded for title in titles)
    assert len([line for line in lines if line.startswith("small (n 6)")]) == len(titles)
    assert "…" not in written.getvalue()
    assert lines[-1] == f"files        {tmp_path}"


def test_the_tables_form_asks_for_parameters_alone() -> None:
    schema = table1.table1.parameters.model_dump()
    assert schema["required"] == list(schema["properties"]) == ["params"]
