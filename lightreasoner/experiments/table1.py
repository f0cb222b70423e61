"""An expert's row of the paper's Table 1, with its gain taken apart (gains.py).

A tree of fractions, and that tree as tables in percent and points. The mean is the paper's: over
seven benchmarks, or over those of them that were evaluated, which it then says.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightreasoner import formatting, paper
from lightreasoner.evaluation import gains
from lightreasoner.evaluation.gains import RATES, VERDICTS, Cell, Sets, Verdict
from lightreasoner.formatting import NONE, difference, interval, markdown_table, p_value
from lightreasoner.paper import BENCHMARKS

STAND_INS = {"math": "math500"}
"""What may stand for a benchmark in the mean: 500 of MATH's 5,000 problems."""

ENDS = "Responses that were truncated / had no answer / had no box"
"""The title of `rate_rows`."""


def table1(
    scores: Mapping[Cell, Path], base_style: str, style: str, expert: str | None = None
) -> dict[str, Any]:
    """The table as a tree, from the directory of scores of each cell.

    Two cells may be missing, base under `style` and tuned under `base_style`; gains that need one
    are then absent. `expert` names a preset, for the paper's numbers. Raises ArtifactError as
    `gains.read_cells`.
    """
    read = gains.read_cells(scores, base_style, style)
    cells = {cell: _in_order(gains.by_set(each.rows)) for cell, each in read.items()}
    first = ("base", base_style), ("tuned", style)
    sets = cells["base", base_style]
    averaged = averaged_sets(list(sets))
    conditions = read["base", base_style].conditions.items()
    return {
        "expert": expert,
        "base_style": base_style,
        "style": style,
        "conditions": {name: value for name, value in conditions if name != "style"},
        "problems": {name: rows["problem_id"].nunique() for name, rows in sets.items()},
        "averaged": averaged,
        "missing": [each for each in BENCHMARKS if _standing(each, averaged) not in averaged],
        "cells": [
            {**_named(cell), "best_fitting": cell in first, **_cell(each, averaged)}
            for cell, each in cells.items()
        ],
        "gains": {
            verdict: [
                {
                    "gain": kind,
                    "before": _named(before),
                    "after": _named(after),
                    **gains.gain(cells[before], cells[after], averaged, verdict),
                }
                for kind, before, after in gains.comparisons(base_style, style)
                if before in cells and after in cells
            ]
            for verdict in VERDICTS
        },
    }


def _named(cell: Cell) -> dict[str, str]:
    return {"model": cell[0], "style": cell[1]}


def _in_order(sets: Sets) -> Sets:
    """The paper's benchmarks in its order, a stand-in behind its own, then what else there is."""
    known = [name for each in BENCHMARKS for name in (each, STAND_INS.get(each, each))]
    return {name: sets[name] for name in dict.fromkeys([*known, *sets]) if name in sets}


def _standing(benchmark: str, names: Sequence[str]) -> str:
    return benchmark if benchmark in names else STAND_INS.get(benchmark, benchmark)


def averaged_sets(names: Sequence[str]) -> list[str]:
    """Those sets that the mean is over; math500 is one of them only where there is no math."""
    standing = [_standing(benchmark, names) for benchmark in BENCHMARKS]
    return [name for name in standing if name in names]


def _cell(sets: Sets, averaged: Sequence[str]) -> dict[str, Any]:
    scores = {name: gains.score(rows) for name, rows in sets.items()}
    means = {
        verdict: mean_percent([percent(scores[name][verdict]["accuracy"]) for name in averaged])
        for verdict in VERDICTS
    }
    return {"scores": scores, "mean_percent": means}


def percent(fraction: float) -> float:
    """Percent to one decimal, rounded as the Qwen2.5-Math toolkit rounds (numpy's round)."""
    return float(np.round(100 * fraction, 1))


def mean_percent(percentages: Sequence[float]) -> float | None:
    """The plain mean of percentages, to one decimal; None of none."""
    return float(np.round(np.mean(percentages), 1)) if percentages else None


