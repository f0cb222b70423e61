"""An MLflow server elsewhere gets copies of runs; what it misses while it is away is sent once."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bounded_servers
import pytest
import stored_pipeline
from checkout import PATHS
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from flows.cli import servers
from flows.results import records
from lightreasoner.errors import ConfigError, LightReasonerError
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.pipeline.store import Outcome
from tasks.registry import versions
from tasks.tracking import mlflow_runs, route, sync

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow asks SQLAlchemy 2.1
)
PARAMS = stored_pipeline.params()
GONE = "http://127.0.0.1:9"
SERVE = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""
KILLED = """
import os, signal, sys, time
from pathlib import Path
import stored_pipeline
from lightreasoner.pipeline.graph import STAGES
from tasks.tracking import mlflow_runs
mlflow_runs.configure(sys.argv[1], Path(sys.argv[2]))
with mlflow_runs.pipeline_run(stored_pipeline.params(), "killed") as run:
    with mlflow_runs.stage_run(run, STAGES["finetune"]) as live:
        live.metric("loss", 2.0, 1)
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Elsewhere:
    """MLflow's server in a process and on a database of its own."""

    address: str
    pid: int

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.address)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server hangs: connections are taken and never answered."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def named(self, name: str) -> list[Run]:
        experiment = [route.experiment_of(self.client)]
        return list(self.client.search_runs(experiment, f"attributes.run_name = '{name}'"))

    def only(self, name: str) -> Run:
        (run,) = self.named(name)
        return run

    def nested(self, run: Run) -> dict[str, Run]:
        under = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        found = self.client.search_runs([run.info.experiment_id], under)
        return {each.info.run_name: each for each in found}

    def losses(self, run: Run) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run.info.run_id, "loss")
        return [(point.step, point.value) for point in history]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Elsewhere]:
    """The server, up, on a copy of home's database while that is empty (making one takes 4 s)."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copyfile(home / "mlflow" / "mlflow.db", folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "files"),
    }
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-c", SERVE, str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while not route.answers(address):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        yield Elsewhere(address, process.pid)
    finally:
        process.kill()
        process.wait()


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


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused call is not tried again, and copies are made five times a second."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr(sync, "SECONDS", 0.2)


def check_is_whole(home: Path, elsewhere: Elsewhere, run_id: str) -> None:
    """The copy says what the run and its two stages say."""
    here = MlflowClient(route.database_of(home)).get_run(run_id)
    there = elsewhere.only(here.info.run_name)
    assert there.info.status == here.info.status == "FINISHED"
    assert there.info.start_time == here.info.start_time
    assert there.info.end_time == here.info.end_time
    assert (there.data.params, there.data.metrics) == (here.data.params, here.data.metrics)
    assert here.data.tags.items() <= there.data.tags.items()
    files = {file.path for file in elsewhere.client.list_artifacts(there.info.run_id)}
    assert files == {"report.html", "figures"}
    stages = elsewhere.nested(there)
    assert set(stages) == {"finetune", "evaluate"}
    assert elsewhere.losses(stages["finetune"]) == [(s, v) for _, v, s in stored_pipeline.CURVE]
    data = {each.dataset.name for each in stages["finetune"].inputs.dataset_inputs}
    assert data == {"samples", "problems"}
    assert "predictions.json" in stages["evaluate"].data.tags["mlflow.loggedArtifacts"]
    table = elsewhere.client.download_artifacts(stages["evaluate"].info.run_id, "predictions.json")
    assert len(json.loads(Path(table).read_text(encoding="utf-8"))["data"]) == 4


def pipeline(home: Path, address: str, name: str, outcomes: dict[str, Outcome]) -> str:
    """Replay two stages and the report; the run's id in the database under home."""
    mlflow_runs.configure(address, home)
    with mlflow_runs.pipeline_run(PARAMS, name) as run_id:
        for stage in ("finetune", "evaluate"):
            mlflow_runs.replay_stage(run_id, STAGES[stage], outcomes[stage], home)
        mlflow_runs.log_report(run_id, outcomes["report"])
    return run_id


def test_a_server_elsewhere_gets_all(
    home: Path, outcomes: dict[str, Outcome], elsewhere: Elsewhere
) -> None:
    run_id = pipeline(home, elsewhere.address, "all", outcomes)
    check_is_whole(home, elsewhere, run_id)
    assert mlflow_runs.run_here(run_id) == elsewhere.only("all").info.run_id
    assert sync.send_all(home) == ([], True)


