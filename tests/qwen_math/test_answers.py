r"""Bare and normalised gold answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.qwen_math import toolkit
from lightreasoner.qwen_math.answers import bare_answer, gold

GOLDS = [
    ("gsm8k", "1,002", "1,002"),
    ("svamp", "145.0", "145"),
    ("asdiv", "9 ; 8", "9;8"),
    ("olympiadbench", r"\sqrt x3", r"\sqrt{x3}"),
    ("mmlu_stem", "C", "C"),
    ("any other", "0.50", "0.50"),
    # what stands in a solution
    ("math", r"\dfrac12\text{ m}", r"\frac{1}{2}"),
    ("math500", r"\dfrac12\text{ m}", r"\frac{1}{2}"),
    # units are deleted, but not for Minerva
    ("math", "5 m", "5"),
    ("minerva_math", "5 m", "5m"),
    # nothing remains
    ("math", r"\%", ""),
    ("gsm8k", "$", ""),
]


@pytest.mark.parametrize(("benchmark", "answer", "normalised"), GOLDS)
def test_normalises_by_the_benchmarks_rule(benchmark: str, answer: str, normalised: str) -> None:
    assert gold(answer, benchmark) == normalised


@pytest.mark.parametrize(
    ("benchmark", "normalised"),
    [("math", "7and"), ("math500", "7and"), ("minerva_math", "7and"), ("asdiv", "7")],
)
def test_twice_is_not_once(benchmark: str, normalised: str) -> None:
    """Each time the `and` within goes; what stood around it is the next one."""
    assert gold("7anandd", benchmark) == normalised


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So $x=\boxed{\frac{4}{2}}$.", r"\frac{4}{2}"),
        (r"$\boxed 5$", "5"),
        (r"\boxed{\frac{1}{2", r"\frac{1}{2"),
        ("The answer is: 2.", "2"),
        ("The answer is\n  1\n  +x", "1+x"),
        ("That makes 1,234 in all", "1234"),
        ("none", ""),
    ],
)
def test_finds_the_bare_answer(text: str, answer: str) -> None:
    assert bare_answer(text) == answer


@given(st.text(), st.sampled_from(["math", "math500", "minerva_math"]))
def test_a_solutions_gold_is_what_a_response_of_the_same_text_gives(
    text: str, benchmark: str
) -> None:
    for solution in text, "\\boxed{" + text, f"The answer is {text}":
        assert gold(bare_answer(solution), benchmark) == toolkit.extract(solution, benchmark)
