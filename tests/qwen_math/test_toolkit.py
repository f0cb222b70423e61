"""The official verdict: its rules by hand, and its parity with recorded official verdicts.

The records are not part of the repository. They are looked for in `parity/` and `benchmarks/` of
$LIGHTREASONER_SHARED, or of `shared/` beside the checkout, and these tests skip without them.
"""

import json
from collections.abc import Iterator
from typing import Any

import json_lines
import pytest
from checkout import SHARED
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.data.reading import problem_of_row
from lightreasoner.qwen_math.normalise import UNIT_WORDS
from lightreasoner.qwen_math.toolkit import choice, extract, gold, is_equal, prediction

PARITY = SHARED / "parity"
RECORDS = {path.stem: path for path in sorted(PARITY.glob("*.jsonl"))}
RECORDS.pop("prompts_and_golds", None)
SAMPLE = 40
"""How many records of a file the quick tests take, at equal distances."""

EXTRACTED = [
    # Minerva's sentence comes first
    (r"\boxed{2}. The final answer is $3$. I hope it is correct.", "3"),
    # the last box: its braces, to the end if they do not close, or up to a dollar sign
    (r"\boxed{1}, no: \boxed{\frac{1}{2}} {3}", r"\frac{1}{2}"),
    (r"\boxed{\frac{1}{2", r"\frac{1}{2"),
    (r"$\boxed 7$ apples", "7"),
    (r"\boxed", ""),
    (r"\fbox{16}, boxed{17}", "17"),
    # a box wins over a sentence
    (r"\boxed{1}. The answer is 2.", "1"),
    # after the last "he answer is", then the last "final answer is"
    ("The answer is 1. So the answer is: 2.", "2"),
    ("My final answer is 7/", "7"),
    # Chinese: after the first, to the next or a blank line
    ("答案是 5\n\n7", "5"),
    ("答案是 5 答案是 6", "5"),
    # the last number; the calculator's hashes mean nothing
    ("#### 1,234.5 and .5", ".5"),
    ("In all 1,234 of them", "1234"),
    ("from 3-4", "-4"),
    ("none", ""),
    # the Cyrillic letters go first
    ("The answerки is 7", "7"),
    # a newline with the space after it
    ("The answer is 1\n   +x", "1+x"),
]

CHOICES = [
    # with a trigger the first letter after the last trigger counts
    ("A or B? The answer is (C), not D.", "C"),
    ("The answer is b", "B"),
    # with two triggers only the first chunk counts
    ("The answer is (A).\n\n\nQuestion: 2+2?\nAnswer: The answer is (B).", "A"),
    # but one of each are not two
    ("The choice is A.\n\nThe answer is B.", "B"),
    # without, the last letter
    ("A is wrong, B is right", "B"),
    # the article
    ("It is a dog", "A"),
    # no letter
    ("none of them.", "none of them"),
    ("", ""),
]

PREDICTED = [
    # units go, but not for Minerva
    ("gsm8k", "1", r"\boxed{5 m}", "5"),
    ("minerva_math", "1", r"\boxed{5 m}", "5m"),
    # nothing, and what the toolkit calls an error
    ("gsm8k", "1", "", None),
    ("gsm8k", "1", " error\n", None),
    # a stop word ends the response
    ("math", "1", r"\boxed{1}<|im_end|>\boxed{2}", "1"),
    ("math", "1", "</s>7", None),
    # a gold answer of one letter: the letter rule on the whole response
    ("math", "B", r"B is it: \boxed{7}", "B"),
    ("math", "B", r"\boxed{C}", "C"),
    ("mmlu_stem", "A", "", ""),
    # of several letters, or none: the answer's own letters
    ("math", "AC", r"\boxed{(A), (C)}", "AC"),
    ("minerva_math", "", r"\boxed{7}", ""),
    ("math", "AC", "", None),
]


@pytest.mark.parametrize(("response", "answer"), EXTRACTED)
def test_extracts_by_the_first_rule_that_applies(response: str, answer: str) -> None:
    assert extract(response, "minerva_math") == ("0.5" if answer == ".5" else answer)


@pytest.mark.parametrize(("response", "letter"), CHOICES)
def test_the_letter_rule(response: str, letter: str) -> None:
    assert choice(response) == extract(response, "mmlu_stem") == letter


@pytest.mark.parametrize(("benchmark", "gold", "response", "answer"), PREDICTED)
def test_predicts(benchmark: str, gold: str, response: str, answer: str | None) -> None:
    assert prediction(response, benchmark, gold) == answer


def is_correct(response: str, benchmark: str, gold: str) -> bool:
    return is_equal(prediction(response, benchmark, gold), gold)


@pytest.mark.parametrize(
    ("response", "correct"),
    [("It makes 1,800.", True), ("It makes 19.", False), ("", False)],
)
def test_verdicts(response: str, correct: bool) -> None:
    assert is_correct(response, "gsm8k", "18") is correct


@given(st.text(), st.sampled_from(["7", "B", "AC", ""]), st.sampled_from(["math", "mmlu_stem"]))
def test_any_response_has_a_prediction(response: str, gold: str, benchmark: str) -> None:
    """Normalised, unless a letter is wanted: then it may be the response's trimmed text."""
    for text in response, "\\boxed{" + response, f"The answer is {response}":
        answer = prediction(text, benchmark, gold)
        assert answer is None or gold == "B" or not set(answer) & set("$%\n")


@pytest.mark.skipif(not PARITY.exists(), reason=f"no official records in {PARITY}")
def test_the_unit_words_are_the_official_ones() -> None:
    official = json.loads((PARITY / "unit_words.json").read_text(encoding="utf-8"))
    assert list(UNIT_WORDS) == official


@pytest.mark.parametrize("name", RECORDS)
def test_a_sample_agrees_with_official_verdicts(name: str) -> None:
    records = json_lines.read(RECORDS[name])
    assert not list(disagreements(records[:: max(1, len(records) // SAMPLE)]))


@pytest.mark.nightly
@pytest.mark.parametrize("name", RECORDS)
def test_all_agree_with_official_verdicts(name: str) -> None:
    """45 s for 4,547 responses; one pair takes 3 s or more, and is wrong after all."""
    assert not list(disagreements(json_lines.read(RECORDS[name])))


def disagreements(records: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """What differs from the official gold, answer and verdict, each as (id, ours, theirs)."""
    for record in records:
        benchmark, response = record["benchmark"], record["response"]
        problem = problem_of_row(benchmark, record["record"], record["id"])
        answer = gold(problem.answer, benchmark)
        pairs = [
            (answer, record["official_gold"]),
            (prediction(response, benchmark, answer), record["official_pred"]),
            (is_correct(response, benchmark, answer), record["official_correct"]),
        ]
        yield from ((record["id"], ours, theirs) for ours, theirs in pairs if ours != theirs)