def test_a_databases_server_gets_copies_too(home: Path, tmp_path: Path) -> None:
    """SQLAlchemy's other spelling of SQLite stands for it."""
    shutil.copyfile(home / "mlflow" / "mlflow.db", tmp_path / "mlflow.db")
    address = f"sqlite+pysqlite:///{tmp_path}/mlflow.db"
    mlflow_runs.configure(address, home)
    with mlflow_runs.pipeline_run(PARAMS, "to a database") as run_id:
        mlflow_runs.log_numbers(run_id, {"accuracy": 0.5})
    copy = MlflowClient(address).get_run(mlflow_runs.run_here(run_id))
    assert (copy.info.status, copy.data.metrics) == ("FINISHED", {"accuracy": 0.5})
    assert sync.send_all(home) == ([], True)


def test_a_server_on_the_same_database_gets_no_copies(
    home: Path, outcomes: dict[str, Outcome]
) -> None:
    """One that was started by hand, which nothing but its runs tells apart from one elsewhere."""
    run_id = pipeline(home, f"sqlite+pysqlite:///{home}/mlflow/mlflow.db", "same", outcomes)
    assert mlflow_runs.run_here(run_id) == run_id
    same = Elsewhere(route.database_of(home), 0)
    assert same.only("same").info.run_id == run_id
    stages = same.nested(same.only("same"))
    assert set(stages) == {"finetune", "evaluate"}
    assert len(same.losses(stages["finetune"])) == len(stored_pipeline.CURVE)
    under = [route.experiment_of(same.client)], f"tags.`{sync.COPY_TAG}` != ''"
    copied = {run.info.run_id for run in same.client.search_runs(*under)}
    assert copied == {run_id, *(run.info.run_id for run in stages.values())}


def test_a_server_that_hangs_gets_all_later(
    home: Path, outcomes: dict[str, Outcome], elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    """The run waits seconds for it at its end, not at each call."""
    with elsewhere.away():
        started = time.monotonic()
        run_id = pipeline(home, elsewhere.address, "hangs", outcomes)
        assert time.monotonic() - started < 20
        (said,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
        assert "does not answer" in said
        assert "`lightreasoner sync --all`" in said
        (line,), is_done = sync.send_all(home)
        assert not is_done
        assert line.startswith(f"{elsewhere.address}: hangs waits under {home} (")
    assert sync.send_all(home) == ([f"{elsewhere.address}: hangs sent"], True)
    check_is_whole(home, elsewhere, run_id)
    assert sync.send_all(home) == ([], True)


@pytest.mark.parametrize("returns", ["in mid-run", "after the run"])
def test_a_server_that_goes_in_mid_run(home: Path, elsewhere: Elsewhere, returns: str) -> None:
    """What it had is continued: each point is there once, whenever it comes back."""
    mlflow_runs.configure(elsewhere.address, home)
    with mlflow_runs.pipeline_run(PARAMS, returns) as run_id:
        with mlflow_runs.stage_run(run_id, STAGES["finetune"]) as live:
            live.metric("loss", 2.0, 1)
            there, end = mlflow_runs.run_here(live.run_id), time.monotonic() + 60
            while not elsewhere.client.get_metric_history(there, "loss"):
                assert time.monotonic() < end
                time.sleep(0.1)
            with elsewhere.away():
                live.metric("loss", 1.0, 2)
                time.sleep(2)
            if returns == "after the run":
                os.kill(elsewhere.pid, signal.SIGSTOP)
            live.metric("loss", 0.5, 3)
        mlflow_runs.log_numbers(run_id, {"accuracy": 0.5}, {"select.beta": "0.4"})
    os.kill(elsewhere.pid, signal.SIGCONT)
    lines, is_done = sync.send_all(home)
    assert (len(lines), is_done) == (int(returns == "after the run"), True)
    run = elsewhere.only(returns)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"accuracy": 0.5})
    stage = elsewhere.nested(run)["finetune"]
    assert (stage.info.status, len(elsewhere.nested(run))) == ("FINISHED", 1)
    assert elsewhere.losses(stage) == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_a_failed_run_is_sent_with_its_error(home: Path, elsewhere: Elsewhere) -> None:
    def fail() -> None:
        mlflow_runs.configure(elsewhere.address, home)
        with (
            elsewhere.away(),
            mlflow_runs.pipeline_run(PARAMS, "fails") as run_id,
            mlflow_runs.stage_run(run_id, STAGES["finetune"]) as live,
        ):
            live.metric("loss", 2.0, 1)
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        fail()
    assert sync.send_all(home)[1]
    run = elsewhere.only("fails")
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ValueError: no luck")
    assert elsewhere.losses(elsewhere.nested(run)["finetune"]) == [(1, 2.0)]


