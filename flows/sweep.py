"""The sweep: a model for each alpha and beta of a grid, as one table.

The steps are scored once; every point selects, tunes, merges and evaluates on its own. Nothing is
registered. In MLflow each point is a nested run tagged with what selects its steps.

    <home>/sweep/sweep.json    the table as a tree, as a comparison's
    <home>/sweep/sweep.md      the table
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow

from flows.compare import (
    conditions,
    refuse_if_all_failed,
    show,
    tuned_result,
    under_one_prompt,
)
from flows.forms import naming
from flows.forms.form import SweepForm
from flows.pipeline import begin, run_stages, tracked
from lightreasoner.config import Params
from lightreasoner.experiments import comparison
from lightreasoner.experiments.comparison import Result
from lightreasoner.experiments.methods import UNTUNABLE
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
from tasks.stages import StageRun
from tasks.tracking import measures, mlflow_runs

log = logging.getLogger(__name__)

SHARED = tuple(STAGES[name] for name in ("prepare", "generate", "score"))
CHAIN = (*SHARED, *(STAGES[name] for name in ("select", "finetune", "merge", "evaluate")))
BASE = "base"
NOTE = (
    "p is corrected for the number of sets, not for the number of points: the best point of a grid "
    "owes part of its lead to having been picked, so confirm it with another evaluate.seed."
)


@flow(
    name="lightreasoner-sweep",
    flow_run_name=naming.run_name,
    description="A tuned model for each alpha and beta of a grid, on the same problems, as one "
    "table. The steps are scored once.",
)
def sweep(params: SweepForm) -> dict[str, Any]:
    """Run every point of the grid, and return what sweep.json says.

    A point that selects nothing, or whose model breaks, has a row that says why. Raises
    SelectionError if every point has one, and whatever else a stage raises.
    """
    home = begin(params)
    points = {point_name(point): point for point in map(under_one_prompt, params.points())}
    first = next(iter(points.values()))
    inputs = external_inputs(first)
    with tracked(first, inputs) as run:
        results = run_points(points, inputs, home, run)
        found = {**as_tree(results, points), **conditions(first)}
        show(found, home, "sweep", "sweep", run)
        refuse_if_all_failed(results)
    return found


def point_name(params: Params) -> str:
    """What a point is called: in tables, in names of runs and, with a slash, in MLflow."""
    return " ".join(f"{key} {value}" for key, value in sorted(params.select.rule.items()))


def run_points(
    points: Mapping[str, Params], inputs: Inputs, home: Path, run: str
) -> dict[str, Result | str]:
    """The base's result and each point's, or the reason that a point has none."""
    shared: dict[str, StageRun] = {}
    first = next(iter(points.values()))
    run_stages(SHARED, inputs, first, home, run, shared=shared)
    base = run_stages((STAGES["evaluate_base"],), inputs, first, home, run, shared=shared)
    results: dict[str, Result | str] = {BASE: Result(base["evaluate_base"].outcome.artifact.path)}
    for name, params in points.items():
        results[name] = _run_point(name, params, inputs, home, run, shared)
    return results


def _run_point(
    name: str,
    params: Params,
    inputs: Inputs,
    home: Path,
    sweep_run: str,
    shared: dict[str, StageRun],
) -> Result | str:
    values = params.select.rule
    with mlflow_runs.nested_run(sweep_run, name, values) as run:
        try:
            runs = run_stages(CHAIN, inputs, params, home, run, name, shared)
        except UNTUNABLE as error:
            log.warning("%s: %s", name, error)
            mlflow_runs.log_numbers(run, {}, values)
            return str(error)
        result = tuned_result(runs, "select", params)
        mlflow_runs.log_numbers(run, measures.of_payload("evaluate", result.scores), values)
        return result


def as_tree(results: Mapping[str, Result | str], points: Mapping[str, Params]) -> dict[str, Any]:
    """The grid as a comparison's tree, with each point's rule in its entry."""
    first = next(iter(points.values()))
    found = comparison.compare(results, first, {name: name for name in results})
    for name, params in points.items():
        select = params.select
        found["methods"][name] |= select.model_dump(mode="json", include=set(select.rule))
    return {**found, "notes": [NOTE]}
