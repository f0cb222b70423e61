"""Where MLflow's records are: a database, a server; the project's experiment there."""

import contextlib
import fcntl
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_TRACKING_URI
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from tasks.tracking.measures import MEANS

EXPERIMENT = "lightreasoner"
SCORES = "scores"
COLUMNS = ("attributes.`Dataset`", *(f"metrics.`{each}`" for each in MEANS))
EXPERIMENT_TAGS = {
    # Its pages then speak of runs, not of evaluations of prompts and agents.
    "mlflow.experimentKind": "custom_model_development",
    MLFLOW_RUN_NOTE: "One run per pipeline, a nested run per stage. `tags.kind = 'pipeline'` finds "
    "the former; their metrics are the report's headline.",
    # A view of the list as MLflow's button "Share" would keep it, for mlflow_runs.list_address.
    f"mlflow.sharedViewState.{SCORES}": json.dumps(
        {"searchFilter": "tags.kind = 'pipeline'", "selectedColumns": COLUMNS}
    ),
}
SQLITE = "sqlite:///"
ANSWER_SECONDS = 2.0
FILE_SECONDS = 1800
"""A server's for one file: it answers when S3 has all of it, or it has fetched it from there."""

log = logging.getLogger(__name__)


def look(tracking_uri: str) -> bool:
    """Set the tracking URI and make nothing; whether the database that it names is there."""
    set_tracking_uri(tracking_uri)
    return not tracking_uri.startswith(SQLITE) or Path(tracking_uri.removeprefix(SQLITE)).exists()


def open_experiment(tracking_uri: str, home: Path) -> None:
    """Set the tracking URI, and make the experiment in the database that runs are written to.

    Artifacts are files under home, so that direct SQLite and a server on this machine resolve the
    same location. Raises what MLflow raises.
    """
    set_tracking_uri(tracking_uri)
    database = database_of(home) if is_elsewhere(tracking_uri) else tracking_uri
    make_database(database)
    folder = (home / "mlflow" / "artifacts").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ensure_experiment(MlflowClient(database), folder.as_uri())


def ensure_experiment(client: MlflowClient, location: str | None = None) -> str:
    """Make the experiment, with its files at `location`, or bring it back if it was deleted; its
    id."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, location, EXPERIMENT_TAGS))
        except MlflowException:
            # Another process made it first, or this raises what is wrong.
            return experiment_of(client)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    for key in EXPERIMENT_TAGS.keys() - found.tags.keys():  # of a version that had fewer
        client.set_experiment_tag(found.experiment_id, key, EXPERIMENT_TAGS[key])
    if location not in (None, found.artifact_location):
        log.warning(
            "MLflow keeps this experiment's files at %s, not at %s: was the home moved? "
            "Move it back, or remove its mlflow/ folder to start over",
            found.artifact_location,
            location,
        )
    return str(found.experiment_id)


def experiment_of(client: MlflowClient) -> str:
    """The id of the project's experiment. Raises MlflowException if it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        raise MlflowException(f"no experiment {EXPERIMENT}")
    return str(found.experiment_id)


def database_of(home: Path) -> str:
    """The URI of the database under home."""
    return f"{SQLITE}{(home / 'mlflow' / 'mlflow.db').absolute()}"


def make_database(tracking_uri: str) -> None:
    """Make a new SQLite database, if the URI names one that is not there, or an empty file.

    MLflow makes its tables without a lock and in many steps: two processes at once, or an
    interrupt, leave a database that never works again (MLflow 3.17, docs/decisions/004-mlflow.md).
    So one process at a time makes it beside its place and moves it there when it is whole. A
    server's database is made with this, too, before the server starts.
    """
    path = Path(tracking_uri.removeprefix(SQLITE))
    if not tracking_uri.startswith(SQLITE) or _is_made(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_made(path):
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            MlflowClient(f"{SQLITE}{new}")
            new.rename(path)


def _is_made(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def reason(error: Exception) -> str:
    """An error's first line, without the details that network libraries append."""
    text = str(error)
    for mark in ("\n", " with url:", " (Caused by"):
        text = text.partition(mark)[0]
    return text


def is_server(tracking_uri: str) -> bool:
    """Whether a tracking URI names a server of MLflow's."""
    return tracking_uri.startswith(("http://", "https://"))


def is_elsewhere(tracking_uri: str) -> bool:
    """Whether a tracking URI names a server, MLflow's or a database's, which may go away."""
    return not tracking_uri.startswith(SQLITE)


def answers(server: str) -> bool:
    """Whether a server is there; a refusal is an answer, a gateway's complaint is none.

    A database's is not asked: its calls say it.
    """
    if not is_server(server):
        return True
    try:
        urllib.request.urlopen(f"{server.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, HTTPException):
        return False
    return True


@contextlib.contextmanager
def files_pass() -> Iterator[None]:
    """Let a server take FILE_SECONDS for a call in this block; all of the process wait so long."""
    before = MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(max(before, FILE_SECONDS))
    try:
        yield
    finally:
        MLFLOW_HTTP_REQUEST_TIMEOUT.set(before)


def set_tracking_uri(tracking_uri: str) -> None:
    """Set it for this process alone: MLflow sets the variable too, as if the user had chosen it."""
    chosen = MLFLOW_TRACKING_URI.get_raw()
    mlflow.set_tracking_uri(tracking_uri)
    if chosen is None:
        MLFLOW_TRACKING_URI.unset()
    else:
        MLFLOW_TRACKING_URI.set(chosen)
