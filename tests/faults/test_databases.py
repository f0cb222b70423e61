"""Prefect's and MLflow's databases damaged, empty, locked, read-only; their first start killed."""

import contextlib
import dataclasses
import os
import random
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from command_line import call
from ports import free_port

from flows import environment
from flows.servers import databases, local
from flows.servers.databases import DatabaseError
from lightreasoner.presets import PRESETS

LOST = "the records"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A sound one of a hundred pages, in the journal mode that Prefect uses."""
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = OFF")
        made.execute("CREATE TABLE some (name TEXT)")
        made.execute("CREATE INDEX names ON some (name)")
        made.executemany("INSERT INTO some VALUES (?)", [(f"{n:0999}",) for n in range(200)])
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new home; the current folder has the default params.yaml."""
    home = tmp_path / "home"
    for name in ("prefect", "mlflow"):
        (home / name).mkdir(parents=True)
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIGHTREASONER_HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    return home


PREFECT, MLFLOW = "prefect/prefect.db", "mlflow/mlflow.db"


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(100_000))


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def nothing_but_a_header(path: Path) -> None:
    os.truncate(path, 100)


def a_page_of_noise(path: Path) -> None:
    content, page = path.read_bytes(), random.Random(1).randbytes(4096)
    path.write_bytes(content[: 10 * 4096] + page + content[11 * 4096 :])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


SAID = {
    noise: "cannot be used (file is not a database)",
    half: "cannot be used (database disk image is malformed)",
    nothing_but_a_header: "cannot be used (database disk image is malformed)",
    a_page_of_noise: "",
    a_folder: "is not a regular file",
    a_pipe: "is not a regular file",
}


@pytest.mark.parametrize("damage", SAID)
def test_a_damaged_database_is_named(database: Path, damage: Callable[[Path], None]) -> None:
    databases.check(database, LOST)
    damage(database)
    with pytest.raises(DatabaseError) as error:
        databases.check(database, LOST)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{database}: the database {SAID[damage]}")
    assert line.endswith(
        "a new one is made: stages' results are in the store, but the records would be lost"
    )


def test_a_sound_database_stays_as_it_is(database: Path) -> None:
    """It takes 2 ms for Prefect's new one of 2 MB; a large one is read only if `whole`."""
    before = database.read_bytes()
    databases.check(database, LOST)
    assert database.read_bytes() == before


def test_a_page_of_a_large_database_is_read_where_all_is(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SMALL", 0)
    a_page_of_noise(database)
    databases.check(database, LOST)
    with pytest.raises(DatabaseError):
        databases.check(database, LOST, whole=True)


def test_what_is_not_there_or_empty_is_left_alone(tmp_path: Path) -> None:
    databases.check(tmp_path / "none.db", LOST)
    (tmp_path / "empty.db").touch()
    databases.check(tmp_path / "empty.db", LOST)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Locked by another connection, as by another program, for this long."""
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        end = threading.Timer(seconds, holder.execute, ["ROLLBACK"])
        end.start()
        try:
            yield
        finally:
            end.cancel()
            end.join()


@pytest.mark.nightly
def test_nothing_is_lost_while_mlflows_database_is_locked(
    home: Path, new_database: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow gives up after 20 s."""
    from mlflow import MlflowClient

    from tasks.tracking import mlflow_runs

    (home / "mlflow").rmdir()
    uri = new_database(home)
    mlflow_runs.configure(uri, home)
    with locked(home / MLFLOW, 25), mlflow_runs.pipeline_run(PRESETS["microworld"], "a run") as run:
        mlflow_runs.log_numbers(run, {"accuracy": 0.5})
    found = MlflowClient(uri).get_run(run)
    assert found.data.metrics == {"accuracy": 0.5}
    assert found.data.params["select.beta"]
    assert found.info.status == "FINISHED"
    assert caplog.messages == []


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_locked_database_is_waited_for(
    database: Path, mode: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "PROBE_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(database)) as opened:
        opened.execute(f"PRAGMA journal_mode = {mode}")
    with locked(database, 0.5):
        databases.check(database, LOST)
    (said,) = caplog.messages
    assert said == f"waiting for {database}, which another program has locked"
    monkeypatch.setattr(databases, "PATIENCE", 0.2)
    with locked(database, 60), pytest.raises(DatabaseError) as error:
        databases.check(database, LOST)
    assert str(error.value).startswith(f"{database}: still locked by another program after 0 s; ")
    assert f"`fuser {database}`" in str(error.value)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o777), (0o666, 0o555), (0o000, 0o777)])
def test_a_database_that_may_not_be_written_is_named(file: int, folder: int) -> None:
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "some.db"
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE some (name TEXT)")
        path.chmod(file)
        Path(where).chmod(folder)
        try:
            with as_somebody_else(), pytest.raises(DatabaseError) as error:
                databases.check(path, LOST)
        finally:
            Path(where).chmod(0o700)
    assert str(error.value).startswith(f"{path}: the database may not be written, or not its fold")


SERVERS = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (PREFECT, ("run",)),
        (PREFECT, ("table1",)),
        (PREFECT, ("up", *SERVERS)),
        (MLFLOW, ("run",)),
        (MLFLOW, ("up", *SERVERS)),
        (MLFLOW, ("sync", "--all")),
    ],
)
def test_commands_refuse_a_damaged_database_before_anything_starts(
    home: Path, name: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in ("flows.servers.own_prefect.start", "flows.servers.up.serve"):
        monkeypatch.setattr(start, lambda *_: pytest.fail("it has started"))
    noise(home / name)
    result = call(*command)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("records: ")]
    assert line.startswith(f"error: {home / name}: the database cannot be used (file is not a da")
    content = (home / name).read_bytes()
    assert len(content) == 100_000


