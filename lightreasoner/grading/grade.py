"""Two verdicts on every response: the Qwen2.5-Math toolkit's, and what is right.

`qwen` is the toolkit's (qwen_math/), so that accuracies compare with published ones; `strict` is
mathematics (strict/). Each is one of four outcomes (types.py).

Responses are written by models, and algebra on them can take forever or all of the memory. So they
are graded in processes of their own (worker.py), which are killed at the limit.
"""

import contextlib
import json
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import IO

from lightreasoner import processes
from lightreasoner.errors import GradingError, ProblemsError
from lightreasoner.grading.types import Answer, Grade

log = logging.getLogger(__name__)


def grade(
    answers: Sequence[Answer],
    on_done: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> list[Grade]:
    """The grades of `answers`, in their order; `workers` processes, one per core if None.

    An answer takes 3 s of work at most (see LIMITS in worker.py), whatever it says; the
    others keep their verdicts. `on_done(done, total)` is called as answers are finished. Raises
    ProblemsError for a gold answer that cannot be read, GradingError if the process dies.
    """
    if not answers:
        return []
    with _process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        batch = {
            "workers": min(workers or processes.usable_cores(), len(answers)),
            "answers": list(map(asdict, answers)),
        }
        sender = threading.Thread(target=_send, args=(batch, process.stdin))
        sender.start()
        try:
            grades = _receive(process.stdout, len(answers), on_done)
        except BaseException:
            process.kill()
            raise
        finally:
            sender.join()
        if len(grades) != len(answers):
            raise GradingError(
                f"grading stopped after {len(grades)} of {len(answers)} answers (exit status "
                f"{process.wait()}); the reason is above; start again"
            )
    return grades


class _Keeper:
    """The process that grades, for one call at a time."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def process(self) -> "subprocess.Popen[bytes]":
        """The process, started if there is none, or if it died; a fork's is its parent's."""
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._process is None or self._owner != os.getpid():
            self._owner, self._process = (
                os.getpid(),
                processes.start(
                    _worker_module(),
                    OPENBLAS_NUM_THREADS="1",  # it forks
                ),
            )
        return self._process

    def end(self) -> None:
        """Let the process end, which it does when its input ends."""
        if self._process is not None and self._owner == os.getpid():
            with contextlib.suppress(BrokenPipeError), self._process:
                pass
        self._process = None


_shared: list[_Keeper] = []


@contextlib.contextmanager
def shared_process() -> Iterator[None]:
    """Within this block all calls of `grade` share a process, which takes seconds to start.

    Calls at once take turns then. Blocks may be in each other, or overlap in threads: calls go to
    the newest one's process.
    """
    keeper = _Keeper()
    _shared.append(keeper)
    try:
        yield
    finally:
        _shared.remove(keeper)
        with keeper.turn:
            keeper.end()


@contextlib.contextmanager
def _process() -> Iterator["subprocess.Popen[bytes]"]:
    """The process for a call; after an error the next call starts a new one."""
    keeper = next(reversed(_shared), None) or _Keeper()
    with keeper.turn:
        is_fine = False
        try:
            yield keeper.process()
            is_fine = True
        finally:
            if not is_fine or keeper not in _shared:
                keeper.end()


def _worker_module() -> str:
    from lightreasoner.grading import worker  # whose code decides the verdicts

    return worker.__name__


def _send(batch: dict[str, object], pipe: IO[bytes]) -> None:
    """Write a batch, a JSON line; a reader that is gone shows in its exit status."""
    with contextlib.suppress(BrokenPipeError):
        pipe.write(json.dumps(batch).encode() + b"\n")
        pipe.flush()


def _receive(pipe: IO[bytes], total: int, on_done: Callable[[int, int], None]) -> list[Grade]:
    grades: list[Grade] = []
    while len(grades) < total and (line := pipe.readline()):
        said = json.loads(line)
        if "done" in said:
            on_done(said["done"], total)
        elif "warning" in said:
            log.warning("grading: %s; counted as timeout", said["warning"])
        elif "error" in said:
            raise ProblemsError(said["error"])
        else:
            grades.append(Grade(**said))
    return grades
