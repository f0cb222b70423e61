"""Prefect's cache as an index to the store: locks, records, what a retry may help."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.locking.protocol import LockManager
from prefect.states import Failed

from lightreasoner.artifacts import Artifact
from lightreasoner.errors import DiskFullError, SelectionError
from lightreasoner.stages import STAGES
from lightreasoner.store import Outcome
from tasks import stages
from tasks.caching import FileLocks, from_record, to_record

HOLD = """
import sys, time
from pathlib import Path
from tasks.caching import FileLocks
locks = FileLocks(Path(sys.argv[1]))
locks.acquire_lock("key", "other")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[FileLocks]:
    """Locks in a folder that is not there yet."""
    locks = FileLocks(tmp_path / "locks")
    yield locks
    for key, (holder, _) in list(locks.held.items()):
        locks.release_lock(key, holder)


def test_it_is_one_of_prefects_lock_managers(locks: FileLocks) -> None:
    assert isinstance(locks, LockManager)


def test_one_holder_at_a_time(locks: FileLocks) -> None:
    assert not locks.is_locked("key")
    assert locks.acquire_lock("key", "one")
    assert locks.acquire_lock("key", "one")
    assert locks.is_locked("key")
    assert locks.is_lock_holder("key", "one")
    assert not locks.is_lock_holder("key", "two")
    assert not locks.acquire_lock("key", "two", acquire_timeout=0)
    assert locks.acquire_lock("another key", "two", acquire_timeout=0)
    locks.release_lock("key", "one")
    assert locks.acquire_lock("key", "two", acquire_timeout=0)


def test_only_the_holder_releases(locks: FileLocks) -> None:
    locks.acquire_lock("key", "one")
    with pytest.raises(ValueError, match="two does not hold the lock key"):
        locks.release_lock("key", "two")


def test_waiting_does_not_take_the_lock(locks: FileLocks) -> None:
    assert locks.wait_for_lock("key", timeout=0)
    locks.acquire_lock("key", "one")
    assert not locks.wait_for_lock("key", timeout=0.1)
    locks.release_lock("key", "one")
    assert locks.wait_for_lock("key")
    assert locks.acquire_lock("key", "two", acquire_timeout=0)


def test_beside_an_event_loop(locks: FileLocks) -> None:
    async def use() -> tuple[bool, bool]:
        taken = await locks.aacquire_lock("key", "one")
        return taken, await locks.await_for_lock("key", timeout=0)

    assert asyncio.run(use()) == (True, False)


def test_a_killed_holder_does_not_block_the_next(locks: FileLocks) -> None:
    command = [sys.executable, "-c", HOLD, str(locks.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            assert not locks.acquire_lock("key", "own", acquire_timeout=0)
        finally:
            holder.send_signal(signal.SIGKILL)
        started = time.monotonic()
        assert locks.acquire_lock("key", "own", acquire_timeout=30)
        assert time.monotonic() - started < 10


def test_a_record_survives_a_move_of_home(tmp_path: Path) -> None:
    path = tmp_path / "old" / "store" / "select" / "k" / "payload"
    outcome = Outcome(Artifact(path, "d.dir"), {"digest": "d.dir"}, cached=False)
    record = to_record(outcome, tmp_path / "old")
    assert record["path"] == "store/select/k/payload"
    moved = from_record(record, tmp_path / "new", cached=True)
    assert moved.artifact.path == tmp_path / "new" / "store" / "select" / "k" / "payload"
    assert (moved.artifact.digest, moved.manifest) == ("d.dir", outcome.manifest)


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (OSError(5, "Input/output error"), True),
        (ConnectionResetError("peer"), True),
        (TimeoutError("slow"), True),
        (httpx.ConnectError("refused"), True),
        (FileNotFoundError(2, "gone"), False),  # it will not come back by itself
        (PermissionError(13, "no"), False),
        (DiskFullError("full"), False),
        (SelectionError("beta"), False),
        (RuntimeError("a bug"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_passing_faults_are_retried(error: Exception, retried: bool) -> None:
    task: Any = None
    assert stages.may_pass(task, task, Failed(data=error)) is retried


class Counter:
    """Counts what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def progress(self, *told: object) -> None:
        self.told.append(told)

    def metric(self, *told: object) -> None:
        self.told.append(told)


def test_watchers_together() -> None:
    one, two = Counter(), Counter()
    both = stages.Together([one, two])
    both.progress(1, 2, "problems")
    both.metric("loss", 0.5, 3)
    assert one.told == two.told == [(1, 2, "problems"), ("loss", 0.5, 3)]


def test_progress_moves_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = [100.0], []
    bar = stages.ProgressArtifact(STAGES["evaluate_base"])
    monkeypatch.setattr(bar, "_update", lambda percent, text: sent.append((percent, text)))
    monkeypatch.setattr(stages.time, "monotonic", lambda: clock[0])
    for done in range(1, 11):
        bar.progress(done, 10, "problems")
        clock[0] += 0.25
    assert [text for _, text in sent] == [
        "1 of 10 problems",
        "5 of 10 problems",
        "9 of 10 problems",
        "10 of 10 problems",
    ]
    assert sent[-1][0] == 100
    assert bar.key == "evaluate-base"


def test_a_lost_server_costs_the_bar_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise httpx.ConnectError("refused")

    bar = stages.ProgressArtifact(STAGES["score"])
    monkeypatch.setattr(bar, "_update", refuse)
    bar.progress(1, 2, "problems")
    bar.progress(2, 2, "problems")
    assert [record.message for record in caplog.records] == [
        "score: no progress is shown (refused)"
    ]
