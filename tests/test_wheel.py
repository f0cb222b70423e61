"""The wheel, in an environment of its own and a folder without a checkout.

The environment has the packages of the one that runs the tests, but for those of the extra that it
is to lack, and this project from the wheel alone.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT
from dvc_checkout import DVC, SAME

RINGS = ("lightreasoner", "tasks", "flows")
PIPELINE = ("prefect", "mlflow", "supervisor", "fastapi")
SMALL = {
    "models.expert": "models/expert", "models.amateur": "models/amateur",
    "prepare.source": "problems.csv", "prepare.columns": "{question: problem}",
    "prepare.problem_set": "mine", "prepare.n_problems": "null", "register.name": "mine",
    "evaluate.problem_sets": "[chain_sum]", "evaluate.n_problems": "20",
    "finetune.updates": "3", "merge.parity_prompts": "2",
}  # fmt: skip
"""What docs/project.md changes, and a smaller run."""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder in which nothing else is found."""

    bin: Path
    folder: Path

    def call(self, program: str, *arguments: str, **kept: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, with no variable of this process's but the necessary."""
        own = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.folder), **SAME, **kept}
        own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "2")
        return subprocess.run(
            [program if "/" in program else self.bin / program, *arguments],
            cwd=self.folder,
            env=own,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as a build leaves files behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "prefect.yaml"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__")
    for ring in RINGS:
        shutil.copytree(ROOT / ring, copy / ring, symlinks=True, ignore=ignored)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(copy / "dist"), str(copy))
    (made,) = (copy / "dist").iterdir()
    return made


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run([*command, "--no-deps", "--no-index"], check=True)


def install(wheel: Path, place: Path, without: Collection[str] = ()) -> Installed:
    """A new environment; packages whose names begin as one of `without` are not there."""
    venv.create(place / "venv")
    python = place / "venv" / "bin" / "python"
    pip("--python", str(python), "install", "--no-compile", str(wheel))
    others, absent = place / "others", ("lightreasoner", "__editable__", *without)
    others.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith(absent):
            (others / each.name).symlink_to(each)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(f"{others}\n")
    made = Installed(python.parent, place / "empty")
    made.folder.mkdir()
    found = made.call("python", "-c", "import flows, lightreasoner, tasks; print(*map("
                      "lambda each: each.__file__, (flows, lightreasoner, tasks)))")  # fmt: skip
    assert found.stdout.split() == [str(site / n / "__init__.py") for n in sorted(RINGS)], found
    return made


@pytest.mark.slow
def test_without_the_extra_the_method_works_and_the_console_says_what_is_missing(
    wheel: Path, tmp_path: Path
) -> None:
    base = install(wheel, tmp_path, PIPELINE)
    said = base.call("lightreasoner", "run")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == (
        "error: prefect, mlflow, supervisor: not installed; pip install 'lightreasoner[pipeline]',"
        " or run single stages by `python -m lightreasoner`, which needs none of it\n"
    )
    for command in (("preset", "microworld"), ("power",)):
        done = base.call("python", "-m", "lightreasoner", *command)
        assert done.returncode == 0, done.stderr
    library = (
        "import lightreasoner.sampling.contrast, lightreasoner.sampling.select\n"
        "import lightreasoner.evaluation.evaluate, lightreasoner.report.page\n"
        f"import sys; print({set(PIPELINE)} & set(sys.modules))"
    )
    done = base.call("python", "-c", library)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_a_new_project_runs_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """From `init`, a CSV without answers and two folders of models to the report and the registered
    model; then by DVC, from the same store."""
    installed = install(wheel, tmp_path)
    done = installed.call("lightreasoner", "init", "project")
    assert done.returncode == 0, done.stderr
    project = Installed(installed.bin, installed.folder / "project")
    shutil.copytree(ROOT / "lightreasoner" / "microworld" / "models", project.folder / "models")
    asked = (f"{n},What is {n} + {n % 7 + 2} + {n % 5 + 3}?\n" for n in range(1, 41))
    (project.folder / "problems.csv").write_text("id,problem\n" + "".join(asked))
    overrides = [part for pair in SMALL.items() for part in ("--set", "=".join(pair))]
    done = project.call("lightreasoner", "--quiet", "run", "--json", *overrides)
    assert done.returncode == 0, done.stderr
    assert "records: " not in done.stderr
    assert not any(line.startswith("prepare ") for line in done.stderr.splitlines())
    home = project.folder / ".lightreasoner"
    report = json.loads((home / "latest" / "report.json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == report
    registered = report["registered_model"]
    assert (registered["name"], registered["version"]) == ("mine", "1")
    assert report["scores"]["lightreasoner"]["chain_sum"]["n"] == 20
    assert "<html" in (home / "latest" / "report.html").read_text(encoding="utf-8")
    assert not (installed.folder / ".lightreasoner").exists()
    if DVC.is_file():
        check_dvc(project)


def check_dvc(project: Installed) -> None:
    """`publish` takes the run; `dvc repro` has nothing to do, and a forced stage is cached."""
    dvc = [str(DVC.resolve().parents[2] / ".venv-dvc" / "bin" / "python"), "-m", "dvc"]
    shim = project.bin / "dvc"
    shim.write_text(f'#!/bin/sh\nexec {" ".join(dvc)} "$@"\n')
    shim.chmod(0o755)
    site = str(project.folder.parent / "site-cache")
    for command in (
        ("/usr/bin/env", "git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("lightreasoner", "publish", "--force"),
        ("dvc", "repro"),
        ("dvc", "repro", "--force", "--single-item", "prepare"),
    ):
        done = project.call(*command, DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=site)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command == ("dvc", "repro"):
            assert done.stdout.count("didn't change, skipping") == 10
    assert "prepare: cached" in done.stdout
