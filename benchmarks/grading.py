r"""Bench: how many answers are graded a second, and what hostile ones cost the others.

Answers are made from gold answers of six families, three quarters of them integers as in the
benchmarks, half of them right in another form; a file of real ones (as `lightreasoner grade` reads
it) can take their place. Every sixth of the second run is hostile: algebra that does not end, or
texts that are dear to read.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightreasoner.data.problems import Problem
from lightreasoner.grading import grade
from lightreasoner.grading.types import Answer, Grade
from lightreasoner.grading.worker import LIMITS
from lightreasoner.storage.fingerprint import git_commit, package_versions

if TYPE_CHECKING:
    from lightreasoner.progress import Watcher

ORDINARY_A_HOSTILE = 5
HOSTILE = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    "The answer is " + "7" * 3_000_000,
    r"\boxed{" + r"\text{" * 12_000 + "}",
    r"\boxed{(x+1)^{100000}-(x+2)^{99999}}",
    r"\boxed{\int_0^{\infty} e^{-x^{x^{x}}} dx}",
    r"\boxed{100000000!!!}",
    r"\boxed{\sum_{n=1}^{10^9} \sin(n^n)}",
)


def grading_speed(
    answers: Sequence[Answer], hostile: int, workers: int, watcher: "Watcher"
) -> dict[str, Any]:
    """Grade `answers`, then `hostile` hostile ones among five times as many ordinary ones."""
    seconds, grades = _timed(answers, workers, watcher)
    found: dict[str, Any] = {
        "conditions": {"workers": workers, "commit": git_commit(), "packages": package_versions()},
        "limits_seconds": LIMITS,
        "answers": len(answers),
        "seconds": round(seconds, 2),
        "answers_per_second": round(len(answers) / seconds, 1),
        "outcomes": _outcomes(grades),
    }
    if hostile:
        found["hostile"] = _among_hostile(answers, hostile, workers, watcher)
    return found


def made(n: int, seed: int) -> list[Answer]:
    """`n` answers, half of them right; the same for the same seed."""
    rng = random.Random(seed)
    families = (_integer,) * 15 + (_fraction, _root, _polynomial, _pair, _scientific)
    return [_answer(number, *rng.choice(families)(rng)) for number in range(n)]


def _answer(number: int, gold: str, right: str, wrong: str) -> Answer:
    response = (
        f"We add what is given.\nThe final answer is \\boxed{{{(wrong, right)[number % 2]}}}."
    )
    return Answer(response, Problem(f"made/{number:05d}", "q", gold, ""), "math")


def _integer(rng: random.Random) -> tuple[str, str, str]:
    n = rng.randint(-9999, 9999)
    return str(n), f"{n}.0", str(n + 1)


def _fraction(rng: random.Random) -> tuple[str, str, str]:
    a, b, k = rng.randint(1, 40), rng.randint(2, 40), rng.randint(2, 5)
    return rf"\frac{{{a}}}{{{b}}}", f"{k * a}/{k * b}", f"{a + 1}/{b}"


def _root(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.choice((2, 3, 5, 7))
    return rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b + 1}}}"


def _polynomial(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}", f"x^2+{a + b}x+{a * b + 1}"


def _pair(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(1, 99), rng.randint(100, 199)
    return rf"\left({a},{b}\right)", f"({a}, {2 * b}/2)", f"({b}, {a})"


def _scientific(rng: random.Random) -> tuple[str, str, str]:
    a, k = rng.randint(11, 99), rng.randint(3, 30)
    return f"{a / 10}e{k}", rf"{a / 10} \times 10^{{{k}}}", rf"{a / 10} \times 10^{{{k + 1}}}"


def _timed(
    answers: Sequence[Answer], workers: int, watcher: "Watcher"
) -> tuple[float, list[Grade]]:
    since = time.perf_counter()
    grades = grade.grade(
        answers, lambda done, total: watcher.progress(done, total, "answers"), workers
    )
    return time.perf_counter() - since, grades


def _among_hostile(
    answers: Sequence[Answer], hostile: int, workers: int, watcher: "Watcher"
) -> dict[str, Any]:
    """Seconds, their bound (every hostile answer at its limit), and the verdicts that changed."""
    ordinary = [answers[row % len(answers)] for row in range(ORDINARY_A_HOSTILE * hostile)]
    mixed = list(ordinary)
    for row in range(hostile):
        problem = Problem(f"hostile/{row:03d}", "q", "7", "")
        answer = Answer(HOSTILE[row % len(HOSTILE)], problem, "math")
        mixed.insert((ORDINARY_A_HOSTILE + 1) * row, answer)
    _, alone = _timed(ordinary, workers, watcher)
    seconds, grades = _timed(mixed, workers, watcher)
    kept = [grade for row, grade in enumerate(grades) if row % (ORDINARY_A_HOSTILE + 1)]
    return {
        "hostile": hostile,
        "ordinary": len(ordinary),
        "seconds": round(seconds, 2),
        "bound_seconds": hostile * sum(LIMITS.values()) / workers,
        "changed_verdicts": sum(a != b for a, b in zip(alone, kept, strict=True)),
        "outcomes": _outcomes(grades[:: ORDINARY_A_HOSTILE + 1]),
    }


def _outcomes(grades: Sequence[Grade]) -> dict[str, dict[str, int]]:
    return {
        verdict: dict(Counter(getattr(grade, verdict) for grade in grades))
        for verdict in ("qwen", "strict")
    }


def summary(found: dict[str, Any]) -> list[str]:
    """What the figures say, a line each."""
    lines = [
        f"{found['answers']} answers in {found['seconds']} s, {found['answers_per_second']} a "
        f"second, {found['conditions']['workers']} workers"
    ]
    if "hostile" in found:
        mixed = found["hostile"]
        lines.append(
            f"{mixed['hostile']} hostile ones among {mixed['ordinary']}: {mixed['seconds']} s (at "
            f"their limits {mixed['bound_seconds']:.0f} s), {mixed['changed_verdicts']} verdicts "
            "of the others changed"
        )
    return lines
