"""Where MLflow's records go: to a server, or into the SQLite database under home.

A server that no longer answers is given up, and the records go on in that database. Where the
server is the one of `lightreasoner up`, it serves the same database, and nothing is missing. A
server elsewhere has another: what was meant for it carries its address as a tag, and goes there
(sync.py) when it answers again at the end of the pipeline, or by `lightreasoner sync`.
"""

import fcntl
import logging
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_TRACKING_URI
from mlflow.exceptions import MlflowException

from tasks.tracking import sync

SQLITE = "sqlite:///"
ANSWER_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass
class Route:
    """Where the records of this process go; one for all threads, as MLflow's tracking URI is.

    `chosen` is the URI that was asked for, `home` holds the database. `is_shared` says that the
    server behind `chosen` serves that database.
    """

    chosen: str
    home: Path
    is_shared: bool = False
    is_away: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _own: list[str] = field(default_factory=list)  # runs in the database alone, in their order
    _kept: dict[str, str] = field(default_factory=dict)  # the server's run: its continuation
    _sent: dict[str, str] = field(default_factory=dict)  # a run of the database: the server's

    @property
    def database(self) -> str:
        """The URI of the database under home."""
        return database_of(self.home)

    @property
    def is_apart(self) -> bool:
        """Whether records wait in the database for a server that has another one."""
        return self.is_away and not self.is_shared

    def open(self) -> None:
        """Set the tracking URI and make the experiment.

        Artifacts are files under home, so that direct SQLite and a server on this machine resolve
        the same location; a server elsewhere keeps them where it keeps its own.
        """
        _set_tracking_uri(self.database if self.is_away else self.chosen)
        make_database(mlflow.get_tracking_uri())
        location = None if self._is_elsewhere() else _artifacts(self.home)
        _ensure_experiment(location)

    def look(self) -> bool:
        """Set the tracking URI and make nothing; whether the database that it names is there."""
        _set_tracking_uri(self.chosen)
        return not self.chosen.startswith(SQLITE) or Path(self.chosen.removeprefix(SQLITE)).exists()

    def _is_elsewhere(self) -> bool:
        return is_server(self.chosen) and not self.is_away and not _is_loopback(self.chosen)

    def is_lost(self) -> bool:
        """Whether a call that failed is to be made again, in the database.

        Leaves a server that does not answer. Raises what MLflow raises of a broken database.
        """
        with self._lock:
            if not self.is_away and is_server(self.chosen) and not answers(self.chosen):
                self.is_away = True
                log.warning("%s", self._farewell())
                self.open()
            return self.is_away

    def _farewell(self) -> str:
        if self.is_shared:
            return f"MLflow at {self.chosen} does not answer; records go to its database directly"
        return (
            f"MLflow at {self.chosen} does not answer; records wait in {self.database}, and "
            "`lightreasoner sync` sends them when it is back"
        )

    def is_back(self) -> bool:
        """Whether records can reach what was asked for; sends those that wait, if they can.

        Raises what MLflow raises where the server goes again meanwhile.
        """
        with self._lock:
            if not self.is_apart:
                return True
            if not answers(self.chosen):
                return False
            sent = sync.send(self.database, self.chosen, self._own, is_all=True)
            self.is_away = False
            self.open()
            self._sent |= sent
            self._own.clear()
            self._kept.clear()
        log.info("MLflow at %s is back; it has the %d runs that waited", self.chosen, len(sent))
        return True

    def create_run(self, name: str, tags: dict[str, str]) -> str:
        """A new run; its id."""
        with self._lock:
            marks = sync.marks(self.chosen) if self.is_apart else {}
            made = MlflowClient().create_run(experiment_id(), run_name=name, tags={**tags, **marks})
            run_id = str(made.info.run_id)
            if marks:
                self._own.append(run_id)
        return run_id

    def run(self, run_id: str) -> str:
        """The id that a run has where the records go now.

        In the database a run of the server's is continued as one of its own.
        """
        with self._lock:
            run_id = self._sent.get(run_id, run_id)
            if not self.is_apart or not run_id or run_id in self._own:
                return run_id
            if run_id not in self._kept:
                tags = {sync.CONTINUES_TAG: run_id}
                self._kept[run_id] = self.create_run(f"continues {run_id[:8]}", tags)
            return self._kept[run_id]


