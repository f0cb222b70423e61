"""The comparison: base, LightReasoner, the baselines and the ablations in one run, one table.

Each method is a chain of cached stages; what two of them share runs once, under the first one's
name. Nothing is registered.

    <home>/compare/compare.json    the table as a tree: scores, differences, costs, conditions
    <home>/compare/compare.md      the table
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.forms import naming
from flows.forms.form import Form
from flows.pipeline import begin, run_stages, tracked
from lightreasoner.config import Params
from lightreasoner.errors import SelectionError
from lightreasoner.experiments import comparison
from lightreasoner.experiments.comparison import Result, Tuning
from lightreasoner.experiments.methods import (
    METHODS,
    NAMES,
    UNTUNABLE,
    Name,
    before_samples,
    checked_inputs,
    named,
    params_of,
    stages_of,
)
from lightreasoner.pipeline.graph import Inputs, resolved
from lightreasoner.storage import artifacts
from lightreasoner.storage.fingerprint import git_commit, package_versions
from tasks.stages import StageRun
from tasks.tracking import mlflow_runs

log = logging.getLogger(__name__)


@flow(
    name="lightreasoner-compare",
    flow_run_name=naming.run_name,
    description="Base, LightReasoner, SFT, ground-truth supervision and the ablations on the same "
    "problems, as one table.",
)
def compare(params: Form, methods: tuple[Name, ...] = NAMES) -> dict[str, Any]:
    """Run the methods, the base always among them, and return what compare.json says.

    A method that selects nothing, or whose model breaks, has a row that says why. Raises
    SelectionError if every tuned method has one, and whatever else a stage raises.
    """
    home, values = begin(params), under_one_prompt(params.values())
    names = named(("base", *methods))
    inputs = checked_inputs(values, names)
    with tracked(values, inputs) as run:
        results = run_methods(names, inputs, values, home, run)
        found = {**comparison.compare(results, values), **conditions(values)}
        show(found, home, "compare", "comparison", run)
        refuse_if_all_failed(results)
    return found


def under_one_prompt(params: Params) -> Params:
    """The same parameters with the tuned expert's prompt for the base as well.

    Else a difference to the base would hold what the prompt changes (`lightreasoner table1`).
    """
    return params.model_copy(update={"evaluate": params.evaluate.of_tuned()})


def conditions(params: Params) -> dict[str, Any]:
    """What the numbers rest on: parameters, commit, device, dtype, package versions."""
    compute = resolved(params.compute)
    return {
        "params": params.model_dump(mode="json"),
        "commit": git_commit(),
        "device": compute.device,
        "dtype": compute.dtype,
        "packages": package_versions(),
    }


def run_methods(
    names: tuple[Name, ...], inputs: Inputs, params: Params, home: Path, run: str
) -> dict[Name, Result | str]:
    """Each method's result, or the reason that it has none."""
    shared: dict[str, StageRun] = {}
    results: dict[Name, Result | str] = {}
    for name in names:
        changed = params_of(name, params)
        run_stages(before_samples(name), inputs, changed, home, run, name, shared)
        try:
            runs = run_stages(stages_of(name), inputs, changed, home, run, name, shared)
        except UNTUNABLE as error:
            log.warning("%s: %s", name, error)
            results[name] = str(error)
        else:
            results[name] = _result(name, runs, changed)
    return results


def _result(name: Name, runs: Mapping[str, StageRun], params: Params) -> Result:
    maker = METHODS[name].maker
    if maker is None:
        return Result(runs["evaluate_base"].outcome.artifact.path)
    return tuned_result(runs, maker, params)


def tuned_result(runs: Mapping[str, StageRun], maker: str, params: Params) -> Result:
    """The result of a chain whose sample set the stage `maker` made."""
    outcomes = {stage: run.outcome for stage, run in runs.items()}
    tuned, samples = outcomes["finetune"], outcomes[maker].artifact.path
    seconds = tuned.manifest["seconds"]
    tuning = Tuning(samples, tuned.artifact.path, params.finetune, seconds)
    return Result(outcomes["evaluate"].artifact.path, tuning)


def show(found: Mapping[str, Any], home: Path, name: str, key: str, run: str) -> None:
    """Write `<home>/<name>/<name>.json` and `.md`, and show the table in Prefect and MLflow.

    `key` is the artifact's in Prefect.
    """
    save_comparison(found, comparison.markdown(found), comparison.metrics(found), home / name, run)
    columns = comparison.headings(found)
    create_table_artifact(
        [dict(zip(columns, row, strict=True)) for row in comparison.method_rows(found, ", ")],
        key=key,
        description="\n\n".join(comparison.notes(found)),
    )


def save_comparison(
    found: Mapping[str, Any], text: str, metrics: dict[str, float], folder: Path, run: str
) -> None:
    """Write a table as a tree and as text, `<folder>/<its name>.json` and `.md`, and to MLflow."""
    files = [folder / f"{folder.name}{suffix}" for suffix in (".json", ".md")]
    artifacts.write_text(files[0], json.dumps(found, indent=1) + "\n")
    artifacts.write_text(files[1], text)
    mlflow_runs.log_comparison(run, metrics, files)


def refuse_if_all_failed(results: Mapping[comparison.Named, Result | str]) -> None:
    """Raise SelectionError if only the base has a result."""
    reasons = {name: result for name, result in results.items() if isinstance(result, str)}
    if reasons and len(reasons) == len(results) - 1:
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SelectionError(f"no method could be tuned: {said}")
