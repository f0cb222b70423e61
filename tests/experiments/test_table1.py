"""The row of Table 1, from responses marked by hand (their gains: test_gains.py)."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_scores import write_scores

from lightreasoner import paper
from lightreasoner.evaluation.gains import VERDICTS, Asked, Cell
from lightreasoner.experiments.table1 import (
    ENDS,
    PUBLISHED,
    averaged_sets,
    cell_rows,
    gain_rows,
    headings,
    markdown,
    mean_percent,
    metrics,
    notes,
    percent,
    published_rows,
    rate_rows,
    table1,
    tables,
)

COT, CHAT = Asked("cot"), Asked("qwen25-math-cot")
# svamp and the set `own` are the same in all cells; `own` is none of the paper's
MARKS: dict[Cell, dict[str, str]] = {
    ("base", COT): {"own": "+", "svamp": "++-", "math500": "+---", "gsm8k": "++-------l"},
    ("base", CHAT): {"own": "+", "svamp": "++-", "math500": "++--", "gsm8k": "+++~----ll"},
    ("tuned", COT): {"own": "+", "svamp": "++-", "math500": "++--", "gsm8k": "+++++-----"},
    ("tuned", CHAT): {"own": "+", "svamp": "++-", "math500": "+++-", "gsm8k": "++++++++!-"},
}
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The table of the cells of MARKS, or of some, or of others."""

    def made(
        cells: dict[Cell, dict[str, str]] = MARKS,
        styles: tuple[Asked, Asked] = (COT, CHAT),
        expert: str | None = "qwen2.5-math-1.5b",
    ) -> dict[str, Any]:
        folders = {
            cell: write_scores(tmp_path / f"{cell[0]}-{cell[1].style}", cell[1].style, sets)
            for cell, sets in cells.items()
        }
        return table1(folders, *styles, expert)

    return made


def test_the_best_fitting_row_by_hand(make: Make) -> None:
    """gsm8k 20.0 to 80.0, math500 25.0 to 75.0, svamp 66.7 both.

    Means (20.0 + 25.0 + 66.7) / 3 = 37.2 and (80.0 + 75.0 + 66.7) / 3 = 73.9. By the strict
    verdict the tuned model has 90.0 on gsm8k: (90.0 + 75.0 + 66.7) / 3 = 77.2.
    """
    found = make()
    assert found["problems"] == {"gsm8k": 10, "math500": 4, "svamp": 3, "own": 1}
    assert found["averaged"] == ["gsm8k", "math500", "svamp"]
    assert found["missing"] == ["asdiv", "minerva_math", "olympiadbench", "mmlu_stem"]
    base, *_, tuned = found["cells"]
    assert (base["best_fitting"], tuned["best_fitting"]) == (True, True)
    assert base["mean_percent"] == {"qwen": 37.2, "strict": 37.2}
    assert tuned["mean_percent"] == {"qwen": 73.9, "strict": 77.2}
    assert tuned["scores"]["gsm8k"]["qwen"]["accuracy"] == 0.8
    assert [cell["best_fitting"] for cell in found["cells"][1:3]] == [False, False]


def test_the_gains_by_hand(make: Make) -> None:
    """Mean gains: total (6/10 + 2/4 + 0) / 3 = 11/30; format (2/10 + 1/4 + 0) / 3 = 3/20."""
    found = {
        (gain["gain"], gain["after"]["style"]): gain["mean"]["difference"]
        for gain in make()["gains"]["qwen"]
    }
    assert found == pytest.approx(
        {
            ("total", CHAT.style): 11 / 30,
            ("reasoning", COT.style): (3 / 10 + 1 / 4) / 3,
            ("reasoning", CHAT.style): (4 / 10 + 1 / 4) / 3,
            ("format", CHAT.style): 3 / 20,
        }
    )


