"""A checkout for DVC: the package, params.yaml, dvc.yaml and DVC's configuration, in git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from checkout import ROOT

from lightreasoner import config
from lightreasoner.config import Params

DVC = Path(sys.executable).parent / "dvc"
FILES = ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")
FILES += (".dvc/plots.html",)
SAME = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
AUTHOR = {f"GIT_{who}_{what}": "test@test" for who in ("AUTHOR", "COMMITTER") for what in (
    "NAME", "EMAIL")}  # fmt: skip


def make(checkout: Path, params: Params) -> Path:
    """A new checkout with these parameters, committed; its results come later."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lightreasoner", checkout / "lightreasoner", ignore=ignored)
    (checkout / ".dvc").mkdir()
    for name in FILES:
        shutil.copyfile(ROOT / name, checkout / name)
    (checkout / "params.yaml").write_text(config.dump(params), encoding="utf-8")
    git(checkout, "init", "--quiet", "--initial-branch=main")
    commit(checkout, "start")
    return checkout


def commit(checkout: Path, message: str) -> None:
    """Commit all that git does not ignore."""
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", message)


def git(checkout: Path, *arguments: str) -> str:
    """What git prints; no setting of the user's counts."""
    return call(checkout, "git", *arguments)


def dvc(checkout: Path, *arguments: str) -> str:
    """What DVC prints, with the checkout's own home and the code of this tree."""
    return call(checkout, str(DVC), *arguments)


def environment(checkout: Path) -> dict[str, str]:
    """The environment of a checkout of its own."""
    home = checkout / ".lightreasoner"
    own = {
        "LIGHTREASONER_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc" / "site"),
        "PYTHONPATH": str(ROOT),
    }
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, **SAME, **AUTHOR, **own}


def call(checkout: Path, *command: str) -> str:
    """What a program prints; its complaint is the assertion's."""
    done = subprocess.run(
        command, cwd=checkout, env=environment(checkout), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
