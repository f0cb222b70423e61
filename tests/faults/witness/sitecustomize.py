"""In every Python process that finds this folder on PYTHONPATH: tell of changes to files, or end.

FAULTS_WITNESS is a file that gets a line `change path` before each change of a file or folder
under FAULTS_UNDER. FAULTS_KILL_AT is the number of the change at which the process kills itself,
FAULTS_CLOCK the seconds by which its clock is set forward.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count

CHANGES = {
    "open": 0, "os.rename": 1, "os.mkdir": 0, "os.link": 1, "os.remove": 0, "os.rmdir": 0,
    "os.chmod": 0,
}  # fmt: skip
"""What changes the disk, and which of its arguments is the path."""


def watch(log: str, under: str, kill_at: int) -> None:
    """Tell from now on; a process's own number of changes begins at 1."""
    file, number = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), count(1)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES or not isinstance(arguments[CHANGES[event]], str | os.PathLike):
            return
        if event == "open" and (
            not isinstance(arguments[1], str) or not set("wax+") & set(arguments[1])
        ):
            return
        path = os.path.abspath(os.fspath(arguments[CHANGES[event]]))  # noqa: PTH100
        if path.startswith(under):
            os.write(file, f"{event} {path}\n".encode())
            if next(number) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


def set_clock(seconds: int, now: Callable[[], float] = time.time) -> None:
    """Let `time` say another time."""
    time.time = lambda: now() + seconds
    time.time_ns = lambda: int((now() + seconds) * 1e9)


if "FAULTS_CLOCK" in os.environ:
    set_clock(int(os.environ["FAULTS_CLOCK"]))
if "FAULTS_WITNESS" in os.environ:
    watch(
        os.environ["FAULTS_WITNESS"],
        os.environ["FAULTS_UNDER"],
        int(os.environ.get("FAULTS_KILL_AT", "0")),
    )
