"""What an installation without the checkout has: all that the packages read and import."""

import ast
import functools
import importlib.metadata
import sys
import tomllib
from collections.abc import Collection, Iterable

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DATA = PYPROJECT["tool"]["setuptools"]["package-data"]


def test_every_file_beside_the_code_is_package_data() -> None:
    beside = {
        path
        for ring in ("lightreasoner", "tasks", "flows")
        for path in (ROOT / ring).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    named = {
        path
        for package, patterns in DATA.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert {path.relative_to(ROOT).as_posix() for path in beside - named} == set()


def brought(requirements: Iterable[str]) -> set[str]:
    """The names of these packages and of all that they ask for."""
    found: set[str] = set()
    queue = list(map(Requirement, requirements))
    seen: set[tuple[str, str]] = set()
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                asked = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:  # of another platform or Python
                continue
            found.add(name)
            more = map(Requirement, asked)
            queue += [r for r in more if not r.marker or r.marker.evaluate({"extra": extra})]
    return found


packages = functools.cache(importlib.metadata.packages_distributions)


def imported(rings: Iterable[str]) -> set[str]:
    """What files of these rings import from outside, by top name."""
    names: set[str] = set()
    for path in (path for ring in rings for path in (ROOT / ring).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"lightreasoner", "tasks", "flows"}


@pytest.mark.parametrize(
    ("rings", "extras"),
    [
        (("lightreasoner",), ("ray",)),
        (("lightreasoner", "tasks", "flows"), ("ray", "pipeline")),
    ],
    ids=["the pure ring", "all rings"],
)
def test_what_is_imported_is_asked_for(rings: Collection[str], extras: Collection[str]) -> None:
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *(
        each for extra in extras for each in project["optional-dependencies"][extra])]  # fmt: skip
    there, owners = brought(asked), packages()
    missing = {
        name for name in imported(rings)
        if not there & set(map(canonicalize_name, owners.get(name, ())))
    }  # fmt: skip
    assert missing == set()
    assert "prefect" not in brought(project["dependencies"])


def test_package_data_is_of_packages() -> None:
    """setuptools passes over what is named after a module."""
    for package in DATA:
        assert (ROOT.joinpath(*package.split(".")) / "__init__.py").is_file(), package
