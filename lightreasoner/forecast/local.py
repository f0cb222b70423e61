"""What a run starts from, as far as it is here: nothing is fetched, and no weights are read."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightreasoner import derivation, untrusted
from lightreasoner.config import Params
from lightreasoner.data import hub, sources
from lightreasoner.errors import EndpointError, ModelError
from lightreasoner.forecast import shapes
from lightreasoner.forecast.shapes import Shape
from lightreasoner.inference import derived, loading, model_files
from lightreasoner.pipeline.graph import GRAPH
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Inputs

MODELS = ("expert", "amateur")


@dataclass(frozen=True)
class Start:
    """Models and sources; the directories and shapes of the models, None where unknown.

    `models` and `sets` are what would be asked of the hub: models that are not here, and data sets,
    of which only `datasets` knows whether they were fetched before.
    """

    inputs: Inputs
    directories: dict[str, Path | None]
    shapes: dict[str, Shape | None]
    models: tuple[str, ...]
    sets: tuple[str, ...]


def start(params: Params) -> Start:
    """What the parameters name, checked as far as it is here. Raises ModelError, ProblemsError."""
    prepare, evaluate = params.prepare, params.evaluate
    made = derivation.parse(params.models.amateur)
    of_amateur = params.models.expert if made else params.models.amateur
    names = dict(zip(MODELS, (params.models.expert, of_amateur), strict=True))
    models = {role: _model(name) for role, name in names.items()}
    directories = {
        role: found.path if is_here else None for role, (found, is_here) in models.items()
    }
    shaped = {role: shapes.of(name, directories[role]) for role, name in names.items()}
    inputs = {role: found for role, (found, _) in models.items()}
    if made:
        inputs["amateur"] = derived.of(inputs["expert"], made)
        shaped["amateur"] = shapes.derived(shaped["expert"], made)
    sets = [
        *_of_hub(prepare.source, [prepare.problem_set]),
        *_of_hub(evaluate.source, evaluate.problem_sets),
    ]
    return Start(
        {
            **inputs,
            "problem_source": sources.resolve(prepare.source),
            "benchmark_source": sources.resolve(evaluate.source),
        },
        directories,
        shaped,
        tuple(dict.fromkeys(names[role] for role in MODELS if directories[role] is None)),
        tuple(dict.fromkeys(sets)),
    )


def _model(name: str) -> tuple[Artifact, bool]:
    """A model as the store knows it, and whether all of it lies here."""
    if not artifacts.is_pinned(name) or untrusted.is_directory(Path(name)):
        return loading.resolve(name), True
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    with contextlib.suppress(ModelError):
        if isinstance(config, str):
            model_files.check_weights(Path(config).parent)
            return Artifact(Path(config).parent, name), True
    return Artifact(Path(name), name), False


def is_of_hub(source: str) -> bool:
    """Whether problems come from the hub."""
    return source == hub.SOURCE or (
        artifacts.is_pinned(source) and not untrusted.exists(Path(source))
    )


def _of_hub(source: str, sets: Sequence[str]) -> list[str]:
    if not is_of_hub(source):
        return []
    found = [hub.find(source, name) for name in sets]
    return [f"{each.repository}@{each.revision}" for each in found]


def stored(params: Params, inputs: Inputs, store: Store) -> dict[str, Outcome]:
    """The stages of the graph whose results are in the store, by their manifests.

    A stage whose inputs are yet to be made counts as to do, as does one whose key asks for the
    version of a vLLM that is not here.
    """
    known, found = dict(inputs), {}
    for stage in GRAPH:
        if not known.keys() >= set(stage.inputs):
            continue
        with contextlib.suppress(EndpointError):
            if outcome := store.look(stage.name, Job.of(stage, known, params).key):
                found[stage.name], known[stage.output] = outcome, outcome.artifact
    return found
