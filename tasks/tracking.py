"""MLflow's side of a pipeline: a run for the pipeline, a nested run for each stage.

MLflow never stops a pipeline and hardly slows it. What it does not take is said in the log and
left out, and after a slow failure (a server that is down) nothing is sent for PAUSE_SECONDS.
Curves are sent by a thread of their own, a batch a second: MLflow's asynchronous logging is not
used, because ending any run shuts its one queue down under the stages that still run
(docs/decisions/004-mlflow.md). Run ids are passed on explicitly, never the thread's active run.
"""

import contextlib
import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.environment_variables import (
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
    MLFLOW_TRACKING_URI,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
)
from sqlalchemy.exc import SQLAlchemyError

from lightreasoner.config import Params
from lightreasoner.stages import STAGES, Stage
from lightreasoner.store import Outcome, Store, read_curves
from tasks import measures, predictions
from tasks.system import SystemMetrics

EXPERIMENT = "lightreasoner"
EXPERIMENT_TAGS = {
    # Its pages then speak of runs, not of evaluations of prompts and agents.
    "mlflow.experimentKind": "custom_model_development",
    MLFLOW_RUN_NOTE: "A run a pipeline, a nested run a stage. `tags.kind = 'pipeline'` finds the "
    "former; their metrics are the report's headline.",
}
SQLITE = "sqlite:///"
UNTRACKED = ""
"""The run id where MLflow did not make a run; every function here takes it and does nothing."""

FLUSH_SECONDS = 1.0
SLOW_SECONDS = 1.0
PAUSE_SECONDS = 30.0
DIGEST_LENGTH = 36  # of a data set, at most: MLflow's MAX_DATASET_DIGEST_SIZE
MODEL_INPUTS = {"expert", "amateur", "adapter", "model"}  # all other inputs are data sets
QUIET = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}
"""Loggers that would tell of every migration and every retry."""

FAILURES = (MlflowException, SQLAlchemyError, OSError)

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Pause:
    """When MLflow may be asked again; one for the process, as one server serves all threads."""

    until = 0.0


def configure(tracking_uri: str, home: Path) -> None:
    """Set the tracking URI and make the experiment, its artifacts as files under `home`.

    Files, so that direct SQLite and a server on this machine resolve the same location; a server
    elsewhere keeps them where it keeps its own.
    """
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    _Pause.until = 0.0
    _set_tracking_uri(tracking_uri)
    artifacts = (home / "mlflow" / "artifacts").resolve()
    artifacts.mkdir(parents=True, exist_ok=True)
    host = urlsplit(tracking_uri).hostname
    location = artifacts.as_uri() if host in (None, "localhost", "127.0.0.1", "::1") else None

    def prepare() -> None:
        make_database(tracking_uri)
        _ensure_experiment(location)

    _attempt("the experiment", prepare)


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


@contextlib.contextmanager
def pipeline_run(params: Params, name: str, kind: str = "pipeline") -> Iterator[str]:
    """The run of one pipeline, with all parameters; yields its id, UNTRACKED if MLflow is away.

    `kind` is its tag: a `comparison` and a `table1` hold several pipelines' stages.
    """
    run_id = _open(name, {"kind": kind})
    _log(run_id, "the parameters", params=flatten(params))
    with _closing(run_id, insist=True):
        yield run_id


