import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.grading import equal, extract, grade

RESPONSES = [
    # a plain box
    (r"18-2=16. The answer is \boxed{16}.", "16"),
    # the last box counts
    (r"\boxed{3} is wrong, so \boxed{4}", "4"),
    # braces match; what follows the box does not count
    (r"\boxed{\frac{1}{2}} and {more}", r"\frac{1}{2}"),
    # of nested boxes the inner one is the last
    (r"\boxed{\boxed{5}}", "5"),
    # unterminated: to the end
    (r"\boxed{\frac{1}{2", r"\frac{1}{2"),
    # nothing boxed, a blank box, another command
    ("The answer is 16.", None),
    (r"\boxed{ } and \boxed{  }", None),
    (r"\fbox{16}", None),
    ("", None),
]

EQUAL = [
    # the same text
    ("16", "16"),
    ("x+1", "x + 1"),
    (r"\text{Monday}", r"\text{Monday}"),
    # layout: spaces, dollars, \!, trailing dots
    ("$ 16 $.", "16"),
    (r"\$16", "16"),
    (r"1\!000", "1000"),
    # thousands commas, on either side
    ("1,234", "1234"),
    ("1234567", "1,234,567"),
    ("-1,000.50", "-1000.5"),
    # decimals, exact
    ("16.0", "16"),
    ("007", "7"),
    (".5", "0.5"),
    ("+3", "3"),
    ("-0", "0"),
    ("2.5e3", "2500"),
    # fractions in each notation
    ("1/2", "0.5"),
    ("2/4", "1/2"),
    (r"\frac{1}{2}", "1/2"),
    (r"-\dfrac{3}{4}", "-0.75"),
    (r"\tfrac{-3}{4}", "-3/4"),
    ("1.5/3", ".5"),
]

DIFFERENT = [
    # another number, however near
    ("16", "17"),
    ("120006", "120000"),
    ("0.333", "1/3"),
    ("0.1000000000000000000000000001", "0.1"),
    ("-16", "16"),
    # a factor of 100 is not forgiven, nor is a percent sign
    ("18", "1800"),
    ("50%", "0.5"),
    ("50%", "50"),
    # a comma that separates is not a thousands comma
    ("1,2", "12"),
    ("12,34", "1234"),
    ("(100,200)", "(100200)"),
    # text beside the number, case, brackets
    ("16 apples", "16"),
    ("n", "N"),
    ("(1,2]", "[1,2)"),
    # no number at all, or a division by zero
    ("", "0"),
    (".", "0"),
    ("$", "."),
    ("1/0", "2/0"),
    ("1/2/3", "1/6"),
    ("--5", "5"),
    ("1_000", "1000"),
    ("١٦", "16"),
    ("nan", "NaN"),
    ("inf", "1e400"),
    # an exponent too large to be computed with stays text
    ("1e999999999", "1e0999999999"),
]


@pytest.mark.parametrize(("response", "answer"), RESPONSES)
def test_extracts_the_last_box(response: str, answer: str | None) -> None:
    assert extract(response) == answer


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers(answer: str, gold: str) -> None:
    assert equal(answer, gold)
    assert equal(gold, answer)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers(answer: str, gold: str) -> None:
    assert not equal(answer, gold)
    assert not equal(gold, answer)


@pytest.mark.parametrize(
    ("response", "verdict"),
    [(r"\boxed{16}", "correct"), (r"\boxed{17}", "wrong"), ("It is 16.", "unparsed")],
)
def test_verdicts(response: str, verdict: str) -> None:
    assert grade(response, "16").verdict == verdict


@given(st.text(), st.text(min_size=1))
def test_any_text_gets_a_verdict(response: str, gold: str) -> None:
    assert grade(response, gold).verdict in ("correct", "wrong", "unparsed")
    boxed = grade("\\boxed{" + response, gold)
    assert boxed.verdict in ("correct", "wrong", "unparsed")
    assert (boxed.answer is None) == (boxed.verdict == "unparsed")


@given(st.fractions(), st.text(alphabet=" $\n"))
def test_a_rational_equals_itself_in_every_notation(value, space: str) -> None:
    above, below = value.numerator, value.denominator
    assert equal(f"{above}{space}/ {below}", f"\\frac{{{above}}}{{{below}}}")
    assert equal(f"{above:,}.0", str(above))
    assert not equal(f"{above}/{below}", f"{above + 1}/{below}")


@pytest.mark.parametrize(
    "answer",
    [
        "{" * 200_000,
        "}" * 200_000,
        "1," * 100_000,
        "123," * 100_000 + "x",
        "9" * 200_000,
        "\\frac{" * 50_000,
        "1" * 100_000 + "/" + "1" * 100_000,
        "1e999999999",
        "1e-999/1e999",
        "\\boxed{" * 50_000,
        "." * 200_000 + "x",
        "\\!" * 100_000,
    ],
)
def test_hostile_answers_take_no_time(answer: str) -> None:
    """The slowest takes 0.02 s on two cores; anything quadratic takes minutes."""
    started = time.perf_counter()
    assert grade("\\boxed{" + answer, "7").verdict in ("wrong", "unparsed")
    assert time.perf_counter() - started < 2
