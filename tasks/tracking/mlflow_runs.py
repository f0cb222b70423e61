"""MLflow's side of a pipeline: a run for the pipeline, a nested run for each stage.

MLflow never stops a pipeline and hardly slows it. Runs are written to a database of this machine;
a server elsewhere gets copies (sync.py). What the database does not take is logged
and left out. Run ids are passed on explicitly, never the thread's active run.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
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
from lightreasoner.report import head
from lightreasoner.storage.artifacts import Inputs
from tasks.tracking import measures, predictions, route, trackers
from tasks.tracking.curves import LiveRun
from tasks.tracking.sync import FAILURES, Copier

UNTRACKED = ""
"""The run id where MLflow did not make a run; every function here takes it and does nothing."""

NAME_TAG, DATE_TAG = "run", "run.date"
"""Of what a run made: its name, and when it began."""

DIGEST_LENGTH = 36  # of a data set, at most: MLflow's MAX_DATASET_DIGEST_SIZE
LONGEST_DATA_SET = 500  # its name: MAX_DATASET_NAME_SIZE
MODEL_INPUTS = {"expert", "amateur", "adapter", "model"}  # all other inputs are data sets
QUIET = {
    "mlflow": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,
    "alembic": logging.WARNING,
    "urllib3": logging.ERROR,
}
"""Loggers that would tell of every migration and every retry, and show a stack for what the caller
gets as an error."""

LOCKED_SECONDS = 60.0
"""A call's, where another program keeps the database locked."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Now:
    """What all threads of the process share."""

    uri = ""  # the one that was asked for
    database = ""  # where runs are written
    copier: Copier | None = None  # to a server elsewhere
    home = Path()


def configure(tracking_uri: str, home: Path) -> None:
    """Let records go to this tracking URI and make the experiment.

    For a server that is the database under home, of which the server gets copies.
    """
    _begin(tracking_uri, home)
    _attempt("the experiment", lambda: route.open_experiment(tracking_uri, home))


def look(tracking_uri: str, home: Path) -> bool:
    """Let runs and models be read at this tracking URI, and make nothing there.

    Returns whether there is something to read: False for a database that is not there.
    """
    _begin(tracking_uri, home)
    return route.look(tracking_uri)


def _begin(tracking_uri: str, home: Path) -> None:
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    is_elsewhere = route.is_elsewhere(tracking_uri)
    _Now.uri, _Now.home = tracking_uri, home
    _Now.database = route.database_of(home) if is_elsewhere else tracking_uri
    _Now.copier = Copier(home, tracking_uri) if is_elsewhere else None


def run_here(run_id: str) -> str:
    """The id of a run at the tracking URI, to which it is sent first; its own if that fails."""
    if _Now.copier is None:
        return run_id
    if run_id and run_id not in _Now.copier.ids:
        _Now.copier.catch_up()
    return _Now.copier.ids.get(run_id, run_id)


def experiment_id() -> str:
    """The experiment's id at the tracking URI. Raises MlflowException if it is not there."""
    return route.experiment_of(MlflowClient())


def registry() -> str:
    """The address of the registry that was asked for."""
    return _Now.uri


def at_the_registry(call: Callable[[], T]) -> T:
    """The result of a call that needs the registry, which is sent the run that goes on before.

    Raises FAILURES, MlflowException where the registry is away.
    """
    if _Now.copier and not _Now.copier.catch_up() and not route.answers(_Now.uri):
        raise MlflowException(f"{_Now.uri} does not answer")
    return call()


@contextlib.contextmanager
def pipeline_run(params: Params, name: str, kind: str = "pipeline") -> Iterator[str]:
    """The run of one pipeline, with all parameters; yields its id, UNTRACKED if MLflow is away.

    `kind` is its tag: a `comparison` and a `table1` hold several pipelines' stages. Raises
    ConfigError where a tracker of `compute.track` is not installed.
    """
    trackers.check(params)
    run_id, settings = _open(name, {"kind": kind}), flatten(params)
    copies = _Now.copier.during(run_id) if _Now.copier and run_id else contextlib.nullcontext()
    others = trackers.following(run_id, name, params.compute.track, settings, _Now.home)
    with copies, _closing(run_id), others:
        _log(run_id, params=settings)
        yield run_id