def metrics(table: Mapping[str, Any]) -> dict[str, float]:
    """`best/<model>/<set>/<verdict>` and `<gain>/<set>/<verdict>`, fractions.

    A reasoning gain is `reasoning_gain_<style>`, of the style that both models have.
    """
    best = {
        f"best/{cell['model']}/{name}/{verdict}": score[verdict]["accuracy"]
        for cell in table["cells"]
        if cell["best_fitting"]
        for name, score in cell["scores"].items()
        for verdict in VERDICTS
    }
    differences = {
        f"{_metric(gain)}/{name}/{verdict}": score["difference"]
        for verdict, found in table["gains"].items()
        for gain in found
        for name, score in gain["scores"].items()
    }
    return best | differences


def _metric(gain: Mapping[str, Any]) -> str:
    style = f"_{gain['after']['style']}" if gain["gain"] == "reasoning" else ""
    return f"{gain['gain']}_gain{style}"


def headings(table: Mapping[str, Any]) -> list[str]:
    """The columns of all three kinds of rows: one per set, then the mean and of how many sets it
    is."""
    sets = [
        f"{name}{' for math' if name in STAND_INS.values() and name in table['averaged'] else ''}"
        f" (n {n})"
        for name, n in table["problems"].items()
    ]
    return ["", *sets, f"mean of {len(table['averaged'])} of {len(BENCHMARKS)}"]


def cell_rows(
    table: Mapping[str, Any], verdict: Verdict = "qwen", line_break: str = "\n"
) -> list[list[str]]:
    """Accuracies of the cells by one verdict; the paper's beside the toolkit's, which it used.

    `line_break` parts an accuracy from its interval.
    """
    found = [
        [
            _title(cell) + (" (best-fitting)" if cell["best_fitting"] else ""),
            *(_accuracy(score[verdict], line_break) for score in cell["scores"].values()),
            _or_none(cell["mean_percent"][verdict]),
        ]
        for cell in table["cells"]
    ]
    return found + (_published_rows(table) if verdict == "qwen" else [])


def _title(cell: Mapping[str, Any]) -> str:
    return f"{cell['model']}, {cell['style']}"


def _accuracy(score: Mapping[str, Any], line_break: str) -> str:
    return f"{percent(score['accuracy']):.1f}{line_break}({interval(score['ci95'])})"


