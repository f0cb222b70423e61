"""DVC, called as a program, and git beside it; neither is imported.

DVC is that of `make setup` (.venv/bin/dvc), else the one on PATH: it cannot be installed beside the
official verdict's packages, and has an environment of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from lightreasoner.errors import LightReasonerError

SHELLS = ("sh", "dash", "bash", "zsh", "ksh", "fish")


class DvcError(LightReasonerError):
    """DVC is not there, is busy, or fails."""


def dvc(checkout: Path, *arguments: str) -> str:
    """What `dvc ...` prints. Raises DvcError with the last line of its complaint."""
    done = _run([_program(), *arguments], checkout)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        complaint = next((line for line in said if line.startswith("ERROR: ")), "")
        reason = complaint.removeprefix("ERROR: ") or (said[-1] if said else "it printed nothing")
        raise DvcError(f"dvc {arguments[0]} failed: {reason}")
    return done.stdout


def git(checkout: Path, *arguments: str) -> str | None:
    """What `git ...` prints; None if it fails, or is not there."""
    try:
        done = _run(["git", *arguments], checkout)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout


def end_with_dvc() -> None:
    """Let this process, a stage's, end in order when the DVC that started it was killed.

    Otherwise it goes on alone, for hours; its shards are kept, and the next `dvc repro` goes on.
    """
    above = [each for each in psutil.Process().parents() if each.name() not in SHELLS]
    if not above:  # a shell alone, with a variable of DVC's
        return

    def watch() -> None:
        while above[0].is_running():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with DVC", daemon=True).start()


def refuse_busy(checkout: Path) -> None:
    """Raise DvcError while a process that lives holds part of DVC's workspace (`dvc repro`)."""
    for holder in _holders(checkout / ".dvc" / "tmp" / "rwlock"):
        if psutil.pid_exists(holder["pid"]):
            raise DvcError(
                f"{checkout}: DVC is busy: `{holder['cmd']}` (process {holder['pid']}) works "
                "there; wait for its end, or stop it"
            )


def _holders(file: Path) -> list[dict[str, object]]:
    """The processes in DVC's list of locks: one writer per path, or several readers."""
    try:
        locks = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = []
    for lock in locks.values():
        writer = [lock["write"]] if lock.get("write") else []
        found += [*writer, *lock.get("read", [])]
    return found


def _program() -> str:
    beside = Path(sys.executable).parent / "dvc"
    found = str(beside) if beside.is_file() else shutil.which("dvc")
    if found is None:
        raise DvcError(
            f"{beside}: DVC is neither there nor on PATH; `make setup` installs it in a checkout, "
            "`pipx install dvc` elsewhere"
        )
    return found


def _run(command: list[str], checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