@contextlib.contextmanager
def nested_run(parent_id: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """The run of one point of a sweep, under the sweep's; its stages nest under it in turn.

    `tags` may name another kind, as the rounds do.
    """
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
    return _log(run_id, metrics=points)


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
        _log(run_id, metrics=_curves(entry))


def log_outcome(run_id: str, outcome: Outcome) -> None:
    """What the manifest and the payload say: parameters, cost, digests, data sets, numbers."""
    manifest, payload = outcome.manifest, outcome.artifact.path
    stage = STAGES[manifest["stage"]]
    costs = {key: manifest[key] for key in ("seconds", "peak_memory_mib")}
    _log(
        run_id,
        metrics=_now({**costs, **measures.of_payload(stage.name, payload)}),
        params={
            f"{stage.section}.{key}": _text(value) for key, value in manifest["config"].items()
        },
        tags=_outcome_tags(outcome),
    )
    inputs = manifest["inputs"].items()
    if data := [_data_set(*each) for each in inputs if each[0] not in MODEL_INPUTS]:
        _write(run_id, "log_inputs", data)
    if stage.output == "report":
        _log_pages(run_id, payload)
    table = predictions.of_payload(payload)
    if table is not None:
        # As MLflow's `log_table`, which would add the rows once more where it is called again.
        rows = table.to_json(orient="split", index=False, date_format="iso")
        _write(run_id, "log_text", rows, predictions.FILE)
        tables = json.dumps([{"path": predictions.FILE, "type": "table"}])
        _log(run_id, tags={MLFLOW_LOGGED_ARTIFACTS: tables})


def log_report(parent_id: str, outcome: Outcome, facts: Mapping[str, str] | None = None) -> None:
    """The headline numbers, the figures and the page on the pipeline's own run; the page says the
    run's `facts`, if given."""
    log_numbers(parent_id, measures.of_report(outcome.artifact.path))
    _log_pages(parent_id, outcome.artifact.path, facts)


def named(run_id: str) -> dict[str, str]:
    """The tags of what a run makes that say which one it was; none where MLflow has no run."""
    found = _attempt("a look at the run", lambda: _client().get_run(run_id)) if run_id else None
    if found is None:
        return {}
    began = datetime.fromtimestamp(found.info.start_time / 1000, UTC)
    return {NAME_TAG: found.info.run_name, DATE_TAG: f"{began:%Y-%m-%d %H:%M} UTC"}


def log_data(run_id: str, params: Params, sources: Inputs) -> None:
    """What a run learns from and is graded on, as MLflow's list of runs shows it, of `sources`."""
    sets = {
        "problem_source": (params.prepare.problem_set, "training"),
        "benchmark_source": (",".join(params.evaluate.problem_sets), "evaluation"),
    }
    data = [
        _data_set(name[:LONGEST_DATA_SET], sources[source].digest, context)
        for source, (name, context) in sets.items()
        if source in sources
    ]
    _write(run_id, "log_inputs", data)


def describe(run_id: str, text: str) -> None:
    """What MLflow's page of a run shows as its description, in Markdown."""
    _log(run_id, tags={MLFLOW_RUN_NOTE: text})


def log_numbers(
    run_id: str, metrics: dict[str, float], params: dict[str, str] | None = None, step: int = 0
) -> None:
    """Numbers that a run amounts to, and parameters that it has beside its parent's."""
    _log(run_id, metrics=_now(metrics, step), params=params)


def log_comparison(parent_id: str, metrics: dict[str, float], files: Sequence[Path]) -> None:
    """The numbers and the files of a comparison, or of a table, on its own run."""
    log_numbers(parent_id, metrics)
    for file in files:
        _write(parent_id, "log_artifact", str(file))


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
    if not run_id or not route.is_server(tracking_uri):
        return None
    found = _attempt("the run's address", experiment_id)
    return f"{tracking_uri}/#/experiments/{found}/runs/{run_here(run_id)}" if found else None


def list_address(page: str) -> str:
    """The list in which a run's page stands, with data sets and mean scores in its columns."""
    return f"{page.rpartition('/')[0]}?viewStateShareKey={route.SCORES}"


def find_stage(parent_id: str, stage: str) -> str:
    """The newest run of a stage under a pipeline's run; UNTRACKED if MLflow has none."""

    def search() -> list[Run]:
        query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}' and attributes.run_name = '{stage}'"
        return _client().search_runs([route.experiment_of(_client())], query, max_results=1)

    found = _attempt(f"a search for {stage}'s run", search) if parent_id else None
    return str(found[0].info.run_id) if found else UNTRACKED


