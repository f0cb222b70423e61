"""Rounds: the pipeline again from its own tuned model, several times, as one table.

The first round is the pipeline's own run, stage for stage. Each later one has the model of the
round before as its expert. Problems are drawn and the base is graded once; each round has its
report. Nothing is registered. In MLflow each round is a nested run; on the run itself a step is a
round, the base's is 0.

    <home>/rounds/rounds.json    the table as a tree: a round's samples, drift, scores, differences
    <home>/rounds/rounds.md      the table
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.compare import conditions, save_comparison
from flows.forms import naming
from flows.forms.form import RoundsForm
from flows.pipeline import begin, run_stages, tracked
from lightreasoner.experiments import rounds as table
from lightreasoner.experiments.methods import UNTUNABLE
from lightreasoner.experiments.rounds import Entry, Round
from lightreasoner.pipeline.graph import GRAPH, STAGES, Inputs, external_inputs
from lightreasoner.storage.artifacts import Artifact
from tasks.stages import StageRun
from tasks.tracking import measures, mlflow_runs

log = logging.getLogger(__name__)

BASE, SCORE = STAGES["evaluate_base"], STAGES["score"]
CHAIN = tuple(stage for stage in GRAPH if stage is not BASE)


@flow(
    name="lightreasoner-rounds",
    flow_run_name=naming.run_name,
    description="The pipeline again from its own tuned model, round by round: samples, drift and "
    "accuracy of each.",
)
def rounds(params: RoundsForm) -> dict[str, Any]:
    """Run the rounds and return what rounds.json says.

    A later round that selects nothing, or whose model breaks, is the last and has a row that says
    why. Raises whatever else a stage raises.
    """
    home, values = begin(params), params.values()
    inputs = external_inputs(values)
    with tracked(values, inputs) as run:
        found = {
            "later_amateur": params.later_amateur,
            "rounds": run_rounds(params, inputs, home, run),
            **conditions(values),
        }
        save_comparison(found, table.markdown(found), {}, home / "rounds", run)
        headings, *rows = table.table(found)
        create_table_artifact(
            [dict(zip(headings, row, strict=True)) for row in rows],
            key="rounds",
            description="\n\n".join(table.notes(found)),
        )
    return found


def run_rounds(form: RoundsForm, inputs: Inputs, home: Path, run: str) -> list[Entry]:
    """Each round's entry; the last one may only say why there is none."""
    params, shared = form.values(), dict[str, StageRun]()
    base = run_stages((BASE,), inputs, params, home, run, shared=shared)[BASE.name].outcome.artifact
    mlflow_runs.log_numbers(run, measures.of_payload(BASE.name, base.path))
    start, models = {**inputs, BASE.output: base}, [inputs["expert"]]
    entries, made = list[Entry](), list[Round]()
    for place in range(1, form.rounds + 1):
        label = f"round {place}"
        expert, amateur = table.pair(models, inputs["amateur"], form.later_amateur)
        with mlflow_runs.nested_run(run, label, {"kind": "round", "round": str(place)}) as nested:
            walk = partial(run_stages, params=params, home=home, pipeline_run=nested, shared=shared)
            try:
                runs = walk(CHAIN, {**start, "expert": expert, "amateur": amateur}, label=label)
            except UNTUNABLE as error:
                if place == 1:  # an error, as in a run
                    raise
                log.warning("%s: %s", label, error)
                return [*entries, {"missing": str(error)}]
            models.append(_artifact(runs["merge"]))
            start.setdefault("trajectories", _artifact(runs["generate"]))  # the base's own
            moved = walk((SCORE,), {**start, "amateur": models[-1]}, label=f"{label}, drift")
            of_round = runs["report"], runs["evaluate"], moved[SCORE.name]
            made.append(Round(*(_artifact(each).path for each in of_round)))
            entries.append({**_made_of(expert, amateur, runs), **table.entry(made)})
            mlflow_runs.log_report(nested, runs["report"].outcome)
        numbers = {**measures.of_report(made[-1].report), **table.metrics(entries[-1])}
        mlflow_runs.log_numbers(run, numbers, step=place)
    return entries


def _artifact(run: StageRun) -> Artifact:
    return run.outcome.artifact


def _made_of(expert: Artifact, amateur: Artifact, runs: Mapping[str, StageRun]) -> dict[str, Any]:
    """What a round was made of, by digest, and what it made."""
    return {
        "expert": expert.digest,
        "amateur": amateur.digest,
        "model": str(_artifact(runs["merge"]).path),
        "fingerprints": {name: run.outcome.manifest["fingerprint"] for name, run in runs.items()},
    }
