"""The import contracts of pyproject.toml hold, and each of them can fail."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

PACKAGES = ("lightreasoner", "tasks", "flows")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the contracts and of the sources, for breaking."""
    copy = tmp_path_factory.mktemp("contracts") / "checkout"
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*.py"):
            target = copy / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    # The current folder comes first on sys.path with -m: the copy is linted, not the checkout.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=checkout, capture_output=True, text=True
    )


def test_the_contracts_hold(checkout: Path) -> None:
    done = lint_imports(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("folder", "line", "broken"),
    [
        ("lightreasoner/data", "import tasks", "flows -> tasks -> lightreasoner"),
        ("lightreasoner/data", "import flows", "flows -> tasks -> lightreasoner"),
        ("tasks/registry", "import flows", "flows -> tasks -> lightreasoner"),
        ("lightreasoner/data", "import prefect", "lightreasoner runs without"),
        ("lightreasoner/data", "import mlflow.models", "lightreasoner runs without"),
        ("lightreasoner/data", "import dvc.api", "lightreasoner runs without"),
        ("tasks/registry", "import dvc.api", "DVC is called as a program"),
        ("flows/dvc", "import dvc.api", "DVC is called as a program"),
        ("flows/dvc", "def f():\n    from mlflow import log_metric", "only tasks talks to MLflow"),
        ("lightreasoner/data", "from lightreasoner import cli", "the wings of lightreasoner"),
        ("lightreasoner/qwen_math", "import lightreasoner.data", "the wings of lightreasoner"),
        ("lightreasoner/sampling", "import lightreasoner.evaluation", "the wings of lightreasoner"),
        ("lightreasoner/evaluation", "import lightreasoner.report.page", "the wings of lightreas"),
        ("tasks/tracking", "import tasks.registry.gate", "the wings of tasks"),
        ("flows/results", "import flows.dvc.publish", "the wings of flows"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    checkout: Path, folder: str, line: str, broken: str
) -> None:
    culprit = checkout / folder / "culprit.py"
    culprit.write_text(line + "\n")
    try:
        done = lint_imports(checkout)
    finally:
        culprit.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    (verdict,) = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert verdict.startswith(broken)
    assert "1 broken" in done.stdout


@pytest.mark.parametrize("ring", PACKAGES)
def test_a_module_outside_the_wings_is_noticed(checkout: Path, ring: str) -> None:
    culprit = checkout / ring / "culprit.py"
    culprit.write_text("")
    try:
        done = lint_imports(checkout)
    finally:
        culprit.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    (verdict,) = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert verdict.startswith(f"the wings of {ring}")


def test_packages_hold_a_docstring_only() -> None:
    """Fingerprints follow modules: what a package ran at its import would be in each of them."""
    for ring in PACKAGES:
        for file in (ROOT / ring).rglob("__init__.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), file
            assert len(tree.body) == 1, file