def _client() -> MlflowClient:
    return MlflowClient(_Now.database)


def _attempt(what: str, call: Callable[[], T]) -> T | None:
    """The call's result; None, and a warning in the log, where MLflow fails.

    It is called again where another program has locked the database, which undoes it as a whole.
    """
    end = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return call()
        except FAILURES as error:
            if "database is locked" in str(error) and time.monotonic() < end:
                continue  # MLflow has waited for 20 s
            log.warning(
                "MLflow did not take %s (%s); the pipeline continues", what, route.reason(error)
            )
            return None


def _write(run_id: str, method: str, *arguments: Any) -> bool:
    """Whether MLflow took a call of its client's on a run."""

    def call() -> bool:
        getattr(_client(), method)(run_id, *arguments)
        return True

    return bool(run_id and _attempt(method, call))


def _open(name: str, tags: dict[str, str], parent_id: str | None = None) -> str:
    """A new run; none under a parent that there is not."""

    def create() -> str:
        parent = {MLFLOW_PARENT_RUN_ID: parent_id} if parent_id else {}
        experiment = route.experiment_of(_client())
        made = _client().create_run(experiment, tags={**tags, **parent}, run_name=name)
        trackers.nest(made.info.run_id, parent_id or "", name)
        return str(made.info.run_id)

    return UNTRACKED if parent_id == UNTRACKED else _attempt(f"the run {name}", create) or UNTRACKED


def _open_stage(parent_id: str, stage: Stage, label: str) -> str:
    return _open(run_name(stage, label), {"kind": "stage"}, parent_id)


@contextlib.contextmanager
def _closing(run_id: str) -> Iterator[None]:
    """End the run as FINISHED, as KILLED by Ctrl-C or a signal, or as FAILED with an error tag."""
    try:
        yield
    except BaseException as error:
        if _is_interruption(error):
            _write(run_id, "set_terminated", "KILLED")
        else:
            _log(run_id, tags={"error": f"{type(error).__name__}: {error}"})
            _write(run_id, "set_terminated", "FAILED")
        raise
    _write(run_id, "set_terminated", "FINISHED")


def _is_interruption(error: BaseException) -> bool:
    """Whether somebody ended the work: Ctrl-C, SIGTERM, a closed terminal, *Cancel* in Prefect."""
    if isinstance(error, Exception):
        return False
    from prefect.exceptions import TerminationSignal

    return isinstance(error, KeyboardInterrupt | SystemExit | TerminationSignal)


def _log(
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> bool:
    """Log in one call (MLflow cuts it into batches); whether MLflow took it."""
    of_params = [Param(*each) for each in (params or {}).items()]
    took = _write(
        run_id, "log_batch", metrics, of_params, [RunTag(*each) for each in (tags or {}).items()]
    )
    if took:
        trackers.tell(run_id, metrics)
    return took


def _log_pages(run_id: str, payload: Path, facts: Mapping[str, str] | None = None) -> None:
    """report.html and figures/ as the run's artifacts."""
    page = (payload / "report.html").read_text(encoding="utf-8")
    _write(run_id, "log_text", head.of_run(page, facts) if facts else page, "report.html")
    _write(run_id, "log_artifacts", str(payload / "figures"), "figures")


def _outcome_tags(outcome: Outcome) -> dict[str, str]:
    manifest = outcome.manifest
    tags = {key: str(manifest[key]) for key in ("fingerprint", "digest", "code", "device", "dtype")}
    tags["cached"] = str(outcome.cached).lower()
    tags["commit"] = manifest["commit"] or "none"
    tags |= {f"input.{name}": digest for name, digest in manifest["inputs"].items()}
    return tags | {f"package.{name}": version for name, version in manifest["packages"].items()}


def _data_set(name: str, digest: str, context: str = "input") -> DatasetInput:
    """An input that the store, or DVC's cache, finds by its digest.

    A data set of the hub is named, not digested: `owner/name@commit` gives its commit.
    """
    source = json.dumps({"name": name, "digest": digest})
    short = digest.rpartition("@")[2][:DIGEST_LENGTH]
    return DatasetInput(
        Dataset(name, short, "lightreasoner", source),
        [InputTag(MLFLOW_DATASET_CONTEXT, context)],
    )


def _curves(entry: Path) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(point["name"], point["value"], now, point["step"]) for point in read_curves(entry)
    ]


def _now(values: dict[str, float], step: int = 0) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in values.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
