"""Prefect's cache as an index to the store.

A task's cache key is its stage's fingerprint, so what Prefect calls Cached is what the store calls
cached. A record holds the outcome with its path relative to home, in JSON, in one file: a torn
record does not count as one. Whoever calls the task looks into the store first and asks Prefect to
refresh the record where the artifact behind it is gone or damaged (tasks/stages.py).
"""

import asyncio
import fcntl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from prefect.cache_policies import CacheKeyFnPolicy, CachePolicy
from prefect.context import TaskRunContext

from lightreasoner.artifacts import Artifact
from lightreasoner.stages import STAGES
from lightreasoner.store import Outcome, stage_key

POLL_SECONDS = 0.05


def records(home: Path) -> Path:
    """Where Prefect keeps its records of cached tasks."""
    return home / "prefect" / "cache"


def policy(home: Path) -> CachePolicy:
    """Key a task named after a stage by the stage's fingerprint; run it once at a time.

    The task's parameters must be called `inputs` and `params`.
    """

    def key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
        stage = STAGES[context.task.name]
        return stage_key(stage, arguments["inputs"], arguments["params"])

    return CacheKeyFnPolicy(cache_key_fn=key).configure(
        isolation_level="SERIALIZABLE", lock_manager=FileLocks(home / "prefect" / "locks")
    )


def to_record(outcome: Outcome, home: Path) -> dict[str, Any]:
    """An outcome in plain values, its path relative to home."""
    return {
        "path": outcome.artifact.path.relative_to(home).as_posix(),
        "digest": outcome.artifact.digest,
        "manifest": outcome.manifest,
    }


def from_record(record: dict[str, Any], home: Path, cached: bool) -> Outcome:
    """The outcome of a record."""
    artifact = Artifact(home / record["path"], record["digest"])
    return Outcome(artifact, record["manifest"], cached)


@dataclass
class FileLocks:
    """Prefect's LockManager over flock(2): the lock of a killed process is gone with it.

    A lock belongs to its holder (host, process and thread, as Prefect names them). It ends when
    it is released or its process ends, so `hold_timeout` has no meaning here.
    """

    directory: Path
    held: dict[str, tuple[str, TextIO]] = field(default_factory=dict)

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock, waiting for at most `acquire_timeout` seconds; whether it was taken."""
        if self.is_lock_holder(key, holder):
            return True
        self.directory.mkdir(parents=True, exist_ok=True)
        file = (self.directory / key).open("w")
        if not _lock(file, acquire_timeout):
            file.close()
            return False
        self.held[key] = (holder, file)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back. Raises ValueError if the holder does not have it."""
        if not self.is_lock_holder(key, holder):
            raise ValueError(f"{holder} does not hold the lock {key}")
        self.held.pop(key)[1].close()

    def is_locked(self, key: str) -> bool:
        """Whether anyone holds the lock."""
        return not self.wait_for_lock(key, timeout=0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        return key in self.held and self.held[key][0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the lock is free, for at most `timeout` seconds; whether it was."""
        try:
            with (self.directory / key).open() as file:
                return _lock(file, timeout)
        except FileNotFoundError:
            return True

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """As acquire_lock, beside the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As wait_for_lock, beside the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)


def _lock(file: TextIO, timeout: float | None) -> bool:
    """Take flock's exclusive lock; None waits for ever."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
