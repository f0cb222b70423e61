"""Calls for the workers of a grading pool, in a module that a new worker imports at once."""

import time
from pathlib import Path

from lightreasoner.grading.types import Answer


def waiting(seconds: float) -> str:
    """What a worker does on a machine that gives it no processor."""
    time.sleep(seconds)
    return "done"


def working(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def stumbling(asked: Answer) -> str:
    """A verdict with a fault of its own."""
    return str(1 / int(asked.response))


def called(where: str, what: str) -> str:
    """Leaves a line for each call."""
    with Path(where).open("a") as file:
        file.write(what + "\n")
    return what.upper()
