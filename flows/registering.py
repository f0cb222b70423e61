"""Registering outside a flow: what `dvc repro` ends with."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flows.servers import local
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import GRAPH, STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.progress import TerminalBar
from lightreasoner.storage import in_use
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import card, gate, versions
from tasks.tracking import mlflow_runs

AGAIN = "`dvc repro -f`"
"""Without -f DVC goes by its lock, which may come from another machine's store."""


def register_stored(params: Params, model: Artifact, home: Path) -> dict[str, Any]:
    """Register the model of these parameters; its version's name, number and alias, and the gate.

    Everything is looked up in the store under `home`. Raises ArtifactError if a result is not
    there or `model` is not the model of these parameters.
    """
    outcomes = stored_outcomes(params, home)
    expected = outcomes["merge"].artifact
    if model.digest != expected.digest:
        raise ArtifactError(
            f"{model.path}: has digest {model.digest}, but the model of these parameters has "
            f"{expected.digest}; run {AGAIN} first"
        )
    local.track(home)
    inputs = external_inputs(params)
    with mlflow_runs.pipeline_run(params, "dvc repro") as run:
        mlflow_runs.log_data(run, params, inputs)
        for name, outcome in outcomes.items():
            mlflow_runs.replay_stage(run, STAGES[name], outcome, home)
        facts = card.facts(outcomes, params, mlflow_runs.named(run))
        mlflow_runs.log_report(run, outcomes["report"], facts)
        registered = versions.register_version(expected, outcomes, params, run)
        evaluate = partial(_evaluate_champion, home, run)
        gated = gate.run(registered, outcomes, params, inputs["benchmark_source"], home, evaluate)
    known = asdict(registered)
    return {key: known[key] for key in ("name", "version", "alias")} | {"gate": gated.as_tree()}


def _evaluate_champion(home: Path, run: str, job: Job) -> Outcome:
    """Grade the champion on the same problems; its scores go to the store, as all do."""
    with TerminalBar("evaluate (champion)") as bar:
        outcome = Store(home).run(job, bar)
    mlflow_runs.replay_stage(run, job.stage, outcome, home, "champion")
    return outcome


def stored_outcomes(params: Params, home: Path) -> dict[str, Outcome]:
    """The outcome of every stage for these parameters, from the store. Raises ArtifactError."""
    in_use.hold(home)
    store, outcomes = Store(home), dict[str, Outcome]()

    def look_up(stage: Stage, inputs: Inputs) -> Artifact:
        found = store.find(Job.of(stage, inputs, params))
        if found is None:
            raise ArtifactError(
                f"{home}: no result of {stage.name} for these parameters, by this code; "
                f"run {AGAIN} first"
            )
        outcomes[stage.name] = found
        return found.artifact

    walk(GRAPH, external_inputs(params), look_up)
    return outcomes
