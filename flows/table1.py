"""An expert's row of the paper's Table 1: both models under both prompts, a case of the controls.

A gain under two prompts is taken apart into format and reasoning (evaluation/gains.py). What the
pipeline has made is taken from the store, the two cells that it grades included. Nothing is
registered.

    <home>/table1/table1.json    the table as a tree: cells, gains, conditions
    <home>/table1/table1.md      accuracies and gains by both verdicts, how responses ended
"""

from typing import Any

from prefect import flow

from flows.controls import run_table
from flows.forms import naming
from flows.forms.form import Form
from lightreasoner.experiments import table1 as table


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
    return run_table(params, "table1", table.table1, table.metrics, table.markdown)