def test_a_deployed_run_refuses_a_damaged_database(home: Path) -> None:
    """The runner's process asks `track` before any stage."""
    noise(home / MLFLOW)
    with pytest.raises(DatabaseError, match=r"MLflow's runs and registered models would be lost$"):
        local.track(home)
    with pytest.raises(DatabaseError):
        local.look(home)


def test_commands_that_need_no_database_do_not_mind(home: Path) -> None:
    noise(home / PREFECT)
    noise(home / MLFLOW)
    assert "nothing is running" in call("status").stdout
    assert "nothing was running" in call("down").stdout


def test_another_database_takes_the_place_of_that_under_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(home / PREFECT)
    noise(home / MLFLOW)
    another = home / "another.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{another}")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{another}")
    local.check_prefect_database()
    local.check_served(home)


NOBODY = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("PREFECT_SERVER_DATABASE_CONNECTION_URL", ("run",)),
        ("PREFECT_API_DATABASE_CONNECTION_URL", ("up", *SERVERS)),
        ("MLFLOW_BACKEND_STORE_URI", ("up", *SERVERS)),
    ],
)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            f"postgresql+asyncpg://u:my%2Fsecret@{NOBODY}/x?password=secret",
            f" postgresql+asyncpg://u:***@{NOBODY}/x: no way in ([Errno 111] Connect call failed "
            "('127.0.0.1', 9)); start that server, or mend the URL",
        ),
        (
            f"postgresql+no_such_driver://u:secret@{NOBODY}/x",
            f" postgresql+no_such_driver://u:***@{NOBODY}/x: its driver is not installed (Can't "
            "load plugin: sqlalchemy.dialects:postgresql.no_such_driver); "
            "pip install -e '.[shared]'",
        ),
        (
            "u:secret@host/x",
            ": is no URL of a database, such as postgresql+asyncpg://user@host/name; a password in "
            "it is written in percent-encoding",
        ),
    ],
)
def test_commands_refuse_a_database_server_that_lets_nobody_in(
    home: Path,
    variable: str,
    command: tuple[str, ...],
    url: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line, before anything starts, and without the password."""
    for start in ("flows.servers.own_prefect.start", "flows.servers.up.serve"):
        monkeypatch.setattr(start, lambda *_: pytest.fail("it has started"))
    monkeypatch.setenv(variable, url)
    result = call(*command)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("records: ")]
    assert line == f"error: {variable}{said}"
    assert "secret" not in result.output


def test_what_up_keeps_for_mlflow_is_in_the_environment_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line is read by all users of the machine, and kept in the manager's settings."""
    own = environment.environment_of_servers(home, "http://p", "http://m")
    assert own["MLFLOW_BACKEND_STORE_URI"] == environment.database(home)
    assert own["MLFLOW_ARTIFACTS_DESTINATION"] == str(home / "mlflow" / "artifacts")
    assert str(local.at(home, 1, 2)) == "http://127.0.0.1:1 http://127.0.0.1:2 home"

    for empty in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"):
        monkeypatch.setenv(empty, "")
    assert environment.environment_of_servers(home, "http://p", "http://m") == own
    url = "postgresql://u:secret@host/x"
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", url)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/mlflow")
    given = environment.environment_of_servers(home, "http://p", "http://m")
    assert given["MLFLOW_BACKEND_STORE_URI"] == url
    assert given["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://bucket/mlflow"
    servers = local.at(home, 1, 2)
    assert str(servers) == "http://127.0.0.1:1 http://127.0.0.1:2 shared"
    words = [word for each in local.services(home, servers) for word in each.arguments]
    assert "mlflow" in words
    assert not [word for word in words if "secret" in word]


def test_runs_are_written_under_home_where_up_keeps_another_database(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server gets copies, as one elsewhere does."""
    servers = local.Servers("http://p", "http://m")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    for kept, uri in (("home", environment.database(home)), ("shared", "http://m")):
        found = dataclasses.replace(servers, database=kept)
        monkeypatch.setattr(local, "announced", lambda _, found=found: found)
        assert local._records(home) == uri


def test_sync_has_the_login_of_the_server_of_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared database it may lack runs, as one elsewhere may."""
    seen: list[str] = []

    def send_all(*_: object) -> tuple[list[str], bool]:
        seen.append(os.environ["MLFLOW_TRACKING_PASSWORD"])
        return [], True

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(local, "running", lambda _: local.Servers("http://p", "http://m", "shared"))
    monkeypatch.setattr("tasks.tracking.sync.send_all", send_all)
    assert call("sync", "--all").exit_code == 0
    assert seen == [environment.login(home).partition(":")[2]]


@pytest.mark.parametrize("url", ["https://u:secret@host", "postgresql://u:secret@host/x"])
def test_a_password_in_the_tracking_uri_is_refused(
    home: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be kept with the runs that wait for the server, and shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    result = call("run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "error: MLFLOW_TRACKING_URI: holds a password; leave it out and set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PGPASSFILE for PostgreSQL"
    ]


@pytest.mark.slow
def test_an_empty_database_of_mlflows_is_made_anew(home: Path) -> None:
    """By one process at a time, beside its place; a rest of a killed one does not matter."""
    (home / MLFLOW).touch()
    for rest in ("mlflow.new", "mlflow.new-journal"):
        noise(home / "mlflow" / rest)
    local.track(home)
    with contextlib.closing(sqlite3.connect(home / MLFLOW)) as made:
        assert made.execute("SELECT name FROM experiments WHERE name = 'lightreasoner'").fetchone()
    assert {path.name for path in (home / "mlflow").iterdir()} == {
        "artifacts", "mlflow.db", "mlflow.lock",
    }  # fmt: skip
