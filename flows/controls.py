"""Elicitation controls: base and tuned model under every cell of {style} x {shots} x {tokens}.

The cells of the run's own parameters are always among them; `table1` is the grid without any
others. What is left of the gain: experiments/controls.py. What the pipeline has made is taken from
the store. A smaller limit of tokens is evaluated anew: the store keeps texts, whose tokens could
only be guessed. Nothing is registered.

    <home>/controls/controls.json    the table as a tree: cells, gains, what is left, conditions
    <home>/controls/controls.md      the same as tables
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.compare import conditions, save_comparison
from flows.forms import naming
from flows.forms.form import ControlsForm, Settings
from flows.pipeline import begin, run_stages, tracked
from lightreasoner import presets
from lightreasoner.config import Params
from lightreasoner.evaluation import evaluate
from lightreasoner.evaluation.gains import Asked, Cell, reported
from lightreasoner.experiments import controls as table
from lightreasoner.experiments.table1 import asked_title, named
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
from tasks.stages import StageRun

TUNING = tuple(
    STAGES[name] for name in ("prepare", "generate", "score", "select", "finetune", "merge")
)
GRADING = STAGES["evaluate_base"], STAGES["evaluate"]


@flow(
    name="lightreasoner-controls",
    flow_run_name=naming.run_name,
    description="Base and tuned model under several prompts, worked examples and limits of tokens: "
    "what of the gain the base could have had by being asked better.",
)
def controls(params: ControlsForm) -> dict[str, Any]:
    """Run the pipeline up to every cell of the grid and return what controls.json says.

    Raises what the first stage that fails raises, ModelError and ProblemsError before any runs.
    """
    return run_table(params, "controls", table.controls, table.metrics, table.markdown)


def run_table(
    form: Settings,
    name: str,
    make: Callable[..., dict[str, Any]],
    metrics: Callable[[Any], dict[str, float]],
    markdown: Callable[[Any], str],
) -> dict[str, Any]:
    """Run a form's cells, and keep the table that `make` makes of them in `<home>/<name>`."""
    home, values = begin(form), form.values()
    start, tuned = reported(values.evaluate)
    grid = form.grid() if isinstance(form, ControlsForm) else list(dict.fromkeys((start, tuned)))
    inputs = external_inputs(values)
    check(grid, inputs, values)
    with tracked(values, inputs) as run:
        scores = run_cells(grid, inputs, values, home, run)
        expert = presets.of_expert(values.models.expert)
        found = {**make(scores, start, tuned, expert), **conditions(values)}
        text = markdown(found)
        save_comparison(found, text, metrics(found), home / name, run)
        create_markdown_artifact(text, key=name, description=f"{name}: cells, gains, notes.")
    return found


def under(params: Params, asked: Asked) -> Params:
    """The same parameters with both models asked so."""
    changed = {name: value for name, value in asked._asdict().items() if value is not None}
    section = params.evaluate.model_copy(update={**changed, "base_style": None})
    return params.model_copy(update={"evaluate": section})


def check(grid: Sequence[Asked], inputs: Inputs, params: Params) -> None:
    """Refuse, before anything runs, examples that there are not and prompts that leave no room."""
    expert = inputs["expert"].path
    tokenizer, context = loading.load_tokenizer(expert), loading.context_length(expert)
    # The largest limit of tokens leaves the least room.
    ways = sorted(grid, key=lambda asked: under(params, asked).evaluate.max_new_tokens)
    for section in (
        under(params, asked).evaluate for asked in {each[:2]: each for each in ways}.values()
    ):
        evaluate.read_questions(section, tokenizer, context)


def run_cells(
    grid: Sequence[Asked], inputs: Inputs, params: Params, home: Path, run: str
) -> dict[Cell, Path]:
    """The scores of both models asked in each way."""
    shared: dict[str, StageRun] = {}
    run_stages(TUNING, inputs, params, home, run, shared=shared)
    cells: dict[Cell, Path] = {}
    for asked in grid:
        # The tuning is in `shared`: it runs no more, and the grading waits for it.
        chain, changed = (*TUNING, *GRADING), under(params, asked)
        label = asked_title(named(("base", asked)))
        runs = run_stages(chain, inputs, changed, home, run, label, shared)
        cells["base", asked] = runs["evaluate_base"].outcome.artifact.path
        cells["tuned", asked] = runs["evaluate"].outcome.artifact.path
    return cells
