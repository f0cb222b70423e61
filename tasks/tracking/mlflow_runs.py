"""MLflow's side of a pipeline: a run for the pipeline, a nested run for each stage.

MLflow never stops a pipeline and hardly slows it. A server that goes away is left for the database
under home (route.py). What MLflow does not take even so is said in the log and left out, and
after a slow failure nothing is sent for PAUSE_SECONDS. Run ids are passed on explicitly, never the
thread's active run.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
)

from lightreasoner.config import Params
from lightreasoner.pipeline.graph import STAGES, Stage
from lightreasoner.pipeline.store import Outcome, Store, read_curves
from tasks.tracking import measures, predictions
from tasks.tracking.curves import LiveRun
from tasks.tracking.route import Route, experiment_id, reason
from tasks.tracking.sync import FAILURES

UNTRACKED = ""
"""The run id where MLflow did not make a run; every function here takes it and does nothing."""

SLOW_SECONDS = 1.0
PAUSE_SECONDS = 30.0
DIGEST_LENGTH = 36  # of a data set, at most: MLflow's MAX_DATASET_DIGEST_SIZE
MODEL_INPUTS = {"expert", "amateur", "adapter", "model"}  # all other inputs are data sets
QUIET = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}
"""Loggers that would tell of every migration and every retry."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Now:
    """What all threads of the process share."""

    route = Route("", Path())
    pause = 0.0  # until when MLflow is left alone


def configure(tracking_uri: str, home: Path, is_shared: bool = False) -> None:
    """Let records go to this tracking URI and make the experiment there.

    `is_shared`: a server at `tracking_uri` serves the database under `home`, where records go if
    it does not answer.
    """
    _begin(Route(tracking_uri, home, is_shared))
    _attempt("the experiment", _Now.route.open)


def look(tracking_uri: str, home: Path, is_shared: bool = False) -> bool:
    """Let runs and models be read at this tracking URI, and make nothing there.

    Returns whether there is something to read: False for a database that is not there.
    """
    _begin(Route(tracking_uri, home, is_shared))
    return _Now.route.look()


def _begin(route: Route) -> None:
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    _Now.pause = 0.0
    _Now.route = route


def run_here(run_id: str) -> str:
    """The id of a run where records go now; it changes where a server goes or comes back."""
    return _Now.route.run(run_id)


def registry() -> str:
    """The address of the registry that was asked for."""
    return _Now.route.chosen


def at_the_registry(call: Callable[[], T]) -> T:
    """The result of a call that needs the registry which was asked for, and may be made twice.

    Where the server is gone: the database that it serves stands for it; else MlflowException.
    """
    if not _Now.route.is_back():
        raise MlflowException(f"{_Now.route.chosen} does not answer")
    return _tried(call) if _Now.route.is_shared else call()


@contextlib.contextmanager
def pipeline_run(params: Params, name: str, kind: str = "pipeline") -> Iterator[str]:
    """The run of one pipeline, with all parameters; yields its id, UNTRACKED if MLflow is away.

    `kind` is its tag: a `comparison` and a `table1` hold several pipelines' stages.
    """
    run_id = _open(name, {"kind": kind})
    _log(run_id, "the parameters", params=flatten(params))
    try:
        with _closing(run_id, insist=True):
            yield run_id
    finally:
        _attempt("what waited for the server", lambda: _Now.route.is_back(), insist=True)


