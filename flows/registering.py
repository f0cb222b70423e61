"""Registering outside a flow: what `dvc repro` ends with."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows import home
from lightreasoner.artifacts import Artifact
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError
from lightreasoner.stages import GRAPH, STAGES, external_inputs
from lightreasoner.store import Outcome, Store, stage_key
from tasks import registry, tracking


def register(params: Params, model: Artifact, where: Path) -> dict[str, Any]:
    """Register the model of these parameters; name, version and alias of the version it has.

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
    tracking.configure(home.tracking_uri(where), where)
    with tracking.pipeline_run(params, "dvc repro") as run:
        for name, outcome in outcomes.items():
            tracking.replay_stage(run, STAGES[name], outcome, where)
        tracking.log_report(run, outcomes["report"])
        registered = asdict(registry.register(expected, outcomes, params, run))
    return {key: registered[key] for key in ("name", "version", "alias")}


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
