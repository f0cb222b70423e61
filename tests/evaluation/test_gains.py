"""Base and tuned model under two prompts, from responses marked by hand.

gsm8k      qwen   strict
B_b  ++-------l   2    2
B_t  +++~----ll   4    3
T_b  +++++-----   5    5
T_t  ++++++++!-   8    9   of 10
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_scores import MARKS, write_frame, write_scores

from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import gains, pairing
from lightreasoner.evaluation.gains import Cell, Sets, Verdict
from lightreasoner.statistics import bootstrap_interval, wilson_interval

STYLES = COT, CHAT = "cot", "qwen25-math-cot"
GSM8K: dict[Cell, str] = {
    ("base", COT): "++-------l",
    ("base", CHAT): "+++~----ll",
    ("tuned", COT): "+++++-----",
    ("tuned", CHAT): "++++++++!-",
}


def sets(**marks: str) -> Sets:
    rows = [
        {
            "problem_set": name,
            "problem_id": f"{name}/{place:05d}",
            "finish_reason": "stop",
            **MARKS[mark],
        }
        for name, each in marks.items()
        for place, mark in enumerate(each)
    ]
    return gains.by_set(pd.DataFrame(rows))


@pytest.fixture
def written(tmp_path: Path) -> dict[Cell, Path]:
    return {
        cell: write_scores(tmp_path / "-".join(cell), cell[1], {"gsm8k": marks})
        for cell, marks in GSM8K.items()
    }


def test_the_rates_of_a_cell_by_hand() -> None:
    """+++~----ll: 4 right by qwen and 3 by strict; 2 cut; 3 without an answer; 1 without a box."""
    found = gains.score(sets(gsm8k=GSM8K["base", CHAT])["gsm8k"])
    assert found == {
        "n": 10,
        "responses": 10,
        "qwen": {"accuracy": 0.4, "ci95": list(wilson_interval(4, 10))},
        "strict": {"accuracy": 0.3, "ci95": list(wilson_interval(3, 10))},
        "truncated": 0.2,
        "no_answer": pytest.approx(0.3),
        "no_box": 0.1,
    }


def test_several_responses_are_one_value_a_problem(tmp_path: Path) -> None:
    """Two a problem, ++ +- --: shares 1, 1/2, 0, not 3 of 6."""
    out = write_scores(tmp_path / "two", COT, {"a": "+++---"}, responses=2)
    rows = gains.by_set(pairing.read_scores(out).rows)["a"]
    found = gains.score(rows.sample(frac=1, random_state=1))
    assert (found["n"], found["responses"], found["qwen"]["accuracy"]) == (3, 6, 0.5)
    shares = pd.Series([1, 0.5, 0]).to_numpy()
    assert found["qwen"]["ci95"] == list(bootstrap_interval(shares))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "gained", "lost", "p"),
    [
        # by hand: 2 / 2^6, 2 / 2^3, 2 / 2^4, 2 / 2^2
        (("base", COT), ("tuned", CHAT), "qwen", 6, 0, 1 / 32),
        (("base", COT), ("tuned", COT), "qwen", 3, 0, 1 / 4),
        (("base", CHAT), ("tuned", CHAT), "qwen", 4, 0, 1 / 8),
        (("base", COT), ("base", CHAT), "qwen", 2, 0, 1 / 2),
        (("tuned", CHAT), ("tuned", COT), "qwen", 0, 3, 1 / 4),
        (("base", CHAT), ("tuned", CHAT), "strict", 6, 0, 1 / 32),
    ],
)
def test_gains_by_hand(
    before: Cell, after: Cell, verdict: Verdict, gained: int, lost: int, p: float
) -> None:
    first, second = (sets(gsm8k=GSM8K[cell]) for cell in (before, after))
    found = gains.gain(first, second, ["gsm8k"], verdict)["scores"]["gsm8k"]
    assert (found["gained"], found["lost"]) == (gained, lost)
    assert found["difference"] == pytest.approx((gained - lost) / 10)
    assert found["p"] == found["p_holm"] == pytest.approx(p)
    assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    assert found["truncated"] == [
        GSM8K[before].count("l") / 10,
        GSM8K[after].count("l") / 10,
    ]


def test_p_is_corrected_over_the_sets_and_the_mean_is_over_the_averaged() -> None:
    """p of 5, 3 and 0 gained: 1/16, 1/4, 1; times 3, 2, 1: 3/16, 1/2, 1.

    The mean over a and b is (5/5 + 3/6) / 2 = 3/4; c is not of it.
    """
    before, after = sets(a="-----", b="------", c="-+"), sets(a="+++++", b="+++---", c="-+")
    found = gains.gain(before, after, ["a", "b"], "qwen")
    assert [each["p"] for each in found["scores"].values()] == [1 / 16, 1 / 4, 1]
    assert [each["p_holm"] for each in found["scores"].values()] == [3 / 16, 1 / 2, 1]
    assert found["mean"]["difference"] == pytest.approx(0.75)
    assert found["mean"]["ci95"][0] <= 0.75 <= found["mean"]["ci95"][1]
    assert gains.gain(before, after, [], "qwen")["mean"] is None


def test_the_gains_of_two_prompts_and_of_one() -> None:
    assert gains.comparisons(COT, CHAT) == [
        ("total", ("base", COT), ("tuned", CHAT)),
        ("reasoning", ("base", COT), ("tuned", COT)),
        ("reasoning", ("base", CHAT), ("tuned", CHAT)),
        ("format", ("base", COT), ("base", CHAT)),
    ]
    assert [kind for kind, _, _ in gains.comparisons(CHAT, CHAT)] == ["total", "reasoning"]


@settings(max_examples=10)
@given(st.lists(st.tuples(*[st.sampled_from("+~!-l")] * 4), min_size=1, max_size=20))
def test_the_total_is_format_and_reasoning(marks: list[tuple[str, ...]]) -> None:
    columns = ["".join(each) for each in zip(*marks, strict=True)]
    cells = {cell: sets(a=each) for cell, each in zip(GSM8K, columns, strict=True)}
    for verdict in gains.VERDICTS:
        found: dict[Any, float] = {}
        for kind, before, after in gains.comparisons(COT, CHAT):
            gain = gains.gain(cells[before], cells[after], ["a"], verdict)
            found[kind, after[1]] = gain["scores"]["a"]["difference"]
        parts = found["format", CHAT] + found["reasoning", CHAT]
        assert found["total", CHAT] == pytest.approx(parts)


def test_cells_come_base_first(written: dict[Cell, Path]) -> None:
    shuffled = dict(reversed(written.items()))
    found = gains.read_cells(shuffled, COT, CHAT)
    assert list(found) == list(GSM8K)
    assert next(iter(gains.read_cells(shuffled, CHAT, COT))) == ("base", CHAT)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("base", COT), "no scores of the base model under cot; evaluate it"),
        (("tuned", CHAT), "no scores of the tuned model under qwen25-math-cot; evaluate it"),
    ],
)
def test_a_needed_cell_that_is_missing_is_named(
    written: dict[Cell, Path], cell: Cell, message: str
) -> None:
    del written[cell]
    with pytest.raises(ArtifactError, match=message):
        gains.read_cells(written, COT, CHAT)


def test_cells_that_differ_are_refused(written: dict[Cell, Path], tmp_path: Path) -> None:
    def read(**changed: Path) -> None:
        by_name = {"base": ("base", COT), "tuned_cot": ("tuned", COT), "tuned": ("tuned", CHAT)}
        gains.read_cells(written | {by_name[name]: path for name, path in changed.items()}, *STYLES)

    read()
    fewer = write_scores(tmp_path / "fewer", CHAT, {"gsm8k": "+++"})
    with pytest.raises(ArtifactError, match="not of the same problems: 7 rows differ"):
        read(tuned=fewer)
    longer = write_scores(tmp_path / "l", CHAT, {"gsm8k": "+" * 10}, max_new_tokens=9)
    with pytest.raises(ArtifactError, match="different conditions"):
        read(tuned=longer)
    with pytest.raises(ArtifactError, match="under the style qwen25-math-cot, not cot"):
        read(tuned_cot=written["tuned", CHAT])
    other = pairing.read_scores(written["tuned", CHAT])
    prompts = other.rows.assign(prompt="another")
    write_frame(written["tuned", CHAT], prompts, other.conditions)
    with pytest.raises(ArtifactError, match="different prompts for 10 problems"):
        read()
    with pytest.raises(ArtifactError, match="has no problems"):
        read(base=write_scores(tmp_path / "empty", COT, {}))
