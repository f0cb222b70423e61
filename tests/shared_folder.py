"""What is made once a test run, whichever of its processes needs it first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def of_run(own: Path) -> Path:
    """The folder that all processes of a test run see; `own` is this one's (getbasetemp)."""
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, which `make` has filled: here, or in another process, which is waited for."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            shutil.rmtree(part, ignore_errors=True)  # of a process that died here
            part.mkdir()
            make(part)
            part.rename(path)
    return path
