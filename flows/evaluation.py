"""The evaluation of any model: a version of the registry, a directory, a model of the hub.

The stage `evaluate` grades it through the store, so that what a pipeline has evaluated with the
same settings is there already.
"""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.compare import conditions
from flows.forms import naming
from flows.forms.form import EvaluationForm
from flows.pipeline import begin, run_stages, tracked
from lightreasoner import formatting
from lightreasoner.pipeline.graph import STAGES, external_inputs
from lightreasoner.storage.payload import read_json
from tasks.registry import lookup
from tasks.tracking import measures, mlflow_runs

EVALUATE = STAGES["evaluate"]


@flow(
    name="lightreasoner-evaluation",
    flow_run_name=naming.run_name,
    description="Grade a model of the registry, of the hub or of this machine on problem sets.",
)
def evaluation(params: EvaluationForm) -> dict[str, Any]:
    """Grade the model; returns `model`, its `digest`, `scores` per set and the conditions.

    Raises ModelError and ProblemsError before anything runs, and what the stage raises.
    """
    home, values = begin(params), params.values()
    inputs = external_inputs(values, ("benchmark_source",))
    inputs["model"] = lookup.resolve(params.model, home)
    with tracked(values, inputs) as run:
        runs = run_stages((EVALUATE,), inputs, values, home, run)
        scores = runs["evaluate"].outcome.artifact.path
        found = {
            "model": params.model,
            "digest": inputs["model"].digest,
            "scores": read_json(scores / "summary.json"),
            **conditions(values),
        }
        said = {"model": params.model, "digest": found["digest"]}
        mlflow_runs.log_numbers(run, measures.of_payload("evaluate", scores), said)
        _show(found)
    return found


def _show(found: dict[str, Any]) -> None:
    """Show the table in Prefect's interface."""
    create_table_artifact(
        [
            dict(zip(formatting.EVALUATION_HEADINGS, row, strict=True))
            for row in formatting.evaluation_rows(found["scores"])
        ],
        key="evaluation",
        description=f"{found['model']} (digest {found['digest']}): pass@1 by both verdicts with "
        "95% intervals (Wilson's; the bootstrap's where a problem has several responses), and how "
        "responses ended. n counts problems.",
    )
