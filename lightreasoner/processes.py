"""Processes of our own beside a command, each a module of ours in another Python."""

import math
import os
import subprocess
import sys
from pathlib import Path

from lightreasoner import control_groups

PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for work leave the cores to other processes. OpenMP reads it when torch is
imported."""


def usable_cores() -> int:
    """How many cores this process may use, as a container's limit has it."""
    return max(1, math.ceil(min(_visible_cores(), control_groups.cores())))


def threads() -> dict[str, str]:
    """OpenMP's variable where a container may use fewer cores than it sees: a thread for each that
    it sees would stand still most of the time. Read when torch is imported."""
    n = usable_cores()
    return {"OMP_NUM_THREADS": str(n)} if n < _visible_cores() else {}


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(module: str, **variables: str) -> "subprocess.Popen[bytes]":
    """Run a module with pipes to its input and from its output, and these environment variables.

    Modules of the current folder, which may be a stranger's, count only if they do here. In a group
    of its own no Ctrl-C reaches it: who starts it ends it.
    """
    is_safe = {"", str(Path.cwd())}.isdisjoint(sys.path)
    return subprocess.Popen(
        [sys.executable, *["-P"] * is_safe, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | variables,
        process_group=0,
    )
