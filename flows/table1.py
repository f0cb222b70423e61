"""An expert's row of the paper's Table 1: the pipeline, then both models under both prompts.

A gain under two prompts is taken apart into format and reasoning (evaluation/gains.py). What the
pipeline has made is taken from the store, the two cells that it grades included. Nothing is
registered.

    <home>/table1/table1.json    the table as a tree: cells, gains, conditions
    <home>/table1/table1.md      accuracies and gains by both verdicts, how responses ended
"""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.compare import conditions, save_comparison
from flows.forms import naming
from flows.forms.form import Form
from flows.pipeline import begin, run_stages
from lightreasoner import presets
from lightreasoner.config import Params
from lightreasoner.evaluation.gains import Cell
from lightreasoner.experiments import table1 as table
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
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
    home, values = begin(params), params.values()
    inputs = external_inputs(values)
    with mlflow_runs.pipeline_run(values, naming.name_here(), "table1") as run:
        scores = run_cells(inputs, values, home, run)
        expert = presets.of_expert(values.models.expert)
        found = {**table.table1(scores, *styles(values), expert), **conditions(values)}
        text = table.markdown(found)
        save_comparison(found, text, table.metrics(found), home / "table1", run)
        create_markdown_artifact(text, key="table1", description="An expert's row of Table 1.")
    return found


def styles(params: Params) -> tuple[str, str]:
    """The base's prompt style and the tuned expert's."""
    return params.evaluate.of_base().style, params.evaluate.of_tuned().style


def under_style(params: Params, style: str) -> Params:
    """The same parameters with one prompt style for both models."""
    evaluate = params.evaluate.model_copy(update={"style": style, "base_style": None})
    return params.model_copy(update={"evaluate": evaluate})


def run_cells(inputs: Inputs, params: Params, home: Path, run: str) -> dict[Cell, Path]:
    """The scores of both models under each style; one style gives two cells, two give four."""
    shared: dict[str, StageRun] = {}
    run_stages(TUNING, inputs, params, home, run, shared=shared)
    cells: dict[Cell, Path] = {}
    for style in dict.fromkeys(styles(params)):
        # The tuning is in `shared`: it runs no more, and the grading waits for it.
        chain, changed = (*TUNING, *GRADING), under_style(params, style)
        runs = run_stages(chain, inputs, changed, home, run, style, shared)
        cells["base", style] = runs["evaluate_base"].outcome.artifact.path
        cells["tuned", style] = runs["evaluate"].outcome.artifact.path
    return cells