def send_all(home: Path) -> tuple[list[str], bool]:
    """Send what waits in the database under home; what to say of it, and whether nothing waits."""
    database = database_of(home)
    lines, is_done = [], True
    waits = sync.waiting(database) if Path(database.removeprefix(SQLITE)).exists() else {}
    for server, run_ids in waits.items():
        try:
            sync.send(database, server, run_ids)
            lines.append(f"{server}: {len(run_ids)} runs sent")
        except sync.FAILURES as error:
            lines.append(f"{server}: {len(run_ids)} runs wait in {database} ({reason(error)})")
            is_done = False
    return lines, is_done


def reason(error: Exception) -> str:
    """An error's first line, without the details that network libraries append."""
    text = str(error)
    for mark in ("\n", " with url:", " (Caused by"):
        text = text.partition(mark)[0]
    return text


def database_of(home: Path) -> str:
    """The URI of the database under home."""
    return f"{SQLITE}{(home / 'mlflow' / 'mlflow.db').absolute()}"


def make_database(tracking_uri: str) -> None:
    """Make a new SQLite database, if the URI names one that is not there; else do nothing.

    MLflow makes its tables without a lock and in many steps: two processes at once, or an
    interrupt, leave a database that never works again (MLflow 3.17, docs/decisions/004-mlflow.md).
    So one process at a time makes it beside its place and moves it there when it is whole. A
    server's database is made with this, too, before the server starts.
    """
    path = Path(tracking_uri.removeprefix(SQLITE))
    if not tracking_uri.startswith(SQLITE) or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not path.exists():
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            MlflowClient(f"{SQLITE}{new}")
            new.rename(path)


def experiment_id() -> str:
    """The id of the project's experiment. Raises MlflowException if it is not there."""
    return sync.experiment_of(MlflowClient())


def is_server(tracking_uri: str) -> bool:
    """Whether a tracking URI names a server."""
    return tracking_uri.startswith(("http://", "https://"))


def answers(server: str) -> bool:
    """Whether a server is there; a refusal is an answer, a gateway's complaint is none."""
    try:
        urllib.request.urlopen(f"{server.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, HTTPException):
        return False
    return True


def _is_loopback(server: str) -> bool:
    return urlsplit(server).hostname in ("localhost", "127.0.0.1", "::1")


def _artifacts(home: Path) -> str:
    folder = (home / "mlflow" / "artifacts").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def _set_tracking_uri(tracking_uri: str) -> None:
    """Set it for this process alone: MLflow sets the variable too, as if the user had chosen it."""
    chosen = MLFLOW_TRACKING_URI.get_raw()
    mlflow.set_tracking_uri(tracking_uri)
    if chosen is None:
        MLFLOW_TRACKING_URI.unset()
    else:
        MLFLOW_TRACKING_URI.set(chosen)


def _ensure_experiment(artifact_location: str | None) -> None:
    client = MlflowClient()
    found = client.get_experiment_by_name(sync.EXPERIMENT)
    if found is None:
        try:
            client.create_experiment(sync.EXPERIMENT, artifact_location, sync.EXPERIMENT_TAGS)
        except MlflowException:
            experiment_id()  # another process made it first, or this raises what is wrong
        return
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if artifact_location not in (None, found.artifact_location):
        log.warning(
            "MLflow keeps this experiment's files at %s, not at %s: was the home moved? "
            "Move it back, or remove its mlflow/ folder to start anew",
            found.artifact_location,
            artifact_location,
        )
