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
from lightreasoner.inference.prompts import CUE, fill

EIGHT = "one two three four five six seven eight"


def test_runs_by_hand() -> None:
    read = contamination.words("A b, c-D!")
    assert contamination.runs(read, 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert contamination.runs(("a", "b"), 3) == set()


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


@pytest.mark.parametrize(
    ("question", "shares"),
    [
        (r"Simplify $\sqrt{242}$.", True),
        (r"simplify \sqrt {242}", True),
        (r"Simplify $\sqrt{243}$.", False),
        ("2+2?", False),
        ("...", False),
    ],
)
@pytest.mark.parametrize("length", contamination.LENGTHS)
def test_a_short_question_is_the_whole_of_a_text(question: str, shares: bool, length: int) -> None:
    texts = [
        r"Simplify $\sqrt{242}$.",
        "Tom has 2 apples and 2+2 pears. How many has he?",
        "?",
    ]
    assert contamination.sharing({"q": question}, texts, length) == ({"q"} if shares else set())


@pytest.mark.parametrize("style", ["qwen25-math-cot", "cot", "none"])
def test_a_styles_words_do_not_count(style: str) -> None:
    """Of prompts that all begin and end alike, what differs is compared."""
    asked = [r"Compute $\sin 60^\circ$.", "Compute 7 + 5.", f"{EIGHT} nine?"]
    prompts = [fill(style, question) for question in asked]
    others = {"cue": f"Find all primes. {CUE}", "user": "user", "sum": "7 + 5 + 6", "empty": ""}
    questions = others | dict(zip("abc", asked, strict=True))
    assert contamination.sharing(questions, prompts, 8) == {"a", "b", "c"}


def test_problems_that_all_begin_alike_keep_their_beginning() -> None:
    """`Compute` belongs to the problems, though it cannot be told from the style's words."""
    prompts = [fill("cot", f"Compute the sum {a} + 5.") for a in range(3)]
    questions = {str(a): f"Compute the sum {a} + 5." for a in (2, 3)}
    assert contamination.sharing(questions, prompts, 8) == {"2"}


def test_chinese_and_japanese_characters_are_words() -> None:
    assert contamination.words("小明有35个apples、りんご2コ") == (
        "小", "明", "有", "35", "个", "apples", "り", "ん", "ご", "2", "コ",
    )  # fmt: skip
    text = "小明有3个苹果,又买了4个苹果。小明现在一共有多少个苹果?"
    found = [contamination.sharing({"q": text}, [f"题目:{text}"], n) for n in (8, 13)]
    assert found == [{"q"}, {"q"}]


def scores(folder: Path, marks: str) -> Scores:
    """Questions that are told apart by their last word."""
    found = read_scores(write_scores(folder, "cot", {"gate": marks}))
    questions = [f"{EIGHT} {place}" if place < 2 else "short" for place in range(len(marks))]
    return Scores(found.path, found.rows.assign(question=questions), found.conditions)


def test_the_gain_is_counted_again_without_them(tmp_path: Path) -> None:
    """Of five the first two share 8 words with a trajectory, and only they were gained; the second
    is a training problem as it stands, of 9 words."""
    base, tuned = scores(tmp_path / "base", "--+-+"), scores(tmp_path / "tuned", "+++-+")
    read = {"problems": [f"{EIGHT} 1"], "trajectories": [EIGHT]}
    found = contamination.of(base, tuned, read)["gate"]
    assert found["n"] == 5
    assert found["shared"]["8"] == {"problems": 2, "trajectories": 2, "any": 2}
    assert found["shared"]["13"] == {"problems": 1, "trajectories": 0, "any": 1}
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
