"""The process that grades: a JSON line for a batch of answers in, JSON lines of grades out.

    python -m lightreasoner.grading.worker

It is a program of its own so that its workers fork from one that holds no model and no threads, and
are there again in milliseconds after one was killed. An answer passes three steps, each with its
limit; what texts alone decide never meets algebra.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as LimitReached
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
from pebble import ProcessExpired, ProcessPool

from lightreasoner.data.problems import Problem
from lightreasoner.errors import ProblemsError
from lightreasoner.grading.types import Answer, Grade, Outcome

LIMITS = {"read": 0.4, "strict": 0.8, "qwen": 1.8}
"""Seconds of CPU time per step, so that a busy machine changes no verdict; 3 together,
which is what the toolkit gives a comparison."""

GOLD_SECONDS = 3.0
"""For a gold answer, where the limit is an error, not an outcome."""

PATIENCE = 10
"""How many times its limit a step may last by the clock: on a busy machine, or without working."""

MEMORY = 2 << 30
"""Bytes of address space per worker, beyond what it starts with: libraries map more of it where
there are more cores."""

SHORT = 200
"""Characters of an answer and its gold answer that are looked at while reading: no number of so
many digits is slow."""

ANSWERS = 1000
"""A worker is replaced by a new one after this many calls."""

CPU_SECONDS = 3600
"""What a worker's calls can never reach; it ends one whose pool was killed while it was busy."""

LOST = (LimitReached, ProcessExpired)
"""How a worker ends that has reached a limit."""


@dataclass(frozen=True)
class Failure:
    """What a call raised, in a line."""

    reason: str


def gold(answer: Answer) -> str:
    """The gold answer in the toolkit's normal form."""
    from lightreasoner.qwen_math import toolkit

    return toolkit.gold(answer.problem.gold, answer.benchmark)


def extract_answers(answer: Answer, gold: str) -> Grade:
    """Find what each verdict takes for the answer, and decide what is seen without algebra.

    What is left to the other steps is `timeout` until they have decided.
    """
    from lightreasoner.grading.strict import verdict
    from lightreasoner.qwen_math import toolkit

    pred = toolkit.prediction(answer.response, answer.benchmark, gold)
    whole = answer.begun + answer.response
    extracted = verdict.extract(whole, answer.problem, answer.benchmark)
    qwen = _by_text(pred, gold)
    if qwen == "timeout" and pred and len(pred) + len(gold) <= SHORT:
        decided = toolkit.is_equal_at_sight(pred, gold)
        qwen = qwen if decided is None else _outcome(decided)
    return Grade(gold, pred, qwen, extracted, _by_text(extracted, answer.problem.gold))


def _by_text(answer: str | None, gold: str) -> Outcome:
    """The toolkit's normal form of some gold answers is empty, and equal to another empty one."""
    if answer == gold:
        return "correct"
    return "timeout" if answer else "unparsed"


def compare_strictly(extracted: str, problem: Problem, benchmark: str) -> Outcome:
    """The strict verdict on what was extracted."""
    from lightreasoner.grading.strict import verdict

    return _outcome(verdict.is_correct(extracted, problem, benchmark))


def compare_officially(pred: str, gold: str) -> Outcome:
    """The toolkit's verdict on what it predicts."""
    from lightreasoner.qwen_math import toolkit

    return _outcome(toolkit.is_equal(pred, gold))


def _outcome(is_correct: bool) -> Outcome:
    return "correct" if is_correct else "wrong"


def grades(
    pool: ProcessPool, answers: Sequence[Answer], on_done: Callable[[int], None]
) -> list[Grade]:
    """The grades of all answers, in order; `on_done(n)` is called as answers have both verdicts.

    Raises ProblemsError for a gold answer that cannot be normalised, or not within the limit.
    """
    golds = _golds(pool, answers)
    pairs = list(zip(answers, golds, strict=True))
    extracted = _verdicts(pool, extract_answers, pairs, LIMITS["read"], answers)
    found = [
        grade or Grade(gold, None, "timeout", None, "timeout")
        for gold, grade in zip(golds, extracted, strict=True)
    ]
    rows = {"strict": _undecided(found, "strict"), "qwen": _undecided(found, "qwen")}
    done = len(found) - len({*rows["strict"], *rows["qwen"]})
    on_done(done)
    calls: dict[str, list[tuple[Any, ...]]] = {
        "strict": [
            (found[row].extracted, answers[row].problem, answers[row].benchmark)
            for row in rows["strict"]
        ],
        "qwen": [(found[row].pred, found[row].gold) for row in rows["qwen"]],
    }
    for verdict, compare in (("strict", compare_strictly), ("qwen", compare_officially)):
        later = set(rows["qwen"]) if verdict == "strict" else set()
        asked = [answers[row] for row in rows[verdict]]
        outcomes = _verdicts(pool, compare, calls[verdict], LIMITS[verdict], asked)
        for row, outcome in zip(rows[verdict], outcomes, strict=True):
            found[row] = replace(found[row], **{verdict: outcome or "timeout"})
            done += row not in later
            on_done(done)
    return found


