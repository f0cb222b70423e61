"""Runs that wait in the database under home for a server that was away, and their way there.

Such a run has SERVER_TAG. It continues a run that the server has (CONTINUES_TAG), or it is new:
then its copy on the server names it (COPY_TAG), so that sending twice makes one. MLflow takes a
point of a curve once (name, step, time and value are its key), a parameter with the same value
again, and files in place of the same files. SENT_TAG is set when the server has all. A run whose
process died (MAKER_TAG) is sent as failed.
"""

import fcntl
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

EXPERIMENT = "lightreasoner"
EXPERIMENT_TAGS = {
    # Its pages then speak of runs, not of evaluations of prompts and agents.
    "mlflow.experimentKind": "custom_model_development",
    MLFLOW_RUN_NOTE: "A run a pipeline, a nested run a stage. `tags.kind = 'pipeline'` finds the "
    "former; their metrics are the report's headline.",
}
SERVER_TAG = "sync.server"
CONTINUES_TAG = "sync.continues"
COPY_TAG = "sync.copy_of"
SENT_TAG = "sync.sent"
MAKER_TAG = "sync.maker"
OWN_TAGS = {SERVER_TAG, CONTINUES_TAG, SENT_TAG, MAKER_TAG}
MOST = 10_000
FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What MLflow raises where it does not take something."""


def experiment_of(client: MlflowClient) -> str:
    """The id of the project's experiment. Raises MlflowException if it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        raise MlflowException(f"no experiment {EXPERIMENT}")
    return str(found.experiment_id)


def marks(server: str) -> dict[str, str]:
    """The tags of a new run that waits for a server."""
    return {SERVER_TAG: server, MAKER_TAG: _maker(psutil.Process())}


def _maker(process: psutil.Process) -> str:
    """A process as MAKER_TAG names it: host, id, when it began."""
    return f"{platform.node()} {process.pid} {process.create_time():.0f}"


def waiting(database: str) -> dict[str, list[str]]:
    """The runs in a database that wait for a server, by its address, in their order."""
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs(
        [experiment.experiment_id] if experiment else [],
        f"tags.`{SERVER_TAG}` LIKE 'http%'",
        order_by=["attributes.start_time ASC"],
        max_results=MOST,
    )
    servers: dict[str, list[str]] = {}
    for run in found:
        if SENT_TAG not in run.data.tags:
            servers.setdefault(run.data.tags[SERVER_TAG], []).append(run.info.run_id)
    return servers


def send(
    database: str, server: str, run_ids: Sequence[str], is_all: bool = False
) -> dict[str, str]:
    """Send runs to a server, parents before their children; their ids there.

    A run that has ended is marked as sent; with `is_all` any is, as nothing follows. Raises
    what MLflow raises; what was sent until then does no harm if it is sent again.
    """
    source, target = MlflowClient(database), MlflowClient(server)
    sent: dict[str, str] = {}
    with Path(database.removeprefix("sqlite:///")).with_name("sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would make a run twice
        if target.get_experiment_by_name(EXPERIMENT) is None:
            target.create_experiment(EXPERIMENT, tags=EXPERIMENT_TAGS)
        for run_id in run_ids:
            run = source.get_run(run_id)
            sent[run_id] = _send(source, target, run, sent)
            if is_all or _end(run):
                source.set_tag(run_id, SENT_TAG, sent[run_id])
    return sent


def _send(source: MlflowClient, target: MlflowClient, run: Run, sent: Mapping[str, str]) -> str:
    tags = _tags(source, run, sent)
    there = _continued(target, run) or _copy(target, run, tags)
    target.log_batch(
        there,
        _points(source, run),
        [Param(key, value) for key, value in run.data.params.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )
    if run.inputs and run.inputs.dataset_inputs:
        target.log_inputs(there, run.inputs.dataset_inputs)
    _send_files(source, target, run.info.run_id, there)
    if status := _end(run):
        target.set_terminated(there, status, run.info.end_time)
    return there


def _end(run: Run) -> str | None:
    """How a run has ended; None while its process is at work, or may be, on another host."""
    if RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
        return str(run.info.status)
    maker = run.data.tags[MAKER_TAG]
    host, pid, _ = maker.rsplit(" ", 2)
    if host != platform.node() or int(pid) == os.getpid():
        return None
    try:
        lives = _maker(psutil.Process(int(pid))) == maker
    except psutil.NoSuchProcess:
        lives = False
    return None if lives else "FAILED"


def _continued(target: MlflowClient, run: Run) -> str | None:
    """The server's run that this one continues, unless it is gone."""
    there = run.data.tags.get(CONTINUES_TAG)
    if there is None:
        return None
    try:
        stage = target.get_run(there).info.lifecycle_stage
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return there if stage == "active" else None


def _tags(source: MlflowClient, run: Run, sent: Mapping[str, str]) -> dict[str, str]:
    """The run's tags as the server is to have them, its parent by its id there."""
    tags = {key: value for key, value in run.data.tags.items() if key not in OWN_TAGS}
    if CONTINUES_TAG in run.data.tags:
        tags.pop(MLFLOW_RUN_NAME, None)
    parent = tags.get(MLFLOW_PARENT_RUN_ID)
    if parent:
        known = source.get_run(parent).data.tags
        there = sent.get(parent) or known.get(SENT_TAG) or known.get(CONTINUES_TAG)
        tags[MLFLOW_PARENT_RUN_ID] = there or parent
    return tags


def _copy(target: MlflowClient, run: Run, tags: dict[str, str]) -> str:
    """The run on the server that stands for a new one; made if it is not there."""
    experiment, run_id = experiment_of(target), run.info.run_id
    found = target.search_runs([experiment], f"tags.`{COPY_TAG}` = '{run_id}'")
    if found:
        return str(found[0].info.run_id)
    tags = {**tags, COPY_TAG: run_id}
    made = target.create_run(experiment, run.info.start_time, tags, run.info.run_name)
    return str(made.info.run_id)


def _points(source: MlflowClient, run: Run) -> list[Metric]:
    """All points of all curves."""
    names = list(run.data.metrics)
    return [point for name in names for point in source.get_metric_history(run.info.run_id, name)]


def _send_files(source: MlflowClient, target: MlflowClient, run_id: str, there: str) -> None:
    if not source.list_artifacts(run_id):
        return
    with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
        files = Path(source.download_artifacts(run_id, "", scratch))
        target.log_artifacts(there, str(files))
