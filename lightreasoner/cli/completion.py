"""What a shell may complete: values of options, without torch or Prefect, in a part of a second."""

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from lightreasoner.config import Params, PromptStyle


def presets(incomplete: str) -> list[str]:
    """The presets' names."""
    from lightreasoner.presets import NAMES

    return _beginning(NAMES, incomplete)


def styles(incomplete: str) -> list[str]:
    """The prompt styles."""
    return _beginning(get_args(PromptStyle), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """The sets of problems that are known by name; after a comma the next one."""
    from lightreasoner.data.hub import SETS
    from lightreasoner.presets import PRESETS

    known = (*SETS, *PRESETS["microworld"].evaluate.problem_sets)
    return _listed(known, incomplete)


def methods(incomplete: str) -> list[str]:
    """The methods that `compare` knows; after a comma the next one."""
    from lightreasoner.experiments.methods import NAMES

    return _listed(NAMES, incomplete)


def parameters(incomplete: str) -> list[str]:
    """`section.key=`, and after it the values of a parameter that has few."""
    name, is_named, _ = incomplete.partition("=")
    if not is_named:
        return _beginning([f"{each}=" for each in _fields()], incomplete)
    values = _values(_fields().get(name))
    return _beginning([f"{name}={value}" for value in values], incomplete)


def _fields() -> dict[str, Any]:
    """The type of every parameter, by `section.key`."""
    return {
        f"{section}.{key}": field.annotation
        for section, part in Params.model_fields.items()
        for key, field in getattr(part.annotation, "model_fields", {}).items()
    }


def _values(kind: Any) -> list[str]:
    """What a choice or a switch can be."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [value for part in get_args(kind) for value in _values(part)]


def _listed(known: Iterable[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(known, last) if name not in taken]


def _beginning(known: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]
