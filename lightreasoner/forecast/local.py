"""What a run starts from, as far as it is here: nothing is fetched, and no weights are read."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lightreasoner.config import Params
from lightreasoner.data import hub, sources
from lightreasoner.errors import ModelError
from lightreasoner.forecast import shapes
from lightreasoner.forecast.shapes import Shape
from lightreasoner.inference import loading, model_files
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
    names = dict(zip(MODELS, (params.models.expert, params.models.amateur), strict=True))
    directories = {role: _directory(name) for role, name in names.items()}
    prepare, evaluate = params.prepare, params.evaluate
    return Start(
        {
            **{role: _artifact(names[role], directories[role]) for role in MODELS},
            "problem_source": sources.resolve(prepare.source),
            "benchmark_source": sources.resolve(evaluate.source),
        },
        directories,
        {role: shapes.of(name, directories[role]) for role, name in names.items()},
        tuple(dict.fromkeys(names[role] for role in MODELS if directories[role] is None)),
        tuple(
            dict.fromkeys(
                [
                    *_of_hub(prepare.source, [prepare.problem_set]),
                    *_of_hub(evaluate.source, evaluate.problem_sets),
                ]
            )
        ),
    )


def _directory(name: str) -> Path | None:
    """Where a model lies; None for one of the hub that was not fetched whole."""
    if not artifacts.is_pinned(name) or Path(name).is_dir():
        return loading.resolve(name).path
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    with contextlib.suppress(ModelError):
        if isinstance(config, str):
            model_files.check_weights(Path(config).parent)
            return Path(config).parent
    return None


def _artifact(name: str, directory: Path | None) -> Artifact:
    if artifacts.is_pinned(name) and not Path(name).is_dir():
        return Artifact(directory or Path(name), name)
    return loading.resolve(name)


def is_of_hub(source: str) -> bool:
    """Whether problems come from the hub."""
    return source == hub.SOURCE or (artifacts.is_pinned(source) and not Path(source).exists())


def _of_hub(source: str, sets: list[str] | tuple[str, ...]) -> list[str]:
    if not is_of_hub(source):
        return []
    found = [hub.find(source, name) for name in sets]
    return [f"{each.repository}@{each.revision}" for each in found]


def stored(params: Params, inputs: Inputs, store: Store) -> dict[str, Outcome]:
    """The stages of the graph whose results are in the store, by their manifests.

    A stage whose inputs are yet to be made counts as to do.
    """
    known, found = dict(inputs), {}
    for stage in GRAPH:
        if known.keys() >= set(stage.inputs):
            outcome = store.look(stage.name, Job.of(stage, known, params).key)
            if outcome:
                found[stage.name], known[stage.output] = outcome, outcome.artifact
    return found
