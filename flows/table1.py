"""An expert's row of the paper's Table 1: the pipeline, then both models under both prompts.

A gain under two prompts is taken apart into format and reasoning (evaluation/gains.py). What the
pipeline has made is taken from the store, the two cells that it grades included. Nothing is
registered.

    <home>/table1/table1.json    the table as a tree: cells, gains, conditions
    <home>/table1/table1.md      accuracies and gains by both verdicts, how responses ended
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from flows import environment
from flows.compare import conditions
from flows.forms import naming
from flows.forms.form import Form
from flows.pipeline import let_interface_see_lines, run_stages
from flows.servers import local
from lightreasoner import presets
from lightreasoner.config import Params
from lightreasoner.evaluation.gains import Cell
from lightreasoner.experiments import table1 as table
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
from lightreasoner.storage import artifacts
from tasks.stages import StageRun
from tasks.tracking import mlflow_runs

TUNING = tuple(
    STAGES[name] for name in ("prepare", "generate", "score", "select", "finetune", "merge")
)
GRADING = STAGES["evaluate_base"], STAGES["evaluate"]


@flow(
    name="lightreasoner-table1",
    flow_run_name=naming.run_name,
    description="The expert before and after tuning, each under both prompts: what of the gain is "
    "reasoning, and what is the prompt.",
)
def table1(params: Form) -> dict[str, Any]:
    """Run the pipeline up to the cells of the table and return what table1.json says.

    Raises what the first stage that fails raises, ModelError and ProblemsError before any runs.
    """
    let_interface_see_lines()
    naming.tag(params)
    where, values = environment.home(), params.values()
    inputs = external_inputs(values)
    local.track(where)
    run_name = flow_run.name or "lightreasoner-table1"
    with mlflow_runs.pipeline_run(values, run_name, kind="table1") as run:
        scores = run_cells(inputs, values, where, run)
        expert = presets.of_expert(values.models.expert)
        found = {**table.table1(scores, *styles(values), expert), **conditions(values)}
        _publish(found, where, run)
    return found


def styles(params: Params) -> tuple[str, str]:
    """The base's prompt style and the tuned expert's."""
    return params.evaluate.of_base().style, params.evaluate.of_tuned().style


def under_style(params: Params, style: str) -> Params:
    """The same parameters with one prompt style for both models."""
    evaluate = params.evaluate.model_copy(update={"style": style, "base_style": None})
    return params.model_copy(update={"evaluate": evaluate})


def run_cells(inputs: Inputs, params: Params, where: Path, run: str) -> dict[Cell, Path]:
    """The scores of both models under each style; one style gives two cells, two give four."""
    shared: dict[str, StageRun] = {}
    run_stages(TUNING, inputs, params, where, run, shared=shared)
    cells: dict[Cell, Path] = {}
    for style in dict.fromkeys(styles(params)):
        # The tuning is in `shared`: it runs no more, and the grading waits for it.
        chain, changed = (*TUNING, *GRADING), under_style(params, style)
        runs = run_stages(chain, inputs, changed, where, run, style, shared)
        cells["base", style] = runs["evaluate_base"].outcome.artifact.path
        cells["tuned", style] = runs["evaluate"].outcome.artifact.path
    return cells


def _publish(found: Mapping[str, Any], where: Path, run: str) -> None:
    """Write both files, and show the table in Prefect's and MLflow's interfaces."""
    folder, text = where / "table1", table.markdown(found)
    files = [folder / "table1.json", folder / "table1.md"]
    artifacts.write_text(files[0], json.dumps(found, indent=1) + "\n")
    artifacts.write_text(files[1], text)
    create_markdown_artifact(text, key="table1", description="An expert's row of Table 1.")
    mlflow_runs.log_comparison(run, table.metrics(found), files)
