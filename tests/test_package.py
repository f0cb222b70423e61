"""What an installation without the checkout has: all that the packages read lies in its wheel."""

import tomllib

from checkout import ROOT

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


def test_package_data_is_of_packages() -> None:
    """setuptools passes over what is named after a module."""
    for package in DATA:
        assert (ROOT.joinpath(*package.split(".")) / "__init__.py").is_file(), package
