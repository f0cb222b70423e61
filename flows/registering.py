"""Registering outside a flow: what `dvc repro` ends with."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flows.servers import local
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import GRAPH, STAGES, Inputs, external_inputs
from lightreasoner.pipeline.store import Outcome, Store, stage_key
from lightreasoner.progress import TerminalBar
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import gate, versions
from tasks.tracking import mlflow_runs


def register(params: Params, model: Artifact, where: Path) -> dict[str, Any]:
    """Register the model of these parameters; its version's name, number and alias, and the gate.

    Everything is looked up in the store under `where`. Raises ArtifactError if a result is not
    there or `model` is not the model of these parameters.
    """
    outcomes = stored_outcomes(params, where)
    expected = outcomes["merge"].artifact
    if model.digest != expected.digest:
        raise ArtifactError(
            f"{model.path}: has digest {model.digest}, but the model of these parameters has "
            f"{expected.digest}; run `dvc repro` first"
        )
    local.track(where)
    with mlflow_runs.pipeline_run(params, "dvc repro") as run:
        for name, outcome in outcomes.items():
            mlflow_runs.replay_stage(run, STAGES[name], outcome, where)
        mlflow_runs.log_report(run, outcomes["report"])
        registered = versions.register(expected, outcomes, params, run)
        source = external_inputs(params, ["benchmark_source"])["benchmark_source"]
        evaluate = partial(_evaluate_champion, params, where, run)
        gated = gate.run(registered, outcomes, params, source, where, evaluate)
    known = asdict(registered)
    return {key: known[key] for key in ("name", "version", "alias")} | {"gate": gated.as_tree()}


def _evaluate_champion(params: Params, where: Path, run: str, inputs: Inputs) -> Outcome:
    """Grade the champion on the same problems; its scores go to the store, as all do."""
    stage = STAGES["evaluate"]
    with TerminalBar("evaluate (champion)") as bar:
        outcome = Store(where).run(stage, inputs, params, bar)
    mlflow_runs.replay_stage(run, stage, outcome, where, "champion")
    return outcome


def stored_outcomes(params: Params, where: Path) -> dict[str, Outcome]:
    """The outcome of every stage for these parameters, from the store. Raises ArtifactError."""
    store, inputs = Store(where), external_inputs(params)
    outcomes: dict[str, Outcome] = {}
    for stage in GRAPH:
        found = store.find(stage, stage_key(stage, inputs, params))
        if found is None:
            raise ArtifactError(
                f"{where}: no result of {stage.name} for these parameters; run `dvc repro` first"
            )
        outcomes[stage.name] = found
        inputs[stage.output] = found.artifact
    return outcomes
