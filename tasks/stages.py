"""The stages as Prefect tasks: retried where that can help, with progress.

`run_stage` is what a flow calls for each stage of the graph; `register_model` ends a pipeline.

The store alone says what is cached. Prefect keeps no results of tasks and loads none: it would take
the serializer from the record that it finds, and that may be pickle, which runs what it holds.
"""

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, State
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task

from lightreasoner.config import Params
from lightreasoner.errors import LightReasonerError
from lightreasoner.pipeline.graph import Stage
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.progress import TerminalBar, Watcher
from lightreasoner.storage.artifacts import Artifact
from tasks import accelerator
from tasks.registry import gate, versions
from tasks.tracking import mlflow_runs

RETRY_SECONDS = [5.0, 30.0]
LIGHT_SECONDS = 3600
"""For a stage that loads no model, which takes seconds; how long a model takes is unknown, and
heartbeats and progress show that it is working."""

UPDATE_SECONDS = 1.0
LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)

log = logging.getLogger(__name__)


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failure may not occur again at the next try: only input, output and connections."""
    error = state.data
    if isinstance(error, (LightReasonerError, TaskRunTimeoutError, *LASTING)):
        return False
    return isinstance(error, OSError | httpx.TransportError)


@dataclass(frozen=True)
class StageRun:
    """A stage in one run of a pipeline: its outcome and Prefect's state, which says Cached too."""

    outcome: Outcome
    state: State[Any]
    seconds: float


def run_stage(
    job: Job,
    home: Path,
    pipeline_run: str,
    wait_for: Sequence[State[Any]] = (),
    label: str = "",
) -> StageRun:
    """Run a stage as a task; `wait_for` are the states of the stages that feed it.

    `label` tells runs of one stage apart by name, in Prefect and in MLflow; it changes no result.

    `seconds` is the time that the stage took in this run, the look-up of a stored result included.
    Raises what the stage raises.
    """
    clock = time.perf_counter()
    named = stage_task(job.stage, home).with_options(
        task_run_name=mlflow_runs.run_name(job.stage, label)
    )
    state: State[Any] = named(job, pipeline_run, label, return_state=True, wait_for=wait_for)
    outcome: Outcome = state.result()
    if outcome.cached:
        mlflow_runs.replay_stage(pipeline_run, job.stage, outcome, home, label)
    return StageRun(outcome, state, time.perf_counter() - clock)


@functools.cache
def stage_task(stage: Stage, home: Path) -> Task[..., Any]:
    """The task of a stage, its results in the store under home."""

    def body(job: Job, pipeline_run: str, label: str) -> State[Any]:
        outcome = _outcome(job, Store(home), pipeline_run, label)
        if outcome.cached:
            return Completed(name="Cached", message="Taken from the store.", data=outcome)
        return Completed(message="Computed and stored.", data=outcome)

    heavy = stage.name in accelerator.HEAVY
    return Task(
        body,
        name=stage.name,
        description=stage.summary,
        tags=[accelerator.LIMIT] if heavy else None,
        timeout_seconds=None if heavy else LIGHT_SECONDS,
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=may_pass,
    )


def _outcome(job: Job, store: Store, pipeline_run: str, label: str) -> Outcome:
    """The stage's result. Who finds it stored, or waits for another run that makes it, holds
    neither the accelerator nor a run in MLflow meanwhile.
    """
    with store.claim(job) as found:
        return found or _computed(job, store, pipeline_run, label)


def _computed(job: Job, store: Store, pipeline_run: str, label: str) -> Outcome:
    stage, name = job.stage, mlflow_runs.run_name(job.stage, label)
    with (
        accelerator.turn(stage.name, store.home),
        TerminalBar(name) as bar,
        mlflow_runs.stage_run(pipeline_run, stage, label) as run,
    ):
        # What loads no model takes seconds: a bar of it would only fill the run's page.
        shown = [ProgressArtifact(stage)] if stage.name in accelerator.HEAVY else []
        watcher = Together([bar, *shown, run])
        outcome = store.compute(job, watcher)
        mlflow_runs.log_outcome(run.run_id, outcome)
    return outcome


@task(
    name="register",
    task_run_name="register",
    cache_policy=NO_CACHE,
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=may_pass,
)
def register_model(
    model: Artifact, outcomes: Mapping[str, Outcome], params: Params, pipeline_run: str
) -> versions.Registered:
    """Register the merged model; the registry itself says whether it has it already.

    It has no limit of time: how long the files take to a server elsewhere is unknown. A call that
    sends one has its own (`tracking/route.py`).
    """
    return versions.register_version(model, outcomes, params, pipeline_run)


@task(
    name="gate",
    task_run_name="gate",
    cache_policy=NO_CACHE,
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=may_pass,
)
def decide_champion(
    registered: versions.Registered,
    outcomes: Mapping[str, Outcome],
    params: Params,
    source: Artifact,
    home: Path,
    pipeline_run: str,
) -> gate.Gated:
    """Move the alias `champion` to the registered version if it is better; a champion without
    scores of the same problems is graded as a task `evaluate (champion)`.
    """

    def evaluate(job: Job) -> Outcome:
        return run_stage(job, home, pipeline_run, label="champion").outcome

    return gate.run(registered, outcomes, params, source, home, evaluate)


@dataclass(frozen=True)
class Together:
    """Several watchers as one."""

    watchers: Sequence[Watcher]

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.progress(done, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.metric(name, value, step)


class ProgressArtifact:
    """A watcher that moves a progress bar in Prefect's interface, at most once a second.

    An update costs about 10 ms. A server that does not answer costs the bar, not the stage.
    """

    def __init__(self, stage: Stage):
        self.key = stage.name.replace("_", "-")
        self.id: UUID | None = None
        self.next = 0.0
        self.lost = False

    def progress(self, done: int, total: int, unit: str) -> None:
        """Move the bar, if it is time to."""
        now = time.monotonic()
        if self.lost or (now < self.next and done < total):
            return
        self.next = now + UPDATE_SECONDS
        try:
            self._update(100.0 * done / max(total, 1), f"{done} of {total} {unit}")
        except httpx.HTTPError as error:
            log.warning("%s: progress is not shown (%s)", self.key, error)
            self.lost = True

    def metric(self, name: str, value: float, step: int) -> None:
        """Nothing: curves go to MLflow."""

    def _update(self, percent: float, description: str) -> None:
        if self.id is None:
            made = create_progress_artifact(percent, key=self.key, description=description)
            self.id = cast(UUID, made)
        else:
            update_progress_artifact(self.id, progress=percent, description=description)
