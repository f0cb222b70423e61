"""The strict verdict on whole responses: ways to state an answer, and what only looks like one.

strict_responses.jsonl holds responses with right and wrong answers of each kind, written for this
test. Responses that were judged by others, where they are at hand, tell how that carries over.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import json_lines
import pytest
from test_strict import SHARED, problem, problem_of, verdict

from lightreasoner.data.problems import Problem
from lightreasoner.grading.strict.verdict import extract, is_correct

CASES = Path(__file__).with_name("strict_responses.jsonl")
JUDGED = SHARED / "cases" / "grading.jsonl"
AGREEMENT = 0.92
WRONG_ACCEPTANCES = 1


def by_kind() -> dict[str, list[dict[str, Any]]]:
    kinds = defaultdict(list)
    for case in json_lines.read(CASES):
        kinds[case["kind"]].append(case)
    return kinds


def posed(case: dict[str, Any]) -> Problem:
    return problem(case["gold"], case["question"])


@pytest.mark.parametrize("kind", by_kind())
def test_each_kind_of_response(kind: str) -> None:
    cases = by_kind()[kind]
    differ = [
        (case["response"], case["gold"])
        for case in cases
        if verdict(case["response"], posed(case), case["benchmark"]) is not case["right"]
    ]
    assert differ == []
    assert {case["right"] for case in cases} == {True, False}


@pytest.mark.skipif(not JUDGED.exists(), reason=f"no judged responses in {JUDGED}")
def test_agrees_with_judged_responses() -> None:
    cases = [(case, problem_of(case | {"id": "set/00000"})) for case in json_lines.read(JUDGED)]
    verdicts = [
        (verdict(case["response"], problem, case["benchmark"]), case["truth"])
        for case, problem in cases
    ]
    assert sum(given == truth for given, truth in verdicts) >= AGREEMENT * len(verdicts)
    assert sum(given and not truth for given, truth in verdicts) <= WRONG_ACCEPTANCES


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        # what is withdrawn is no answer, and is not looked for in the next problem either
        (r"The answer is \boxed{4}. That is wrong.", None),
        ("The answer is 4. That is wrong.\n\nQuestion: 3+3?\nAnswer: 6", None),
        (r"First \boxed{4}, and so the answer is \boxed{5", None),
        # boxes keep their names and what joins them
        (r"$x=\boxed{1}$ and $y=\boxed{2}$", "x=1, y=2"),
        (r"\boxed{1} or \boxed{2}", r"1\text{ or }2"),
        ("\\boxed{1}\n\nIn short:\n\n\\boxed{1}", "1"),
        ("$$\\boxed{1}$$\n$$\\boxed{2}$$", "2"),
        # tags hold statements, too
        ("<answer>The answer is 4.</answer>", "4"),
        ("<answer>4</answer> and <answer>", "4"),
        # a sentence's one value, with its unit if units are told apart
        ("Answer: She walked 4 miles on that day.", "4 miles"),
        ("Answer: It needs 4 bolts.", "4"),
        ("Answer: 4 bolts", "4 bolts"),
        ("He eats 3 of the 12 plums.", "3"),
    ],
)
def test_what_is_extracted(response: str, answer: str | None) -> None:
    assert extract(response, problem("4"), "math") == answer


@pytest.mark.parametrize(
    ("gold", "answer", "benchmark", "right"),
    [
        # what stands behind a number is its unit only if it holds no other number
        ("5", r"5\text{, 6}", "math", False),
        ("5", r"5\text{ and 6}", "math", False),
        ("5", r"5\,\text{m}^{2}", "math", True),
        # a single letter is a variable where answers may hold one
        ("5", "5 m", "gsm8k", True),
        ("5", "5 m", "math", False),
        (r"5m", "5 m", "gsm8k", True),
        # an inequality keeps its letter, an interval has none
        ("x>3", "y>3", "math", False),
        (r"(3,\infty)", "y>3", "math", True),
        # the number of a name tells values apart if the names differ
        ("1,2", "x_1=2, x_2=1", "math", True),
        ("1,2", "x=2, y=1", "math", False),
    ],
)
def test_what_is_compared(gold: str, answer: str, benchmark: str, right: bool) -> None:
    assert is_correct(answer, problem(gold), benchmark) is right