def test_a_killed_run_is_sent_once_as_failed(home: Path, elsewhere: Elsewhere) -> None:
    """Not before its process is gone."""
    command = [sys.executable, "-c", KILLED, elsewhere.address, str(home)]
    with elsewhere.away():
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATHS})
        end = time.monotonic() + 120
        while not (found := sync.send_all(home)[0]):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        assert found == [f"{elsewhere.address}: killed is still running; its own process sends it"]
        assert process.wait(60) == -signal.SIGKILL
    assert sync.send_all(home) == ([f"{elsewhere.address}: killed sent"], True)
    run = elsewhere.only("killed")
    stage = elsewhere.nested(run)["finetune"]
    assert (run.info.status, stage.info.status) == ("FAILED", "FAILED")
    assert elsewhere.losses(stage) == [(1, 2.0)]
    assert sync.send_all(home) == ([], True)


def wait(home: Path, elsewhere: Elsewhere, *names: str) -> list[str]:
    """Runs that ended while the server was away; their ids under home."""
    ids = []
    with elsewhere.away():
        for name in names:
            mlflow_runs.configure(elsewhere.address, home)
            with mlflow_runs.pipeline_run(PARAMS, name) as run_id:
                ids.append(run_id)
    return ids


def test_one_run_is_sent_by_its_name_or_id(home: Path, elsewhere: Elsewhere) -> None:
    """By Prefect's id, too, where the run has a record."""
    one, two, three = wait(home, elsewhere, "one", "two", "three")
    assert sync.send_all(home, {"one"}) == ([f"{elsewhere.address}: one sent"], True)
    assert sync.send_all(home, {two}) == ([f"{elsewhere.address}: two sent"], True)
    assert not elsewhere.named("three")
    end = records.Record("third", "prefect-id", three, 0.0, {}, {}, {}, None)
    records.keep(home, end)
    wanted = records.names(home, "prefect-id")
    assert sync.send_all(home, wanted) == ([f"{elsewhere.address}: three sent"], True)
    assert sync.send_all(home, {one}) == ([], True)


def test_two_that_send_at_once_make_one_copy(home: Path, elsewhere: Elsewhere) -> None:
    wait(home, elsewhere, "once")
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(sync.send_all, home) for _ in range(2)]:
            assert done.result()[1]
    assert elsewhere.only("once").info.status == "FINISHED"