def test_the_table_of_accuracies(make: Make) -> None:
    """Wilson of 2 of 10 is 5.7 to 51.0. The paper's (42.5 + 34.2 + 68.8) / 3 = 48.5."""
    found = make()
    columns = ["", "gsm8k (n 10)", "math500 for math (n 4)", "svamp (n 3)", "own (n 1)"]
    assert headings(found) == [*columns, "mean of 3 of 7"]
    table = cell_rows(found, "qwen", " ")
    assert [row[0] for row in table] == [
        "base model, cot (best-fitting)",
        "base model, qwen25-math-cot",
        "tuned model, cot",
        "tuned model, qwen25-math-cot (best-fitting)",
    ]
    assert table[0][1] == "20.0 (5.7-51.0)"
    assert [row[-1] for row in table] == ["37.2", "52.2", "55.6", "73.9"]
    assert [row[-1] for row in cell_rows(found, "strict")] == ["37.2", "48.9", "55.6", "77.2"]


def test_what_others_published_is_a_table_of_its_own(make: Make) -> None:
    """The paper's (42.5 + 34.2 + 68.8) / 3 = 48.5; others have no gsm8k, and so no mean."""
    table = published_rows(make())
    assert [row[0] for row in table] == [
        "paper (Wang et al. 2025), not ours: base",
        "paper (Wang et al. 2025), not ours: LightReasoner",
        *(
            f"Liu et al. 2025 (arXiv 2503.20783), not ours: base, {asked}"
            for asked in ("4-shot", "R1 template", "Qwen template", "no template")
        ),
    ]
    assert [row[-1] for row in table] == ["48.5", "68.6", *["–"] * 4]
    assert table[0][1:5] == ["42.5", "34.2", "68.8", "–"]
    assert table[-1][1:5] == ["–", "61.8", "–", "–"]


def test_of_an_expert_of_ones_own_nothing_is_published(make: Make) -> None:
    found = make(expert=None)
    assert published_rows(found) == []
    assert not any("ublished" in note for note in notes(found))


def test_the_table_of_gains(make: Make) -> None:
    """Total on gsm8k: 6 gained, p 2 / 2^6 = 0.031; times 4 sets 0.125.

    Of svamp's 3 problems none changed: 3.8415 / 6.8415 = 56.1% may be of a kind not seen, a third
    of which widens the mean over three sets.
    """
    table = gain_rows(make(), "qwen", "|")
    assert [row[0] for row in table] == [
        "total gain, from base model, cot to tuned model, qwen25-math-cot",
        "reasoning gain, both cot",
        "reasoning gain, both qwen25-math-cot",
        "format gain, from base model, cot to base model, qwen25-math-cot",
    ]
    points, p, ends = table[0][1].split("|")
    assert points == "+60.0 (+30.0 to +90.0)"
    assert p == "p 0.031, corrected 0.12"
    assert ends == "truncated 10.0% to 0.0%, no box 0.0% to 0.0%"
    assert table[0][-1].startswith("+36.7 (-")
    assert table[3][3].startswith("+0.0 (-56.1 to +56.1)|p 1, corrected 1|")


def test_the_table_of_how_responses_ended(make: Make) -> None:
    table = rate_rows(make())
    assert [row[0] for row in table][:2] == ["base model, cot", "base model, qwen25-math-cot"]
    assert table[1][1:] == ["20.0% / 30.0% / 10.0%", *["0.0% / 0.0% / 0.0%"] * 3, "–"]


def test_one_prompt_for_both_has_no_format_gain(make: Make) -> None:
    found = make({cell: sets for cell, sets in MARKS.items() if cell[1] == CHAT}, (CHAT, CHAT))
    assert [gain["gain"] for gain in found["gains"]["qwen"]] == ["total", "reasoning"]
    total, reasoning = found["gains"]["qwen"]
    assert total["scores"] == reasoning["scores"]
    said = "Both models have the same prompt: no format gain, and the total is by reasoning."
    assert said in notes(found)
    assert not any("format" in name for name in metrics(found))


def test_cells_that_were_not_evaluated_leave_gains_out(make: Make) -> None:
    found = make({cell: MARKS[cell] for cell in (("base", COT), ("tuned", CHAT))})
    assert [gain["gain"] for gain in found["gains"]["strict"]] == ["total"]
    assert notes(found)[-3:-1] == [
        "The base model was not evaluated under qwen25-math-cot: gains that need it are absent.",
        "The tuned model was not evaluated under cot: gains that need it are absent.",
    ]


