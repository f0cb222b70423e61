"""What MLflow and Prefect know of a run by its name or id: its kind, and how it ended."""

import contextlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from tasks.tracking import mlflow_runs

PIPELINE = "pipeline"
FLOW = "lightreasoner"
STATES = {
    "RUNNING": "it runs, or its process died",
    "FAILED": "it failed",
    "KILLED": "it was interrupted",
}
"""MLflow's, in words."""


@dataclass(frozen=True)
class Seen:
    """A run: `kind` is pipeline, stage, comparison, ...; `state` is in its tracker's words."""

    kind: str
    state: str
    finished: bool


def look_up(run: str, tracking_uri: str, home: Path) -> Seen | None:
    """The newest run of this name, or the run with this id; None if neither knows it.

    MLflow is asked first: Prefect, without a server, takes ten seconds to start one of its own.
    """
    seen = _in_mlflow(run, tracking_uri, home)
    if seen is None:
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # a server that is down
            seen = _in_prefect(run)
    return seen


def _in_mlflow(run: str, tracking_uri: str, home: Path) -> Seen | None:
    if not mlflow_runs.look(tracking_uri, home):
        return None
    try:
        found = find_run(run)
    except mlflow_runs.FAILURES:
        return None
    if found is None:
        return None
    said, tags = found.info.status, found.data.tags
    state = STATES.get(said, said)
    error = f" ({tags['error']})" if "error" in tags else ""
    return Seen(tags.get("kind", PIPELINE), f"{state}{error}", said == "FINISHED")


def find_run(run: str) -> Run | None:
    """MLflow's newest run of this name, or the run with this id. Raises MlflowException."""
    client = MlflowClient()
    try:
        return client.get_run(run.lower())
    except MlflowException:
        quote = '"' if "'" in run else "'"
        if quote in run:
            return None
        wanted = f"attributes.run_name = {quote}{run}{quote}"
        experiment = [mlflow_runs.experiment_id()]
        return next(iter(client.search_runs(experiment, wanted, max_results=1)), None)


def _in_prefect(run: str) -> Seen | None:
    with get_client(sync_client=True) as client:
        found = _prefect_run(client, run)
        if found is None:
            return None
        flow = client.read_flow(found.flow_id).name
    state = found.state
    said = f"it is {state.name}" if state else "it has not begun"
    kind = PIPELINE if flow == FLOW else flow.removeprefix(f"{FLOW}-")
    return Seen(kind, said, bool(state and state.is_completed()))


def _prefect_run(client: SyncPrefectClient, run: str) -> FlowRun | None:
    try:
        return client.read_flow_run(uuid.UUID(run))
    except (ValueError, ObjectNotFound):
        named = FlowRunFilter(name=FlowRunFilterName(any_=[run]))
        newest = FlowRunSort.EXPECTED_START_TIME_DESC
        found = client.read_flow_runs(flow_run_filter=named, sort=newest, limit=1)
        return found[0] if found else None
