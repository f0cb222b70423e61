"""Past runs as MLflow has them: what `lightreasoner runs` lists, shows and compares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightreasoner.errors import LightReasonerError
from lightreasoner.untrusted import shown
from tasks.tracking import lookup, mlflow_runs, route

T = TypeVar("T")
NESTED = ("stage", "point", "round")
"""Kinds of runs that are part of another."""


class RunError(LightReasonerError):
    """MLflow has no such run, or does not answer."""


@dataclass(frozen=True)
class Past:
    """A flow's run. `started` is in seconds since 1970, `seconds` is None where it has no end.

    `params` are texts by `section.key`, `state` is MLflow's word.
    """

    id: str
    name: str
    kind: str
    state: str
    started: float
    seconds: float | None
    params: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class PastStage:
    """A stage of a run; `seconds` and `peak_memory_mib` are those of when it was computed."""

    name: str
    fingerprint: str
    digest: str
    cached: bool
    seconds: float
    peak_memory_mib: float


def newest_first(limit: int) -> list[Past]:
    """The runs that are no part of another. Raises RunError."""
    wanted = " and ".join(f"tags.kind != '{kind}'" for kind in NESTED)
    return [_past(run) for run in _search(wanted, limit)]


def find(run: str) -> Past:
    """The newest run of this name, or the run with this id. Raises RunError."""
    found = _asked(lambda: lookup.find_run(run))
    if found is None:
        raise RunError(f"run {shown(run)}: MLflow has none; `lightreasoner runs list` lists them")
    if MLFLOW_PARENT_RUN_ID in found.data.tags:
        raise RunError(f"run {shown(run)} is part of {found.data.tags[MLFLOW_PARENT_RUN_ID]}")
    return _past(found)


def stages(run: Past) -> list[PastStage]:
    """The run's own stages that came to an end, in order. Raises RunError."""
    wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.id}' and tags.kind = 'stage'"
    found = sorted(_search(wanted, 1000), key=lambda each: each.info.start_time)
    return [_stage(each) for each in found if "fingerprint" in each.data.tags]


def _search(wanted: str, limit: int) -> list[Run]:
    def search() -> list[Run]:
        client = MlflowClient()
        return list(client.search_runs([route.experiment_of(client)], wanted, max_results=limit))

    return _asked(search)


def _asked(call: Callable[[], T]) -> T:
    try:
        return call()
    except mlflow_runs.FAILURES as error:
        raise RunError(f"{mlflow_runs.registry()}: {route.reason(error)}") from error


def _past(run: Run) -> Past:
    info, end = run.info, run.info.end_time
    seconds = (end - info.start_time) / 1000 if end else None
    head = (info.run_id, info.run_name, run.data.tags.get("kind", ""), info.status)
    return Past(*head, info.start_time / 1000, seconds, run.data.params, run.data.metrics)


def _stage(run: Run) -> PastStage:
    tags, metrics = run.data.tags, run.data.metrics
    return PastStage(
        run.info.run_name,
        tags["fingerprint"],
        tags["digest"],
        tags["cached"] == "true",
        metrics["seconds"],
        metrics["peak_memory_mib"],
    )
