"""Questions that share runs of words with what the tuning read, and the gain without them."""

import json
from pathlib import Path

import pytest
from checkout import SHARED
from hypothesis import given
from hypothesis import strategies as st
from written_scores import write_scores

from lightreasoner.evaluation import contamination
from lightreasoner.evaluation.pairing import Scores, read_scores

EIGHT = "one two three four five six seven eight"


def test_runs_by_hand() -> None:
    assert contamination.runs("A b, c-D!", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert contamination.runs("a b", 3) == set()


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        (EIGHT, True),
        (f"Zero {EIGHT.upper()}; nine.", True),
        (EIGHT.replace(" ", ",\n"), True),
        (EIGHT.removesuffix(" eight"), False),
        (EIGHT.replace("four", "4"), False),
        ("", False),
    ],
)
def test_eight_words_in_a_row(text: str, shares: bool) -> None:
    found = contamination.sharing({"q": f"Say {EIGHT} nine?"}, [text], 8)
    assert found == ({"q"} if shares else set())


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_a_longer_run_is_shared_only_where_a_shorter_one_is(one: list[str], two: list[str]) -> None:
    questions, texts = {"q": " ".join(one)}, [" ".join(two)]
    shared = [bool(contamination.sharing(questions, texts, length)) for length in (1, 2, 3, 4)]
    assert shared == sorted(shared, reverse=True)


def scores(folder: Path, marks: str) -> Scores:
    """Questions that are told apart by their last word."""
    found = read_scores(write_scores(folder, "cot", {"gate": marks}))
    questions = [f"{EIGHT} {place}" if place < 2 else "short" for place in range(len(marks))]
    return Scores(found.path, found.rows.assign(question=questions), found.conditions)


def test_the_gain_is_counted_again_without_them(tmp_path: Path) -> None:
    """Of five the first two share 8 words with a trajectory, and only they were gained."""
    base, tuned = scores(tmp_path / "base", "--+-+"), scores(tmp_path / "tuned", "+++-+")
    read = {"problems": [f"{EIGHT} 1"], "trajectories": [EIGHT]}
    found = contamination.of(base, tuned, read)["gate"]
    assert found["n"] == 5
    assert found["shared"]["8"] == {"problems": 2, "trajectories": 2, "any": 2}
    assert found["shared"]["13"] == {"problems": 0, "trajectories": 0, "any": 0}
    assert (found["without"]["n"], found["without"]["difference"]) == (3, 0)
    none = contamination.of(base, tuned, {"problems": []})["gate"]
    assert (none["shared"]["8"]["any"], none["without"]["n"]) == (0, 5)
    assert none["without"]["difference"] == pytest.approx(0.4)


def test_nothing_is_left_where_all_share(tmp_path: Path) -> None:
    base = scores(tmp_path / "base", "--")
    assert contamination.of(base, base, {"problems": [EIGHT]})["gate"]["without"] is None


def test_gsm8ks_own_splits() -> None:
    """Known: 80 of 1,319 test questions share 8 words with a training question, 3 share 13."""
    files = {split: SHARED / "gsm8k" / f"{split}.jsonl" for split in ("train", "test")}
    if not files["train"].is_file():
        pytest.skip("GSM8K is not here")
    train, test = (
        [json.loads(line)["question"] for line in file.read_text(encoding="utf-8").splitlines()]
        for file in files.values()
    )
    questions = {str(place): question for place, question in enumerate(test)}
    found = {n: len(contamination.sharing(questions, train, n)) for n in contamination.LENGTHS}
    assert found == {8: 80, 13: 3}