@contextlib.contextmanager
def nested_run(parent_id: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """The run of one point of a sweep, under the sweep's; its stages nest under it in turn."""
    run_id = _open(name, {"kind": "point", **tags}, parent_id)
    with _closing(run_id):
        yield run_id


@contextlib.contextmanager
def stage_run(parent_id: str, stage: Stage, label: str = "") -> Iterator[LiveRun]:
    """A nested run of a stage that computes; yields the watcher that sends its curves there."""
    run_id = _open_stage(parent_id, stage, label)
    with _closing(run_id), LiveRun(run_id, _log_points) as live:
        yield live


def _log_points(run_id: str, points: list[Metric]) -> bool:
    """Whether MLflow took them."""
    return _log(run_id, "points of a curve", metrics=points)


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
        _attempt(
            f"{stage.name}'s data sets",
            lambda: MlflowClient().log_inputs(run_here(run_id), data),
        )
    if stage.output == "report":
        _log_pages(run_id, payload)
    table = predictions.of_payload(payload)
    if run_id and table is not None:
        _attempt("the predictions", lambda: _send_table(run_here(run_id), table))


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
            MlflowClient().log_artifact(run_here(parent_id), str(file))

    if parent_id:
        _attempt("the comparison's files", send)


def flatten(params: Params) -> dict[str, str]:
    """All parameters as `section.key`, values as text (JSON, but plain for strings)."""
    tree = params.model_dump(mode="json")
    return {
        f"{section}.{key}": _text(value)
        for section, values in tree.items()
        for key, value in values.items()
    }


def run_address(tracking_uri: str, run_id: str) -> str | None:
    """A run's page on MLflow's server; None if there is no server or no run to show."""
    if not run_id or not tracking_uri.startswith("http") or _Now.route.is_apart:
        return None
    found = _attempt("the run's address", experiment_id)
    return f"{tracking_uri}/#/experiments/{found}/runs/{run_here(run_id)}" if found else None


def find_stage(parent_id: str, stage: str) -> str:
    """The newest run of a stage under a pipeline's run; UNTRACKED if MLflow has none."""

    def search() -> str:
        parent = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_here(parent_id)}'"
        where = f"{parent} and attributes.run_name = '{stage}'"
        found = MlflowClient().search_runs([experiment_id()], where, max_results=1)
        return str(found[0].info.run_id) if found else UNTRACKED

    return (_attempt(f"a search for {stage}'s run", search) if parent_id else None) or UNTRACKED


def _attempt(what: str, call: Callable[[], T], insist: bool = False) -> T | None:
    """The call's result; None, and a warning in the log, where MLflow fails or pauses."""
    started = time.monotonic()
    if started < _Now.pause and not insist:
        return None
    try:
        return _tried(call)
    except FAILURES as error:
        if time.monotonic() - started > SLOW_SECONDS:
            _Now.pause = time.monotonic() + PAUSE_SECONDS
        log.warning("MLflow did not take %s (%s); the pipeline goes on", what, reason(error))
        return None


def _tried(call: Callable[[], T]) -> T:
    """The call's result; made again, in the database under home, if the server is gone."""
    try:
        return call()
    except FAILURES:
        if not _Now.route.is_lost():
            raise
    return call()


def _open(name: str, tags: dict[str, str], parent_id: str | None = None) -> str:
    """A new run; none under a parent that there is not."""

    def create() -> str:
        parent = {MLFLOW_PARENT_RUN_ID: run_here(parent_id)} if parent_id else {}
        return _Now.route.create_run(name, {**tags, **parent})

    return UNTRACKED if parent_id == UNTRACKED else _attempt(f"the run {name}", create) or UNTRACKED


def _open_stage(parent_id: str, stage: Stage, label: str) -> str:
    return _open(run_name(stage, label), {"kind": "stage"}, parent_id)


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
    def send() -> None:
        MlflowClient().set_terminated(run_here(run_id), status)

    if run_id:
        _attempt("a run's end", send, insist)


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
            run_here(run_id),
            metrics,
            [Param(key, value) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in (tags or {}).items()],
        )
        return True

    return bool(run_id) and bool(_attempt(what, send))


def _log_pages(run_id: str, payload: Path) -> None:
    """report.html and figures/ as the run's artifacts."""

    def send() -> None:
        here = run_here(run_id)
        MlflowClient().log_artifact(here, str(payload / "report.html"))
        MlflowClient().log_artifacts(here, str(payload / "figures"), "figures")

    if run_id:
        _attempt("the report", send)


def _send_table(run_id: str, table: pd.DataFrame) -> None:
    """As MLflow's `log_table`, which would add the rows once more where it is called again."""
    text = table.to_json(orient="split", index=False, date_format="iso")
    MlflowClient().log_text(run_id, text, predictions.FILE)
    tables = json.dumps([{"path": predictions.FILE, "type": "table"}])
    MlflowClient().set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, tables)


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