@contextlib.contextmanager
def nested_run(parent_id: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """The run of one point of a sweep, under the sweep's; its stages nest under it in turn."""
    tags = {"kind": "point", **tags, MLFLOW_PARENT_RUN_ID: parent_id}
    run_id = _open(name, tags, bool(parent_id))
    with _closing(run_id):
        yield run_id


@contextlib.contextmanager
def stage_run(parent_id: str, stage: Stage, label: str = "") -> Iterator["LiveRun"]:
    """A nested run of a stage that computes; yields the watcher that sends its curves there."""
    run_id = _open_stage(parent_id, stage, label)
    with _closing(run_id), LiveRun(run_id) as live:
        yield live


def run_name(stage: Stage, label: str) -> str:
    """What a stage's run is called: `finetune`, or `finetune (sft)` where it is one of several."""
    return f"{stage.name} ({label})" if label else stage.name


def replay_stage(
    parent_id: str, stage: Stage, outcome: Outcome, home: Path, label: str = ""
) -> None:
    """A nested run of a stage that the store had already, with the curves it had at the time."""
    run_id = _open_stage(parent_id, stage, label)
    with _closing(run_id):
        log_outcome(run_id, outcome)
        entry = Store(home).entry(stage, outcome.manifest["fingerprint"])
        _log(run_id, f"{stage.name}'s curves", metrics=_curves(entry))


def log_outcome(run_id: str, outcome: Outcome) -> None:
    """What the manifest and the payload say: parameters, cost, digests, data sets, numbers."""
    manifest, payload = outcome.manifest, outcome.artifact.path
    stage = STAGES[manifest["stage"]]
    costs = {key: manifest[key] for key in ("seconds", "peak_memory_mib")}
    _log(
        run_id,
        f"{stage.name}'s outcome",
        metrics=_now({**costs, **measures.of_payload(stage.name, payload)}),
        params={
            f"{stage.section}.{key}": _text(value) for key, value in manifest["config"].items()
        },
        tags=_outcome_tags(outcome),
    )
    data = [
        _data_set(name, digest)
        for name, digest in manifest["inputs"].items()
        if name not in MODEL_INPUTS
    ]
    if run_id and data:
        _attempt(f"{stage.name}'s data sets", lambda: MlflowClient().log_inputs(run_id, data))
    if stage.output == "report":
        _log_pages(run_id, payload)
    table = predictions.of_payload(payload)
    if run_id and table is not None:
        _attempt(
            "the predictions",
            lambda: MlflowClient().log_table(run_id, table, predictions.FILE),
        )


def log_report(parent_id: str, outcome: Outcome) -> None:
    """The headline numbers, the figures and the page on the pipeline's own run."""
    _log(parent_id, "the headline", metrics=_now(measures.of_report(outcome.artifact.path)))
    _log_pages(parent_id, outcome.artifact.path)


def describe(run_id: str, text: str) -> None:
    """What MLflow's page of a run shows as its description, in Markdown."""
    _log(run_id, "the description", tags={MLFLOW_RUN_NOTE: text})


def log_numbers(
    run_id: str, metrics: dict[str, float], params: dict[str, str] | None = None
) -> None:
    """Numbers that a run amounts to, and parameters that it has beside its parent's."""
    _log(run_id, "the numbers", metrics=_now(metrics), params=params)


def log_comparison(parent_id: str, metrics: dict[str, float], files: Sequence[Path]) -> None:
    """The numbers and the files of a comparison, or of a table, on its own run."""
    _log(parent_id, "the comparison's numbers", metrics=_now(metrics))

    def send() -> None:
        for file in files:
            MlflowClient().log_artifact(parent_id, str(file))

    if parent_id:
        _attempt("the comparison's files", send)


class LiveRun:
    """A watcher that sends metrics to a run from a thread of its own, so that no stage waits.

    The thread adds what the stage does to the machine (tasks/system.py).
    """

    def __init__(self, run_id: str):
        self.run_id = run_id
        self._points: list[Metric] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-curves", daemon=True)

    def __enter__(self) -> "LiveRun":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self._send()
        if self._points and self.run_id:
            log.warning("MLflow misses %d points of a curve; the store has them", len(self._points))

    def progress(self, done: int, total: int, unit: str) -> None:
        """Nothing: MLflow shows no progress."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Queue a curve's next point, at an update step."""
        point = Metric(name, value, int(time.time() * 1000), step)
        with self._lock:
            self._points.append(point)

    def _work(self) -> None:
        system = SystemMetrics()
        while not self._stop.wait(FLUSH_SECONDS):
            for name, value in (system.due() if self.run_id else {}).items():
                self.metric(name, value, system.step)
            self._send()

    def _send(self) -> None:
        """Send what is queued; what MLflow does not take stays queued."""
        with self._lock:
            points = list(self._points)
        if points and _log(self.run_id, "points of a curve", metrics=points):
            with self._lock:
                del self._points[: len(points)]


def flatten(params: Params) -> dict[str, str]:
    """All parameters as `section.key`, values as text (JSON, but plain for strings)."""
    tree = params.model_dump(mode="json")
    return {
        f"{section}.{key}": _text(value)
        for section, values in tree.items()
        for key, value in values.items()
    }


def experiment_id() -> str:
    """The id of the project's experiment. Raises MlflowException if it is not there."""
    found = MlflowClient().get_experiment_by_name(EXPERIMENT)
    if found is None:
        raise MlflowException(f"no experiment {EXPERIMENT}")
    return str(found.experiment_id)


def run_address(tracking_uri: str, run_id: str) -> str | None:
    """A run's page on MLflow's server; None if there is no server or no run to show."""
    if not run_id or not tracking_uri.startswith("http"):
        return None
    found = _attempt("the run's address", experiment_id)
    return f"{tracking_uri}/#/experiments/{found}/runs/{run_id}" if found else None


def find_stage(parent_id: str, stage: str) -> str:
    """The newest run of a stage under a pipeline's run; UNTRACKED if MLflow has none."""
    where = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}' and attributes.run_name = '{stage}'"

    def search() -> str:
        found = MlflowClient().search_runs([experiment_id()], where, max_results=1)
        return str(found[0].info.run_id) if found else UNTRACKED

    return (_attempt(f"a search for {stage}'s run", search) if parent_id else None) or UNTRACKED


