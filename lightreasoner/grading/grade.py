"""Two verdicts on every response: the Qwen2.5-Math toolkit's, and what is right.

`qwen` is the toolkit's (official.py), so that accuracies compare with published ones; `strict` is
mathematics (strict/). Each is one of four outcomes:

    correct    the answer is the gold answer
    wrong      it is another one
    unparsed   the response gives no answer
    timeout    the limit of time or memory was reached, or grading failed, which is said in the
               log; counts as not correct

Responses are written by models, and algebra on them can take for ever or all of the memory. So they
are graded in processes of their own (grading_process.py), which are killed at the limit.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO

from lightreasoner.errors import GradingError, ProblemsError
from lightreasoner.grading.types import Answer, Grade

log = logging.getLogger(__name__)


def grade(
    answers: Sequence[Answer],
    on_done: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> list[Grade]:
    """The grades of `answers`, in their order; `workers` processes, one a core if None.

    An answer takes 3 s of work at most (see LIMITS in grading_process.py), whatever it says; the
    others keep their verdicts. `on_done(done, total)` hears of finished answers. Raises
    ProblemsError for a gold answer that cannot be read, GradingError if the process dies.
    """
    if not answers:
        return []
    command = [sys.executable, "-m", _worker_module(), str(workers or usable_cores())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sender = threading.Thread(target=_send, args=(answers, process.stdin))
        sender.start()
        try:
            grades = _receive(process.stdout, len(answers), on_done)
        except BaseException:
            process.kill()
            raise
        finally:
            sender.join()
    if process.returncode or len(grades) != len(answers):
        raise GradingError(
            f"grading stopped after {len(grades)} of {len(answers)} answers (exit status "
            f"{process.returncode}); see above for its reason and start again"
        )
    return grades


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker_module() -> str:
    from lightreasoner.grading import worker  # whose code decides the verdicts

    return worker.__name__


def _send(answers: Sequence[Answer], pipe: IO[bytes]) -> None:
    """Write all answers, one JSON object a line; a reader that is gone shows in its exit status."""
    try:
        with pipe:
            for answer in answers:
                pipe.write(json.dumps(asdict(answer)).encode() + b"\n")
    except BrokenPipeError:
        pass


def _receive(pipe: IO[bytes], total: int, on_done: Callable[[int, int], None]) -> list[Grade]:
    grades = []
    for line in pipe:
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
