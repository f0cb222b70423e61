"""Shell completion of option values, without torch or Prefect, in a fraction of a second."""

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from lightreasoner import config
from lightreasoner.config import PromptStyle


def presets(incomplete: str) -> list[str]:
    """The presets' names."""
    from lightreasoner.presets import NAMES

    return _beginning(NAMES, incomplete)


def styles(incomplete: str) -> list[str]:
    """The prompt styles."""
    return _beginning(get_args(PromptStyle), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """The problem sets known by name; after a comma, the next one."""
    from lightreasoner.data.hub import SETS
    from lightreasoner.presets import PRESETS

    known = (*SETS, *PRESETS["microworld"].evaluate.problem_sets)
    return _listed(known, incomplete)


def methods(incomplete: str) -> list[str]:
    """The methods of `compare`; after a comma, the next one."""
    from lightreasoner.experiments.methods import NAMES

    return _listed(NAMES, incomplete)


def parameters(incomplete: str) -> list[str]:
    """`section.key=`, and after it the values of a parameter that has only a few."""
    name, is_named, _ = incomplete.partition("=")
    if not is_named:
        return _beginning([f"{each}=" for each in config.fields()], incomplete)
    known = config.fields().get(name)
    values = _values(known.annotation) if known else []
    return _beginning([f"{name}={value}" for value in values], incomplete)


def _values(kind: Any) -> list[str]:
    """The values of a choice or a switch."""
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
