"""The pipeline: the stages of the graph as cached tasks, then the registry, then the report."""

import logging
import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run

from flows import home, latest, summary
from lightreasoner.config import Params
from lightreasoner.stages import GRAPH, Inputs, external_inputs
from lightreasoner.store import peak_memory_mib, reset_peak_memory
from tasks import tracking
from tasks.stages import StageRun, register, run_stage

log = logging.getLogger(__name__)


@flow(
    name="lightreasoner",
    description="Contrast an expert with an amateur on the same problems, keep the steps where "
    "they differ, tune the expert on them, grade both, register the tuned model.",
)
def lightreasoner(params: Params) -> dict[str, Any]:
    """Run the whole pipeline and return what report.json says.

    Writes to the store, to MLflow and to `<home>/latest`. Raises what the first stage that fails
    raises, ModelError and ProblemsError before any stage runs.
    """
    _let_interface_see_lines()
    where = home.home()
    inputs = external_inputs(params)
    tracking.configure(home.tracking_uri(where), where)
    with tracking.pipeline_run(params, flow_run.name or "lightreasoner") as run:
        runs = run_stages(inputs, params, where, run)
        tracking.log_report(run, runs["report"].outcome)
        report = latest.describe(runs, _register(runs, params, run))
        page = latest.write(where, runs["report"].outcome.artifact, report)
        _publish(report, page, run, home.tracking_uri(where))
    return report


def run_stages(
    inputs: Inputs, params: Params, where: Path, pipeline_run: str
) -> dict[str, StageRun]:
    """Run the graph's stages in order, each fed by the outputs of those before it."""
    artifacts = dict(inputs)
    runs: dict[str, StageRun] = {}
    makers = {stage.output: stage.name for stage in GRAPH}
    for stage in GRAPH:
        feeding = [runs[makers[name]].state for name in stage.inputs if name in makers]
        needed = {name: artifacts[name] for name in stage.inputs}
        run = run_stage(stage, needed, params, where, pipeline_run, feeding)
        runs[stage.name] = run
        artifacts[stage.output] = run.outcome.artifact
        how = "cached" if run.outcome.cached else "done"
        log.info("%-13s %-6s %6.1f s", stage.name, how, run.seconds)
    return runs


def _register(runs: dict[str, StageRun], params: Params, pipeline_run: str) -> latest.Registering:
    clock = time.perf_counter()
    reset_peak_memory()
    outcomes = {name: run.outcome for name, run in runs.items()}
    registered = register(
        outcomes["merge"].artifact,
        outcomes,
        params,
        pipeline_run,
        wait_for=[runs["merge"].state, runs["report"].state],
    )
    seconds = time.perf_counter() - clock
    how = "done" if registered.created else "cached"
    log.info("%-13s %-6s %6.1f s", "register", how, seconds)
    return latest.Registering(registered, seconds, peak_memory_mib())


def _publish(report: dict[str, Any], page: Path, run: str, tracking_uri: str) -> None:
    """Show the scores, the report and MLflow's run in Prefect's interface."""
    create_markdown_artifact(
        summary.markdown(report), key="scores", description="Base against LightReasoner."
    )
    create_link_artifact(page.as_uri(), "report.html", key="report")
    address = tracking.run_address(tracking_uri, run)
    if address is not None:
        create_link_artifact(address, "MLflow's run", key="mlflow-run")


def _let_interface_see_lines() -> None:
    """Prefect sends what our loggers let through (PREFECT_LOGGING_EXTRA_LOGGERS in home.py)."""
    for name in ("lightreasoner", "tasks", "flows"):
        logging.getLogger(name).setLevel(logging.INFO)