def _or_none(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _published_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """The paper's rows of the same benchmarks, and its mean over them."""
    found = []
    for name, values in paper.TABLE_1.get(table["expert"], {}).items():
        by_set = {
            _standing(benchmark, table["averaged"]): value
            for benchmark, value in zip(BENCHMARKS, values, strict=True)
        }
        mean = mean_percent([by_set[each] for each in table["averaged"]])
        cells = [_or_none(by_set.get(each)) for each in table["problems"]]
        found.append([f"{paper.LABEL}: {name}", *cells, _or_none(mean)])
    return found


def gain_rows(
    table: Mapping[str, Any], verdict: Verdict = "qwen", line_break: str = "\n"
) -> list[list[str]]:
    """Gains in points, with interval, p and corrected p, and how responses ended before and after.

    `line_break` parts these from each other.
    """
    return [
        [
            _gain_title(gain),
            *(line_break.join(_gain_lines(score)) for score in gain["scores"].values()),
            difference(gain["mean"]) if gain["mean"] else NONE,
        ]
        for gain in table["gains"][verdict]
    ]


def _gain_title(gain: Mapping[str, Any]) -> str:
    before, after = gain["before"], gain["after"]
    if gain["gain"] == "reasoning":
        return f"reasoning gain, both {before['style']}"
    return f"{gain['gain']} gain, from {_title(before)} to {_title(after)}"


def _gain_lines(score: Mapping[str, Any]) -> list[str]:
    truncated, no_box = (
        f"{formatting.percent(before)} to {formatting.percent(after)}"
        for before, after in (score["truncated"], score["no_box"])
    )
    return [
        difference(score),
        f"p {p_value(score['p'])}, corrected {p_value(score['p_holm'])}",
        f"truncated {truncated}, no box {no_box}",
    ]


def rate_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """The share of a cell's responses that were truncated / had no answer / had no box."""
    return [
        [
            _title(cell),
            *(
                " / ".join(formatting.percent(score[rate]) for rate in RATES)
                for score in cell["scores"].values()
            ),
            NONE,
        ]
        for cell in table["cells"]
    ]


def notes(table: Mapping[str, Any]) -> list[str]:
    """What the tables need to be read: how their numbers are made, and what is missing."""
    return [
        "Accuracy in percent with 95% intervals over problems (Wilson's; the bootstrap's where a "
        "problem has several responses). Best-fitting: the prompt chosen to report a model under "
        "(the paper's appendix G). qwen is the Qwen2.5-Math toolkit's verdict, strict is ours.",
        "Gains in points on the same problems, with paired bootstrap intervals; p is McNemar's, "
        "corrected over the row's sets (Holm). Format is what the base gains by the other prompt "
        f"alone; total = format + reasoning under {table['style']}. A reasoning gain still holds "
        "what tuning taught of form: see the truncated, and those without a box, before and after "
        "(cot does not ask for a box).",
        *_mean_notes(table),
        *_choice_notes(table),
        *_absent_notes(table),
        *([_PAPER] if table["expert"] in paper.TABLE_1 else []),
    ]


_PAPER = (
    "The paper's rows are from its Table 1 (arXiv 2510.07962), its math being all 5,000 problems; "
    "their mean is over the same benchmarks as the mean above them. No interval is given there."
)


def _mean_notes(table: Mapping[str, Any]) -> list[str]:
    averaged, missing = table["averaged"], table["missing"]
    if not averaged:
        return ["No mean: none of the paper's seven benchmarks was evaluated."]
    over = f"Mean: the plain mean of percentages over {', '.join(averaged)}"
    return [f"{over}; missing: {', '.join(missing)}." if missing else f"{over}."]


def _choice_notes(table: Mapping[str, Any]) -> list[str]:
    """Where a model's mean is higher under another prompt than the one called best-fitting."""
    chosen = {cell["model"]: cell for cell in table["cells"] if cell["best_fitting"]}
    return [
        f"{_title(cell)} has a higher mean by {verdict} than best-fitting "
        f"{chosen[cell['model']]['style']}: {found:.1f} against {reported:.1f}."
        for verdict in VERDICTS
        for cell in table["cells"]
        if (found := cell["mean_percent"][verdict] or 0.0)
        > (reported := chosen[cell["model"]]["mean_percent"][verdict] or 0.0)
    ]


def _absent_notes(table: Mapping[str, Any]) -> list[str]:
    styles = table["base_style"], table["style"]
    if styles[0] == styles[1]:
        return ["Both models have the same prompt, so there is no format gain."]
    there = {(cell["model"], cell["style"]) for cell in table["cells"]}
    absent = [cell for cell in (("base", styles[1]), ("tuned", styles[0])) if cell not in there]
    return [
        f"{model} was not evaluated under {style}: gains that need it are absent."
        for model, style in absent
    ]


def markdown(table: Mapping[str, Any]) -> str:
    """Accuracies and gains by both verdicts, the rates and the notes."""
    grid = functools.partial(markdown_table, headings(table))
    parts = []
    for verdict in VERDICTS:
        parts += [f"Accuracy, {verdict}", grid(cell_rows(table, verdict, "<br>"))]
    for verdict in VERDICTS:
        parts += [f"Gains, {verdict}", grid(gain_rows(table, verdict, "<br>"))]
    return "\n\n".join([*parts, ENDS, grid(rate_rows(table)), *notes(table)]) + "\n"
