"""Who uses a store: any number of processes, none while something is removed from it.

    <home>/store/locks/in-use    locked (flock): shared by who uses results, not by who removes some

A process that has begun to use results may read any of them until it ends, so it holds the lock as
long; a killed one's is gone with it.
"""

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import places

NAME = "in-use"

log = logging.getLogger(__name__)

_held: dict[Path, int] = {}  # open files, by home; until the process ends
_one_at_a_time = threading.Lock()


def hold(home: Path) -> None:
    """Keep everything in the store until this process ends; waits for who removes something.

    Raises ArtifactError, DiskFullError.
    """
    with _one_at_a_time:
        if home not in _held:
            handle = _opened(home)
            try:
                _share(handle, home)
            except BaseException:
                os.close(handle)
                raise
            _held[home] = handle


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """No other process uses the store in this block; one that wants to waits.

    Raises ArtifactError where one does, DiskFullError.
    """
    with _one_at_a_time:
        held = _held.get(home)
        handle = _opened(home) if held is None else held
        try:
            _refuse_others(handle, home)
            yield
        finally:
            if held is None:
                os.close(handle)
            else:
                _share(handle, home)


def _refuse_others(handle: int, home: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArtifactError(
            f"{home}: a run, or another command, uses the store; let it end, or stop it, then say "
            f"this again (`fuser {home / 'store' / 'locks' / NAME}` names its processes)"
        ) from None


def _opened(home: Path) -> int:
    with places.lock_file(places.folder(home, "store", "locks") / NAME) as file:
        return os.dup(file.fileno())


def _share(handle: int, home: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting until something has been removed from %s", home / "store")
        fcntl.flock(handle, fcntl.LOCK_SH)