def test_what_another_process_has_sent_meanwhile_is_passed_over(
    home: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = sorted(wait(home, elsewhere, "here", "there"))
    send = sync.Copier.send

    def sent(copier: sync.Copier, root: str) -> None:
        send(copier, root)
        if root == first:
            send(copier, last)
            (home / "mlflow" / "unsent" / last).unlink()

    monkeypatch.setattr(sync.Copier, "send", sent)
    lines, is_done = sync.send_all(home)
    assert is_done
    assert len(lines) == 1


def test_a_run_that_begins_is_never_taken_for_one_whose_process_is_gone(
    home: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it holds the lock, there is nothing that another process could find."""
    seen: list[list[str]] = []
    lock = sync.fcntl.flock

    def locked(file: object, kind: int) -> None:
        seen.append([path.name for path in (home / "mlflow" / "unsent").iterdir()])
        lock(file, kind)

    monkeypatch.setattr(sync.fcntl, "flock", locked)
    mlflow_runs.configure(elsewhere.address, home)
    with mlflow_runs.pipeline_run(PARAMS, "begins") as run:
        assert (home / "mlflow" / "unsent" / run).read_text(encoding="utf-8") == elsewhere.address
    assert not [names for names in seen if run in names]


def test_a_refused_run_holds_up_no_other(home: Path, elsewhere: Elsewhere) -> None:
    """The server has another value of a parameter, which it never changes."""
    refused, _ = wait(home, elsewhere, "refused", "welcome")
    tags = {sync.COPY_TAG: refused}
    experiment = route.experiment_of(elsewhere.client)
    taken = elsewhere.client.create_run(experiment, run_name="refused", tags=tags).info.run_id
    elsewhere.client.log_param(taken, "select.beta", "another")
    lines, is_done = sync.send_all(home)
    assert not is_done
    assert f"{elsewhere.address}: welcome sent" in lines
    assert any(line.startswith(f"{elsewhere.address}: refused waits") for line in lines)
    elsewhere.client.delete_run(taken)
    assert sync.send_all(home) == ([f"{elsewhere.address}: refused sent"], True)


def test_a_store_of_files_without_its_client_stops_no_run(
    home: Path,
    elsewhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: dict[str, Outcome],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """MLflow imports boto3 when a server keeps its files in S3, and raises what that raises."""

    def log_artifacts(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'boto3'")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", log_artifacts)
        mlflow_runs.configure(elsewhere.address, home)
        with mlflow_runs.pipeline_run(PARAMS, "files") as run:
            mlflow_runs.log_comparison(run, {}, [outcomes["report"].artifact.path / "report.html"])
    assert "files not taken (ModuleNotFoundError: No module named 'boto3')" in caplog.text
    assert sync.send_all(home) == ([f"{elsewhere.address}: files sent"], True)


def test_a_copy_that_was_deleted_is_made_anew(home: Path, elsewhere: Elsewhere) -> None:
    mlflow_runs.configure(elsewhere.address, home)
    with mlflow_runs.pipeline_run(PARAMS, "deleted") as run_id:
        elsewhere.client.delete_run(mlflow_runs.run_here(run_id))
    assert sync.send_all(home) == ([f"{elsewhere.address}: deleted sent"], True)
    assert elsewhere.only("deleted").info.status == "FINISHED"


def test_a_model_is_not_registered_elsewhere_than_asked(
    home: Path, outcomes: dict[str, Outcome]
) -> None:
    """The database under home has a registry too; it is not the one that was asked for."""
    mlflow_runs.configure(GONE, home)
    with pytest.raises(LightReasonerError) as error:
        versions.register_version(outcomes["merge"].artifact, outcomes, PARAMS, None)
    assert str(error.value).startswith(f"registry {GONE}: {GONE} does not answer; the model is at ")
    assert MlflowClient(route.database_of(home)).search_registered_models() == []


def test_a_home_without_runs_has_nothing_to_send(tmp_path: Path) -> None:
    assert sync.send_all(tmp_path) == ([], True)
    assert not list(tmp_path.iterdir())


def test_what_is_no_waiting_run_is_named(
    tmp_path: Path, new_database: Callable[[Path], str]
) -> None:
    """A pipe is not waited for, what a link leads to not emptied, noise no run."""
    new_database(tmp_path)
    waiting = tmp_path / "mlflow" / "unsent"
    waiting.mkdir()
    os.mkfifo(waiting / "a")
    (waiting / "b").mkdir()
    (waiting / "c").symlink_to("nowhere")
    (waiting / "d").write_bytes(b"\xff\x00" * 5_000)
    lines, is_done = sync.send_all(tmp_path)
    assert not is_done
    assert [line.rpartition("/")[2] for line in lines[:3]] == [
        f"{name} is no record of a run; remove it" for name in "abc"
    ]
    assert " d waits under " in lines[3]
    assert len(lines) == 4


@pytest.mark.parametrize(("run", "is_all"), [(None, False), ("one", True)])
def test_the_command_asks_for_one_run_or_all(run: str | None, is_all: bool) -> None:
    with pytest.raises(ConfigError, match="name one run, by name or id, or give --all"):
        servers.sync(run, is_all)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_server_that_hands_a_file_on_may_take_its_time(
    is_waiting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers when S3 has the file, or it has fetched it; other calls fail in time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "weights").write_bytes(b"x" * 100_000)

    def speak(caller: socket.socket) -> None:
        time.sleep(2)
        caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    with bounded_servers.serving(speak) as server:
        place = get_artifact_repository(f"{server.url}/mlflow-artifacts/artifacts/0")
        with route.files_pass() if is_waiting else pytest.raises(MlflowException, match="timeout"):
            place.log_artifact(str(tmp_path / "weights"))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"
