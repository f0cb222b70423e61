"""The pipeline: the stages of the graph as cached tasks, the report, then the registry."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.utilities.annotations import quote

from flows import environment
from flows.forms import naming
from flows.forms.form import EvaluationForm, Form, Settings
from flows.results import prefect_page, records, report_json
from flows.servers import local
from lightreasoner.config import Params
from lightreasoner.errors import NoMemoryError
from lightreasoner.evaluation import power
from lightreasoner.forecast import limits, plan
from lightreasoner.grading.grade import shared_process
from lightreasoner.pipeline.graph import GRAPH, STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Outcome, peak_memory_mib, reset_peak_memory
from lightreasoner.storage import digests
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import card
from tasks.stages import StageRun, decide_champion, register_model, run_stage
from tasks.tracking import mlflow_runs

log = logging.getLogger(__name__)


@flow(
    name="lightreasoner",
    flow_run_name=naming.run_name,
    description="Contrast an expert with an amateur on the same problems, keep the steps where "
    "they differ, tune the expert on them, grade both, register the tuned model.",
)
def lightreasoner(params: Form) -> dict[str, Any]:
    """Run the whole pipeline and return what report.json says.

    Writes to the store, to MLflow and to `<home>/latest`. Raises what the first stage that fails
    raises; ModelError, ProblemsError, NoMemoryError and DiskFullError before any stage runs.
    """
    return run_pipeline(params.values(), begin(params))


def begin(form: Settings) -> Path:
    """Let Prefect's interface see our lines, tag this flow run by its form, find MLflow; home.

    Prefect sends what our loggers let through (PREFECT_LOGGING_EXTRA_LOGGERS in environment.py).
    """
    for name in ("lightreasoner", "tasks", "flows"):
        logger = logging.getLogger(name)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))  # DEBUG, by -v, stays
    naming.tag(form, _kind())
    home = environment.home()
    digests.keep(home)
    local.track(home)
    if not isinstance(form, EvaluationForm):  # which names a model of its own
        limits.check(form.values(), home)
    return home


@contextlib.contextmanager
def tracked(params: Params, inputs: Inputs) -> Iterator[str]:
    """MLflow's run of this flow run, called the same; interrupted, both say so. Yields its id.

    It says which sources of problems are among the inputs.
    """
    named = mlflow_runs.pipeline_run(params, naming.name_here(), _kind())
    with naming.cancelled_by_ctrl_c(), named as run:
        mlflow_runs.log_data(run, params, inputs)
        yield run


def _kind() -> str:
    return local.DEPLOYED[str(flow_run.flow_name)]


def run_pipeline(params: Params, home: Path) -> dict[str, Any]:
    """The stages, the report and the registry; what report.json says.

    Report and record are there before the registry is asked, and are completed after.
    """
    try:
        prefect_page.show_plan(plan.plan(params, home))
    except NoMemoryError as error:  # of what is only shown
        log.warning("%s", error)
    inputs = external_inputs(params)
    for warning in power.warnings(params):
        log.warning("%s", warning)
    name, uri = naming.name_here(), environment.tracking_uri(home)
    with tracked(params, inputs) as run:
        runs = run_stages(GRAPH, inputs, params, home, run)
        facts = card.facts(outcomes_of(runs), params, mlflow_runs.named(run))
        mlflow_runs.log_report(run, runs["report"].outcome, facts)
        ids = {"name": name, "prefect": str(flow_run.id), "mlflow": mlflow_runs.run_here(run)}
        _keep(ids, params, runs, home, facts)
        log.info("%-24s %s", "report", home / "latest" / "report.html")
        registering = _register(runs, inputs, params, home, run)
        ids["mlflow"] = mlflow_runs.run_here(run)
        report, record = _keep(ids, params, runs, home, facts, registering)
        addresses = prefect_page.addresses(uri, run, report["registered_model"])
        finished = prefect_page.Finished(record, report, runs, params, addresses)
        prefect_page.make_artifacts(finished)
        mlflow_runs.describe(run, prefect_page.markdown(finished))
    return report


def _keep(
    ids: dict[str, str],
    params: Params,
    runs: dict[str, StageRun],
    home: Path,
    facts: dict[str, str],
    registering: report_json.Registering | None = None,
) -> tuple[dict[str, Any], records.Record]:
    """Write `latest` and the run's record; without `registering`, as if that failed."""
    report = report_json.report_tree(runs, registering)
    report_json.write_latest(home, runs["report"].outcome.artifact, report, facts)
    record = records.of(ids, params, runs, report["registered_model"])
    records.keep(home, record)
    return report, record


def run_stages(
    stages: Sequence[Stage],
    inputs: Inputs,
    params: Params,
    home: Path,
    pipeline_run: str,
    label: str = "",
    shared: dict[str, StageRun] | None = None,
) -> dict[str, StageRun]:
    """Run stages in order, each fed by the outputs of those before it.

    `label` names the runs (`finetune (sft)`). What `shared` holds by fingerprint is taken from
    there without a task, and what runs is added.
    """
    shared = {} if shared is None else shared
    runs: dict[str, StageRun] = {}

    def make(stage: Stage, needed: Inputs) -> Artifact:
        job = Job.of(stage, needed, params)
        if job.key not in shared:
            feeding = [run.state for name, run in runs.items() if STAGES[name].output in needed]
            shared[job.key] = run_stage(job, home, pipeline_run, feeding, label)
            _log_stage(mlflow_runs.run_name(stage, label), shared[job.key])
        runs[stage.name] = shared[job.key]
        return runs[stage.name].outcome.artifact

    with shared_process():  # one process grades all that these stages evaluate
        walk(stages, inputs, make)
    return runs


def outcomes_of(runs: dict[str, StageRun]) -> dict[str, Outcome]:
    """What the stages came to, by name."""
    return {name: run.outcome for name, run in runs.items()}


def _log_stage(name: str, run: StageRun) -> None:
    how = "cached" if run.outcome.cached else "done"
    log.info("%-24s %-6s %6.1f s", name, how, run.seconds)


def _register(
    runs: dict[str, StageRun], inputs: Inputs, params: Params, home: Path, pipeline_run: str
) -> report_json.Registering:
    clock = time.perf_counter()
    reset_peak_memory()
    outcomes = outcomes_of(runs)
    # Quoted, else Prefect's graph has an edge from every stage.
    quoted = cast("dict[str, Outcome]", quote(outcomes))
    registered = register_model(
        outcomes["merge"].artifact,
        quoted,
        params,
        pipeline_run,
        wait_for=[runs["merge"].state, runs["report"].state],
    )
    seconds = time.perf_counter() - clock
    how = "done" if registered.created else "cached"
    log.info("%-24s %-6s %6.1f s", "register", how, seconds)
    peak = peak_memory_mib()
    source = inputs["benchmark_source"]
    graded = [runs[name].state for name in ("evaluate_base", "evaluate")]
    gated = decide_champion(registered, quoted, params, source, home, pipeline_run, wait_for=graded)
    log.info("%-24s %s", "gate", gated.decision.verdict)
    return report_json.Registering(registered, seconds, peak, gated)