def _golds(pool: ProcessPool, answers: Sequence[Answer]) -> list[str]:
    """The normalised gold answers; equal ones are normalised once."""
    first = {(answer.problem.gold, answer.benchmark): answer for answer in answers}
    made = _map(pool, gold, [(answer,) for answer in first.values()], GOLD_SECONDS)
    golds = dict(zip(first, made, strict=True))
    for key, value in golds.items():
        if value is None or isinstance(value, Failure):
            problem = first[key].problem
            why = f" ({value.reason})" if value else f" in {GOLD_SECONDS:g} s"
            raise ProblemsError(
                f"problem {problem.id}: its gold answer {problem.gold[:80]!r} cannot be "
                f"normalised{why}; fix or drop the problem"
            )
    return [golds[answer.problem.gold, answer.benchmark] for answer in answers]


def _undecided(found: Sequence[Grade], verdict: str) -> list[int]:
    """The rows that have an answer but no verdict yet."""
    read_as = {"strict": "extracted", "qwen": "pred"}[verdict]
    return [
        row
        for row, grade in enumerate(found)
        if getattr(grade, verdict) == "timeout" and getattr(grade, read_as)
    ]


def _verdicts(
    pool: ProcessPool,
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    limit: float,
    answers: Sequence[Answer],
) -> Iterator[Any]:
    """What the function gives for each answer's call, in order; None where there is none.

    Equal calls are made once. A failure is logged: a text that only this program stumbles over is a
    bug of its own.
    """
    results = _map(pool, function, list(dict.fromkeys(calls)), limit)
    found: dict[tuple[Any, ...], Any] = {}
    for call, answer in zip(calls, answers, strict=True):
        if call not in found:  # the results come in the order of the first of equal calls
            result = next(results)
            if isinstance(result, Failure):
                why = f"{function.__name__} failed ({result.reason})"
                _print_line({"warning": f"problem {answer.problem.id}: {why}"})
            found[call] = None if isinstance(result, Failure) else result
        yield found[call]


def _map(
    pool: ProcessPool,
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    limit: float,
) -> Iterator[Any]:
    """What the function gives for each call, in order; None where it reached a limit, a Failure
    where it raised."""
    if not calls:
        return
    bounded = functools.partial(_bounded, limit, function)
    results = pool.map(bounded, calls, timeout=PATIENCE * limit).result()
    for _ in calls:
        try:
            yield next(results)
        except LOST:
            yield None


def _bounded(limit: float, function: Callable[..., Any], call: tuple[Any, ...]) -> Any:
    """In a worker: call the function; the kernel kills the worker after this many seconds of work,
    also in the middle of a power. What a text makes algebra raise costs that text its verdict."""
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        return function(*call)
    except (MemoryError, RecursionError):
        return None
    except Exception as error:  # noqa: BLE001
        return Failure(f"{type(error).__name__}: {error}"[:200])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _pool(workers: int) -> ProcessPool:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightreasoner.grading.warm_up"])
    return ProcessPool(workers, ANSWERS, initializer=_limit_worker, context=context)


def _limit_worker() -> None:
    """Bound a worker, and let it be stopped at once, even in the middle of a power."""
    for ending in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(ending, signal.SIG_DFL)
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system bounds it
        import resource

        space = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def main() -> None:
    """Grade each batch of stdin; say `{"done": n}` meanwhile, then the grades in order."""
    busy = threading.Event()
    threading.Thread(target=_end_with_the_asker, args=[busy], daemon=True).start()
    try:
        for line in sys.stdin:
            busy.set()
            batch = json.loads(line)
            _grade([_answer(row) for row in batch["answers"]], batch["workers"])
            busy.clear()
    except BrokenPipeError:  # who asked was killed just now; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _end_with_the_asker(busy: threading.Event) -> None:
    """End in the middle of a batch when nobody holds the other end of stdin any more: who asked was
    killed. Between two batches stdin's end ends the process."""
    closed = select.poll()
    closed.register(sys.stdin, select.POLLHUP)
    closed.poll()
    busy.wait()
    os._exit(1)


def _grade(answers: Sequence[Answer], workers: int) -> None:
    with _pool(workers) as pool:
        try:
            found = grades(pool, answers, lambda done: _print_line({"done": done}))
        except ProblemsError as error:
            _print_line({"error": str(error)})
            return
    for grade in found:
        _print_line(asdict(grade))


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(**{**row, "problem": Problem(**row["problem"])})


def _print_line(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
