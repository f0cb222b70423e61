r"""What is left of a gain, from responses marked by hand.

Eight problems, whose halves are the even and the odd places:

              all        even  odd
base  chat    +-------   1     0     as it is reported
      none    ++++----   2     2
      chat,4  ++------   1     1
      none,4  +++++---   3     2
tuned chat    ++++++--   3     3     as it is reported, and best; the others have none

On the odd half none and none,4 are equal, and the first is chosen, to be read on the even half: 2
of 4. On the even half none,4 is chosen and read on the odd one: 2 of 4. So the base at its best has
4 of 8, not the 5 of the cell that is best on all.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_scores import write_scores

from lightreasoner.evaluation import gains
from lightreasoner.evaluation.gains import Asked, Cell
from lightreasoner.experiments import controls, table1

CHAT, NONE = Asked("chat"), Asked("none")
SHOWN = CHAT._replace(shots=4), NONE._replace(shots=4)
WAYS = (CHAT, NONE, *SHOWN)
BASE = dict(zip(WAYS, ("+-------", "++++----", "++------", "+++++---"), strict=True))
TUNED = {way: "++++++--" if way == CHAT else "-" * 8 for way in WAYS}
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(
        base: dict[Asked, str] = BASE, tuned: dict[Asked, str] = TUNED, name: str = "own"
    ) -> dict[str, Any]:
        cells: dict[Cell, Path] = {}
        for model, marks in (("base", base), ("tuned", tuned)):
            for way, each in marks.items():
                out = tmp_path / f"{model}-{'-'.join(map(str, way))}"
                shots, limit = way.shots or 0, way.max_new_tokens or 2048
                conditions = {"shots": {name: shots}, "max_new_tokens": limit}
                cells[model, way] = write_scores(out, way.style, {name: each}, **conditions)
        return controls.controls(cells, CHAT, CHAT, "qwen2.5-math-1.5b")

    return made


def by_kind(found: dict[str, Any], verdict: str = "qwen") -> dict[str, float]:
    """The difference of each gain; of the two for reasoning the last, what is left."""
    return {gain["gain"]: gain["mean"]["difference"] for gain in found["gains"][verdict]}


def test_the_parts_by_hand(make: Make) -> None:
    """Total (6 - 1) / 8; prompt (4 - 1) / 8; examples: none gained on the odd half; left 2 / 8."""
    found = make()
    assert by_kind(found) == pytest.approx(
        {"total": 5 / 8, "format": 3 / 8, "few_shot": 0.0, "reasoning": 2 / 8}
    )
    assert found["best"]["qwen"] == [
        {"base": {"model": "base", "style": "none"}, "tuned": {"model": "tuned", "style": "chat"}},
        {
            "base": {"model": "base", "style": "none", "shots": 4},
            "tuned": {"model": "tuned", "style": "chat"},
        },
    ]
    *_, gain = (gain for gain in found["gains"]["qwen"] if gain["gain"] == "reasoning")
    left = gain["scores"]["own"]
    assert (left["gained"], left["lost"], left["p"]) == (2, 0, 0.5)
    assert left["ci95"][0] <= 0.25 <= left["ci95"][1]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_add_up(make: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ways = [Asked(s, k, n) for s in ("chat", "none") for k in (None, 4) for n in (None, 64)]
    drawn = [
        {way: "".join(rng.choice(list("+-~!l"), 12)) for way in ways} for _ in ("base", "tuned")
    ]
    found = make(*drawn)
    for verdict in gains.VERDICTS:
        parts = by_kind(found, verdict)
        assert parts.pop("total") == pytest.approx(sum(parts.values()))


def test_a_model_that_is_best_as_reported_has_nothing_apart(make: Make) -> None:
    """Of equal cells the reported one is taken, so that total and what is left are one gain."""
    found = make(dict.fromkeys(WAYS, "++------"), dict.fromkeys(WAYS, "++++++--"))
    assert by_kind(found) == {"total": 0.5, "reasoning": 0.5}
    assert len(found["gains"]["qwen"]) == 2


@pytest.mark.parametrize(
    ("base", "tuned", "said"),
    [
        ("-" * 40, "+" * 20 + "-" * 20, r"is \+50.0 .* a gain is left that the base has by none"),
        ("+" * 20 + "-" * 20, "-" * 40, r"is -50.0 .* the base at its best is ahead"),
        (
            "++--" * 10,
            "++--" * 9 + "+++-",
            r"is \+2.5 .*: what is left cannot be told from nothing",
        ),
    ],
)
def test_what_is_left_in_words(make: Make, base: str, tuned: str, said: str) -> None:
    """The base has by `none` what it has; as it is reported, nothing."""
    worst = "-" * 40
    found = make({CHAT: worst, NONE: base}, {CHAT: tuned, NONE: worst})
    for verdict in gains.VERDICTS:
        assert re.match(f"By {verdict}, .*{said}", found["left"][verdict])
    if "+" in base:
        assert ") is the prompt style): " in found["left"]["qwen"]
    assert controls.markdown(found).startswith("By qwen, the tuned model at its best is ")


def test_a_set_of_one_problem_has_one_half(make: Make) -> None:
    found = make({CHAT: "-", NONE: "+"}, {CHAT: "+", NONE: "-"})
    assert by_kind(found)["total"] == 1.0


def test_the_tables_and_the_metrics(make: Make) -> None:
    found = make(name="math500")
    tables = table1.tables(found)
    assert [row[0] for row in tables["Accuracy, qwen and strict"]] == [
        "base model, chat (best-fitting)", "base model, none",
        "base model, chat, 4-shot", "base model, none, 4-shot",
        "tuned model, chat (best-fitting)", "tuned model, none",
        "tuned model, chat, 4-shot", "tuned model, none, 4-shot",
    ]  # fmt: skip
    assert [row[0] for row in tables["Gains, qwen and strict"]] == [
        "total gain, both chat",
        "reasoning gain, each half with the cells chosen on the other",
        "format gain, from base model, chat to base model, none",
        "few-shot gain, each half with the cells chosen on the other",
    ]
    assert table1.headings(found)[-1] == "mean of 1 of 7"
    assert tables[table1.PUBLISHED][-1][-1] == "61.8"
    metrics = controls.metrics(found)
    assert metrics["base/none_4-shot/math500/qwen"] == 5 / 8
    assert metrics["reasoning_gain/math500/strict"] == metrics["reasoning_gain/mean/strict"] == 0.25
    assert len(metrics) == 2 * (8 + 4 * 2)
    text = controls.markdown(found)
    assert "Best by strict, each chosen on a half: base none / none, 4-shot; tuned chat." in text


def test_sets_of_ones_own_have_a_mean(make: Make) -> None:
    found = make()
    assert (found["averaged"], table1.headings(found)[-1]) == (["own"], "mean of 1 of 1")


@pytest.mark.slow
def test_a_best_of_equal_cells_is_not_lucky_on_the_other_half() -> None:
    """Twelve ways, all with a chance of 1/2: the best of them on all of 100 problems has about 58%
    (1.63 standard deviations), the one that is chosen on the other half has 50%."""
    rng = np.random.default_rng(0)
    ids = [f"a/{place:05d}" for place in range(100)]
    lucky, fair = [], []
    for _ in range(40):
        cells = {
            (model, Asked(f"{way}")): {
                "a": pd.DataFrame({"problem_id": ids, "qwen": rng.random(100) < 0.5})
            }
            for model in ("base", "tuned")
            for way in range(12)
        }
        own = Asked("0")
        chosen = controls.by_halves(own, own, cells, ["a"], "qwen")
        parts = [part(cells["base", base])["a"]["qwen"] for part, base, _ in chosen]
        fair.append(pd.concat(parts).mean())
        lucky.append(max(sets["a"]["qwen"].mean() for sets in cells.values()))
    assert np.mean(lucky) > 0.56
    assert np.mean(fair) == pytest.approx(0.5, abs=0.025)  # 3 standard errors of 0.05 / 40 ** 0.5