def _set_tracking_uri(tracking_uri: str) -> None:
    """Set it for this process alone: MLflow sets the variable too, as if the user had chosen it."""
    chosen = MLFLOW_TRACKING_URI.is_set()
    mlflow.set_tracking_uri(tracking_uri)
    if not chosen:
        MLFLOW_TRACKING_URI.unset()


def _ensure_experiment(artifact_location: str | None) -> None:
    client = MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            client.create_experiment(EXPERIMENT, artifact_location, EXPERIMENT_TAGS)
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


def _attempt(what: str, call: Callable[[], T], insist: bool = False) -> T | None:
    """The call's result; None, and a warning in the log, where MLflow fails or pauses."""
    started = time.monotonic()
    if started < _Pause.until and not insist:
        return None
    try:
        return call()
    except FAILURES as error:
        if time.monotonic() - started > SLOW_SECONDS:
            _Pause.until = time.monotonic() + PAUSE_SECONDS
        log.warning("MLflow did not take %s (%s); the pipeline goes on", what, reason(error))
        return None


def reason(error: Exception) -> str:
    """An error's first line, without the details that network libraries append."""
    text = str(error)
    for mark in ("\n", " with url:", " (Caused by"):
        text = text.partition(mark)[0]
    return text


def _open(name: str, tags: dict[str, str], wanted: bool = True) -> str:
    def create() -> str:
        run = MlflowClient().create_run(experiment_id(), run_name=name, tags=tags)
        return str(run.info.run_id)

    return (_attempt(f"the run {name}", create) if wanted else None) or UNTRACKED


def _open_stage(parent_id: str, stage: Stage, label: str) -> str:
    tags = {"kind": "stage", MLFLOW_PARENT_RUN_ID: parent_id}
    return _open(run_name(stage, label), tags, bool(parent_id))


@contextlib.contextmanager
def _closing(run_id: str, insist: bool = False) -> Iterator[None]:
    """End the run as FINISHED, or as FAILED with the error in a tag; `insist` ignores a pause."""
    try:
        yield
    except BaseException as error:
        _log(run_id, "an error", tags={"error": f"{type(error).__name__}: {error}"})
        _close(run_id, "FAILED", insist)
        raise
    _close(run_id, "FINISHED", insist)


def _close(run_id: str, status: str, insist: bool) -> None:
    if run_id:
        _attempt("a run's end", lambda: MlflowClient().set_terminated(run_id, status), insist)


def _log(
    run_id: str,
    what: str,
    metrics: Sequence[Metric] = (),
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> bool:
    """Log in one call (MLflow cuts it into batches); whether MLflow took it."""

    def send() -> bool:
        MlflowClient().log_batch(
            run_id,
            metrics,
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in (tags or {}).items()],
        )
        return True

    return bool(run_id) and bool(_attempt(what, send))


def _log_pages(run_id: str, payload: Path) -> None:
    """report.html and figures/ as the run's artifacts."""

    def send() -> None:
        MlflowClient().log_artifact(run_id, str(payload / "report.html"))
        MlflowClient().log_artifacts(run_id, str(payload / "figures"), "figures")

    if run_id:
        _attempt("the report", send)


def _outcome_tags(outcome: Outcome) -> dict[str, str]:
    manifest = outcome.manifest
    tags = {key: str(manifest[key]) for key in ("fingerprint", "digest", "code", "device", "dtype")}
    tags["cached"] = str(outcome.cached).lower()
    tags["commit"] = manifest["commit"] or "none"
    tags |= {f"input.{name}": digest for name, digest in manifest["inputs"].items()}
    return tags | {f"package.{name}": version for name, version in manifest["packages"].items()}


def _data_set(name: str, digest: str) -> DatasetInput:
    """An input that the store, or DVC's cache, finds by its digest.

    A data set of the hub is named, not digested: `owner/name@commit` gives its commit.
    """
    source = json.dumps({"name": name, "digest": digest})
    short = digest.rpartition("@")[2][:DIGEST_LENGTH]
    return DatasetInput(
        Dataset(name, short, "lightreasoner", source),
        [InputTag(MLFLOW_DATASET_CONTEXT, "input")],
    )


def _curves(entry: Path) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(point["name"], point["value"], now, point["step"]) for point in read_curves(entry)
    ]


def _now(values: dict[str, float]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, 0) for name, value in values.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