def test_a_prompt_that_fits_better_than_the_best_fitting_is_named(make: Make) -> None:
    found = notes(make())
    named = (
        "base model, qwen25-math-cot has a higher mean by {} than best-fitting cot: "
        "{} against 37.2."
    )
    assert named.format("qwen", "52.2") in found
    assert named.format("strict", "48.9") in found
    assert sum("best-fitting" in note for note in found) == 2


def test_sets_of_ones_own_have_no_mean(make: Make) -> None:
    cells = {cell: {"own": sets["own"]} for cell, sets in MARKS.items()}
    found = make(cells, expert=None)
    assert [row[-1] for row in cell_rows(found)] == ["–"] * 4
    assert [row[-1] for row in gain_rows(found)] == ["–"] * 4
    assert headings(found)[-1] == "mean of 0 of 7"
    assert "No mean: none of the paper's seven benchmarks was evaluated." in notes(found)


def test_markdown_and_json(make: Make) -> None:
    found = make()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    text = markdown(found)
    assert "Gain that shows with 80% power" in text
    grids = [line for line in text.splitlines() if line.startswith("|  |")]
    assert len(grids) == 6
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {7}
    assert "| base model, cot (best-fitting) | 20.0<br>(5.7-51.0) |" in text
    missing = "missing: asdiv, minerva_math, olympiadbench, mmlu_stem."
    assert f"percentages over gsm8k, math500, svamp; {missing}" in text


def test_metrics(make: Make) -> None:
    found = metrics(make())
    assert found["best/tuned/gsm8k/strict"] == 0.9
    assert found["total_gain/gsm8k/qwen"] == pytest.approx(0.6)
    assert found["reasoning_gain_cot/gsm8k/qwen"] == pytest.approx(0.3)
    assert found["format_gain/gsm8k/strict"] == pytest.approx(0.1)
    # 2 best cells and 4 gains, of 4 sets by 2 verdicts
    assert len(found) == (2 + 4) * 4 * 2


def test_math_goes_before_what_stands_in_for_it() -> None:
    assert averaged_sets(["math500", "gsm8k"]) == ["gsm8k", "math500"]
    assert averaged_sets(["math500", "math", "own"]) == ["math"]
    assert averaged_sets(paper.BENCHMARKS) == list(paper.BENCHMARKS)


def test_the_paper_s_mean_of_seven_is_its_average() -> None:
    for expert, table in paper.TABLE_1.items():
        means = tuple(mean_percent(row) for row in table.values())
        assert means == paper.AVERAGES[expert]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_percent_is_what_the_toolkit_reports(counts: tuple[int, int]) -> None:
    """The toolkit rounds the mean of booleans times 100 with numpy."""
    correct, n = counts
    mean = np.mean([True] * correct + [False] * (n - correct))
    assert percent(correct / n) == np.round(mean * 100, decimals=1)


def test_what_is_the_same_stands_there_once(make: Make) -> None:
    """One prompt, marks on which both verdicts agree: three tables, of two models and one gain."""
    cells = {(model, COT): {"own": marks} for model, marks in (("base", "+--"), ("tuned", "++-"))}
    found = make(cells, (COT, COT))
    shown = tables(found)
    assert list(shown) == ["Accuracy, qwen and strict", "Gains, qwen and strict", ENDS]
    assert [row[0] for row in shown["Gains, qwen and strict"]] == ["total gain, both cot"]
    assert [gain["gain"] for gain in found["gains"]["qwen"]] == ["total", "reasoning"]


def test_verdicts_that_differ_have_a_table_each(make: Make) -> None:
    kinds = [f"{kind}, {verdict}" for kind in ("Accuracy", "Gains") for verdict in VERDICTS]
    assert list(tables(make())) == [*kinds, ENDS, PUBLISHED]


def test_a_set_that_is_called_as_a_model_cannot_be_taken_for_it(make: Make) -> None:
    cells = {(model, COT): {"tuned": "+", "base": "-"} for model in ("base", "tuned")}
    found = make(cells, (COT, COT))
    sets = headings(found)[1:-1]
    models = [row[0] for row in cell_rows(found)]
    assert sets == ["tuned (n 1)", "base (n 1)"]
    assert all(re.match("(base|tuned) model, ", each) for each in models)
