"""What a server elsewhere misses while it is away: it waits under home, and is sent once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stored_pipeline
from mlflow import MlflowClient
from mlflow.entities import Run

from lightreasoner.errors import LightReasonerError
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.pipeline.store import Outcome
from tasks.registry import versions
from tasks.tracking import mlflow_runs, route, sync

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow asks SQLAlchemy 2.1
)
PARAMS = stored_pipeline.params()
GONE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database is made."""
    path = tmp_path_factory.mktemp("home")
    route.make_database(route.database_of(path))
    return path


@pytest.fixture(scope="module")
def outcomes(home: Path, tiny_expert: Path) -> dict[str, Outcome]:
    """A stored pipeline's outcomes, by stage."""
    return stored_pipeline.write(home, tiny_expert)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server's own database, which stands for it when it is back."""
    path = tmp_path_factory.mktemp("elsewhere")
    uri = f"sqlite:///{path}/mlflow.db"
    route.make_database(uri)
    MlflowClient(uri).create_experiment(sync.EXPERIMENT, path.as_uri())
    return uri


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused call is not tried again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def waiting(home: Path) -> list[str]:
    return sync.waiting(route.database_of(home)).get(GONE, [])


def nested(uri: str, run_id: str) -> dict[str, Run]:
    client = MlflowClient(uri)
    found = client.search_runs(
        [sync.experiment_of(client)], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    return {run.info.run_name: run for run in found}


def test_a_pipeline_without_its_server_is_sent_as_it_was(
    home: Path, outcomes: dict[str, Outcome], elsewhere: str
) -> None:
    """Sent twice, as where the first time was cut short: the same runs, points and files."""
    mlflow_runs.configure(GONE, home)
    with mlflow_runs.pipeline_run(PARAMS, "waits") as run_id:
        for name in ("finetune", "evaluate"):
            mlflow_runs.replay_stage(run_id, STAGES[name], outcomes[name], home)
        mlflow_runs.log_report(run_id, outcomes["report"])
    runs = waiting(home)
    assert len(runs) == 3
    database = route.database_of(home)
    for _ in range(2):
        there = sync.send(database, elsewhere, runs)[run_id]
        here, sent = (
            MlflowClient(uri).get_run(run) for uri, run in ((database, run_id), (elsewhere, there))
        )
        assert (sent.info.status, sent.info.run_name) == ("FINISHED", "waits")
        assert (sent.info.start_time, sent.info.end_time) == (
            here.info.start_time,
            here.info.end_time,
        )
        assert (sent.data.params, sent.data.metrics) == (here.data.params, here.data.metrics)
        files = {file.path for file in MlflowClient(elsewhere).list_artifacts(there)}
        assert files == {"report.html", "figures"}
        stages = nested(elsewhere, there)
        assert set(stages) == {"finetune", "evaluate"}
        curve = MlflowClient(elsewhere).get_metric_history(stages["finetune"].info.run_id, "loss")
        assert [(p.step, p.value) for p in curve] == [(s, v) for _, v, s in stored_pipeline.CURVE]
        assert {one.dataset.name for one in stages["finetune"].inputs.dataset_inputs} == {
            "samples",
            "problems",
        }
        assert "predictions.json" in stages["evaluate"].data.tags["mlflow.loggedArtifacts"]
        assert not sync.OWN_TAGS & sent.data.tags.keys()
    assert waiting(home) == []


def test_a_run_that_the_server_has_is_continued(home: Path, elsewhere: str) -> None:
    """The server went away after a point, a tag and a stage's start; the rest waited."""
    client = MlflowClient(elsewhere)
    known = client.create_run(
        sync.experiment_of(client), run_name="known", tags={"kind": "pipeline"}
    )
    client.log_metric(known.info.run_id, "loss", 3.0, 1000, 0)
    mlflow_runs.configure(GONE, home)
    mlflow_runs.log_numbers(known.info.run_id, {"accuracy": 0.5}, {"select.beta": "0.4"})
    with mlflow_runs.stage_run(known.info.run_id, STAGES["merge"]) as live:
        live.metric("loss", 1.0, 1)
    mlflow_runs._close(known.info.run_id, "FINISHED", insist=True)
    runs = waiting(home)
    assert len(runs) == 2
    sync.send(route.database_of(home), elsewhere, runs)
    found = client.get_run(known.info.run_id)
    assert (found.info.run_name, found.info.status) == ("known", "FINISHED")
    assert found.data.metrics == {"loss": 3.0, "accuracy": 0.5}
    assert found.data.params == {"select.beta": "0.4"}
    (stage,) = nested(elsewhere, known.info.run_id).values()
    assert (stage.info.run_name, stage.info.status) == ("merge", "FINISHED")
    assert stage.data.metrics == {"loss": 1.0}
    assert waiting(home) == []


def test_what_still_goes_on_waits_on(home: Path, elsewhere: str) -> None:
    mlflow_runs.configure(GONE, home)
    with mlflow_runs.pipeline_run(PARAMS, "goes on") as run_id:
        sync.send(route.database_of(home), elsewhere, waiting(home))
        assert waiting(home) == [run_id]
        mlflow_runs.log_numbers(run_id, {"late": 1.0})
    there = sync.send(route.database_of(home), elsewhere, waiting(home))[run_id]
    assert MlflowClient(elsewhere).get_run(there).data.metrics == {"late": 1.0}
    assert waiting(home) == []


def test_a_run_that_the_server_no_longer_has_is_made_anew(home: Path, elsewhere: str) -> None:
    """Else it would hold up all that wait behind it."""
    mlflow_runs.configure(GONE, home)
    mlflow_runs.log_numbers("0" * 32, {"accuracy": 0.5})
    mlflow_runs._close("0" * 32, "FINISHED", insist=True)
    with mlflow_runs.pipeline_run(PARAMS, "behind"):
        pass
    first, behind = waiting(home)
    sent = sync.send(route.database_of(home), elsewhere, [first, behind])
    found = MlflowClient(elsewhere).get_run(sent[first])
    assert (found.info.run_name, found.data.metrics) == ("continues 00000000", {"accuracy": 0.5})
    assert MlflowClient(elsewhere).get_run(sent[behind]).info.run_name == "behind"
    assert waiting(home) == []


def test_a_run_whose_process_was_killed_is_sent_as_failed(home: Path, elsewhere: str) -> None:
    mlflow_runs.configure(GONE, home)
    run_id = mlflow_runs._open("killed", {})
    client = MlflowClient(route.database_of(home))
    maker = client.get_run(run_id).data.tags[sync.MAKER_TAG].split(" ")
    client.set_tag(run_id, sync.MAKER_TAG, f"{maker[0]} {2**22 + 1} {maker[2]}")
    there = sync.send(route.database_of(home), elsewhere, [run_id])[run_id]
    assert MlflowClient(elsewhere).get_run(there).info.status == "FAILED"
    assert waiting(home) == []


def test_two_that_send_at_once_make_one_run(home: Path, elsewhere: str) -> None:
    mlflow_runs.configure(GONE, home)
    with mlflow_runs.pipeline_run(PARAMS, "once"):
        pass
    (run_id,) = waiting(home)
    with ThreadPoolExecutor(2) as both:
        call = (sync.send, route.database_of(home), elsewhere, [run_id])
        one, other = both.submit(*call), both.submit(*call)
        assert one.result() == other.result()
    client = MlflowClient(elsewhere)
    named = client.search_runs([sync.experiment_of(client)], "attributes.run_name = 'once'")
    assert len(named) == 1


def test_a_server_that_stays_away_keeps_its_runs(home: Path) -> None:
    assert route.send_all(home) == ([], True)
    mlflow_runs.configure(GONE, home)
    with mlflow_runs.pipeline_run(PARAMS, "stays"):
        pass
    (line,), is_done = route.send_all(home)
    assert not is_done
    assert line.startswith(f"{GONE}: 1 runs wait in {route.database_of(home)} (API request to ")
    assert len(waiting(home)) == 1


def test_a_model_is_not_registered_elsewhere_than_asked(
    home: Path, outcomes: dict[str, Outcome]
) -> None:
    """The database under home has a registry too; it is not the one that was asked for."""
    mlflow_runs.configure(GONE, home)
    with pytest.raises(LightReasonerError) as error:
        versions.register(outcomes["merge"].artifact, outcomes, PARAMS, None)
    assert str(error.value).startswith(f"registry {GONE}: {GONE} does not answer; the model is at ")
    assert MlflowClient(route.database_of(home)).search_registered_models() == []


def test_a_home_without_a_database_has_nothing_to_send(tmp_path: Path) -> None:
    assert route.send_all(tmp_path) == ([], True)
    assert not list(tmp_path.iterdir())
