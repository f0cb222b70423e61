"""The import contracts of pyproject.toml hold, and each of them can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    ("package", "line", "broken"),
    [
        ("lightreasoner", "import tasks", "flows -> tasks -> lightreasoner"),
        ("lightreasoner", "import flows", "flows -> tasks -> lightreasoner"),
        ("tasks", "import flows", "flows -> tasks -> lightreasoner"),
        ("lightreasoner", "import prefect", "lightreasoner runs without"),
        ("lightreasoner", "import mlflow.models", "lightreasoner runs without"),
        ("lightreasoner", "import dvc.api", "lightreasoner runs without"),
        ("tasks", "import dvc.api", "DVC is called as a program"),
        ("flows", "import dvc.api", "DVC is called as a program"),
        ("flows", "def f():\n    from mlflow import log_metric", "only tasks talks to MLflow"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    checkout: Path, package: str, line: str, broken: str
) -> None:
    culprit = checkout / package / "culprit.py"
    culprit.write_text(line + "\n")
    try:
        done = lint_imports(checkout)
    finally:
        culprit.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    (verdict,) = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert verdict.startswith(broken)
    assert "1 broken" in done.stdout
