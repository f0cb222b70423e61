r"""Fuzz: responses of models through `grade`: both verdicts, never a crash, a hang or a fault.

A fault of the grader's own, which is logged and counted as `timeout`, fails here.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzzing import ODD_TEXTS

from lightreasoner.data.problems import Problem
from lightreasoner.grading.grade import grade, shared_process
from lightreasoner.grading.types import OUTCOMES, Answer

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "grading" / "strict_responses.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
UNITS = (
    "\\frac{", "\\frac", "{", "}", "\\sqrt{", "\\text{", "\\boxed{", "\\boxed", "^{", "^",
    "10^10^10",
    "9^{9^{9}}", "10^{10^{10}}", "!", "(", ")", "[", "\\left(", "\\right)", "\\(", "\\[", "$", "**",
    "\\begin{cases}", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "&", "\\int", "\\sum_{n=1}^{",
    "\\binom{99999}{", "\\lim_{x\\to", "x=", "=", "<", ",", ";", ".", "7", "77777777", "0.",
    "1e999",
    "1/0", "\\pm", "\\cup", "\\infty", "\\pi", "\\circ", "\\%", "%", "seven ", "hundred ", "half ",
    "The answer is ", "Answer: ", "#### ", "so ", "wait, ", "not ", "but ", "or ", "and ", "(A) ",
    "<think>", "</think>", "<<1=1>>", "Question:", "</s>", "答案是", "千", "٧", "７", "½", "²", "√",
    "\u200f", "\u202e", "\u0300", "\ud800", "\x00", "\u2028", "\x85", "a", "e", "I", "lambda ",
    "__import__('os')", "\\catcode", "\\input{/etc/passwd}", "\n", "\t", " ", "\\", "_", "_{", "|",
)  # fmt: skip


def response(rng: Random, good: str) -> str:
    """A response cut, stuffed or drowned; few are long, since they cost what they cost."""
    action, unit = rng.random(), "".join(rng.choices(UNITS, k=rng.choice([1, 1, 2, 3])))
    if action < 0.4:
        at = rng.randrange(len(good) + 1)
        return good[:at] + unit * rng.choice([1, 2, 9, 60]) + good[at + rng.choice([0, 1, 9]) :]
    if action < 0.6:
        return rf"\boxed{{{unit * rng.choice([1, 3, 20, 200])}}}"
    if action < 0.75:
        return "".join(rng.choices(UNITS, k=rng.randint(0, 40)))
    if action < 0.8:
        return unit * (rng.choice([10_000, 1_000_000]) // len(unit))
    if action < 0.9:
        return good[: rng.randrange(len(good) + 1)] + str(rng.choice(ODD_TEXTS))
    return f"The answer is {unit * rng.choice([1, 5, 50])}." + good[: rng.choice([0, 50])]


def answers(rng: Random) -> list[Answer]:
    """Of several benchmarks, each beside one whose verdicts are known: `\boxed{7}`."""
    found = []
    for number in range(20):
        row = rng.choice(ROWS)
        name = rng.choice(["math", "gsm8k", "mmlu_stem", "minerva_math", "tuned"])
        gold = "B" if name == "mmlu_stem" else rng.choice(["7", r"\frac{1}{2}", "x+1", "(1,2)"])
        question = "Which? (A) 1 (B) 2 (C) 3 (D) 4" if name == "mmlu_stem" else "How many apples?"
        problem = Problem(f"{name}/{number}", question, gold, "")
        found.append(Answer(response(rng, row["response"]), problem, name))
    right = Problem("math/right", "q", "7", "")
    return [*found, Answer(r"\boxed{7}", right, "math"), Answer(r"\boxed{8}", right, "math")]


@pytest.fixture(scope="module")
def process() -> Iterator[None]:
    with shared_process():
        yield


@pytest.mark.timeout(1_200)
@pytest.mark.usefixtures("process")
def test_odd_responses(fuzz: Any, caplog: pytest.LogCaptureFixture) -> None:
    def attempt(asked: list[Answer]) -> None:
        since = time.monotonic()
        with caplog.at_level(logging.WARNING, "lightreasoner"):
            found = grade(asked)
        assert time.monotonic() - since < 60
        assert caplog.messages == []
        for each in found:
            assert {each.qwen, each.strict} <= set(OUTCOMES)
            json.dumps(each.__dict__)
        assert [(each.qwen, each.strict) for each in found[-2:]] == [
            ("correct", "correct"),
            ("wrong", "wrong"),
        ]

    fuzz(answers, attempt, quick=2)
