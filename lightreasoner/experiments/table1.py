"""An expert's row of the paper's Table 1, with its gain taken apart (gains.py).

A tree of fractions, and that tree as tables in percent and points: cells are a model and how it was
asked, of which the row has two prompts for each model and controls.py any number. The mean is the
paper's: over seven benchmarks, or over those of them that were evaluated, which it then says.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightreasoner import formatting, published
from lightreasoner.evaluation import gains, power
from lightreasoner.evaluation.gains import RATES, VERDICTS, Asked, Cell, Sets, Verdict
from lightreasoner.formatting import NONE, difference, interval, markdown_table, p_value
from lightreasoner.paper import BENCHMARKS

STAND_INS = {"math": "math500"}
"""What may stand for a benchmark in the mean: 500 of MATH's 5,000 problems."""

ENDS = "Responses that were truncated / had no answer / had no box"
"""The title of `rate_rows`."""


PUBLISHED = "Published by others, not measured here"
"""The title of `published_rows`."""

Cells = dict[Cell, Sets]
Choice = tuple[Callable[[Sets], Sets], Asked, Asked]
"""For a part of the problems: how the base is asked at its best, and how the tuned model is."""

Choose = Callable[[Cells, Sequence[str], Verdict], list[Choice]]
"""The choices, which cover each problem once, from all cells, the averaged sets and a verdict."""


def table1(
    scores: Mapping[Cell, Path], start: Asked, tuned: Asked, expert: str | None = None
) -> dict[str, Any]:
    """The table as a tree, from the directory of scores of each cell.

    `start` is how the base is reported, `tuned` how the tuned model is. The other two of their four
    cells may be missing; gains that need one are then absent. `expert` names a preset, for the
    paper's numbers. Raises ArtifactError as `gains.read_cells`.
    """
    return tree(scores, start, tuned, expert, lambda *_: [(dict, tuned, tuned)])


def tree(
    scores: Mapping[Cell, Path],
    start: Asked,
    tuned: Asked,
    expert: str | None,
    choose: Choose,
    of_own_sets: bool = False,
) -> dict[str, Any]:
    """The tree of any cells; `choose` says between which of them the gain is taken apart.

    `of_own_sets`: where none is the paper's, the mean is over all sets.
    """
    read = gains.read_cells(scores, start, tuned)
    cells = {cell: _in_order(gains.by_set(each.rows)) for cell, each in read.items()}
    reported = ("base", start), ("tuned", tuned)
    sets = cells["base", start]
    papers = averaged_sets(list(sets))
    averaged = papers or (list(sets) if of_own_sets else [])
    choices = {verdict: choose(cells, averaged, verdict) for verdict in VERDICTS}
    conditions = read["base", start].conditions.items()
    return {
        "expert": expert,
        "base_style": start.style,
        "style": tuned.style,
        "conditions": {name: value for name, value in conditions if name != "style"},
        "problems": {name: rows["problem_id"].nunique() for name, rows in sets.items()},
        "averaged": averaged,
        "missing": [each for each in BENCHMARKS if _standing(each, averaged) not in averaged]
        if papers == averaged
        else [],
        "cells": [
            {**named(cell), "best_fitting": cell in reported, **_cell(each, averaged)}
            for cell, each in cells.items()
        ],
        "best": {
            verdict: [
                {"base": named(("base", base)), "tuned": named(("tuned", after))}
                for _, base, after in each
            ]
            for verdict, each in choices.items()
        },
        "gains": {
            verdict: _gains(cells, start, each, averaged, verdict)
            for verdict, each in choices.items()
        },
    }


def _gains(
    cells: Cells, start: Asked, choices: list[Choice], averaged: Sequence[str], verdict: Verdict
) -> list[dict[str, Any]]:
    """Each gain once, of those whose cells are there and of which any part compares two."""
    paths = [gains.comparisons(start, base, tuned) for _, base, tuned in choices]
    found: dict[Any, dict[str, Any]] = {}
    for steps in zip(*paths, strict=True):
        kind, *firsts = steps[0]
        pairs = [(before, after) for _, before, after in steps]
        needed = {cell for pair in pairs for cell in pair}
        if all(before == after for before, after in pairs) or not needed <= cells.keys():
            continue
        before, after = (
            _joined(
                [part(cells[pair[end]]) for (part, *_), pair in zip(choices, pairs, strict=True)]
            )
            for end in (0, 1)
        )
        found[kind, *pairs] = {
            "gain": kind,
            **dict(zip(("before", "after"), map(named, firsts), strict=True)),
            "by_half": len(set(pairs)) > 1,
            **gains.gain(before, after, averaged, verdict),
        }
    return list(found.values())


def _joined(parts: Sequence[Sets]) -> Sets:
    return {name: pd.concat([part[name] for part in parts]) for name in parts[0]}


def named(cell: Cell) -> dict[str, Any]:
    """The cell in the tree: how it was asked, as far as it differs from the run's parameters."""
    asked = {name: value for name, value in cell[1]._asdict().items() if value is not None}
    return {"model": cell[0], **asked}


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
    averaged, missing = len(table["averaged"]), len(table["missing"])
    return ["", *sets, f"mean of {averaged} of {averaged + missing}"]


def cell_rows(
    table: Mapping[str, Any], verdict: Verdict = "qwen", line_break: str = "\n"
) -> list[list[str]]:
    """Accuracies of the cells by one verdict.

    `line_break` parts an accuracy from its interval.
    """
    return [
        [
            title(cell) + (" (best-fitting)" if cell["best_fitting"] else ""),
            *(_accuracy(score[verdict], line_break) for score in cell["scores"].values()),
            _or_none(cell["mean_percent"][verdict]),
        ]
        for cell in table["cells"]
    ]


def title(cell: Mapping[str, Any]) -> str:
    """`base model, cot, 4-shot, 64 tokens`: a problem set may be called as a model is."""
    return f"{cell['model']} model, {asked_title(cell)}"


def asked_title(cell: Mapping[str, Any]) -> str:
    """How a cell was asked."""
    texts = {"style": "{}", "shots": "{}-shot", "max_new_tokens": "{:,} tokens"}
    return ", ".join(text.format(cell[name]) for name, text in texts.items() if name in cell)


def _accuracy(score: Mapping[str, Any], line_break: str) -> str:
    return f"{percent(score['accuracy']):.1f}{line_break}({interval(score['ci95'])})"


def _or_none(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def published_rows(table: Mapping[str, Any]) -> list[list[str]]:
    """What others published of the same model and benchmarks, and its mean if they have all."""
    rows = []
    for label, values in published.rows(table["expert"]).items():
        by_set = {_standing(name, table["averaged"]): value for name, value in values.items()}
        averaged = [by_set.get(each) for each in table["averaged"]]
        known = [value for value in averaged if value is not None]
        mean = mean_percent(known) if len(known) == len(averaged) else None
        shown = [_or_none(by_set.get(each)) for each in table["problems"]]
        if known:
            rows.append([label, *shown, _or_none(mean)])
    return rows


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
        for gain in _distinct(table["gains"][verdict])
    ]


def _distinct(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each gain once: between models with the same prompt the one by reasoning is the total."""
    unnamed = [{**gain, "gain": None} for gain in found]
    return [gain for place, gain in enumerate(found) if unnamed.index(unnamed[place]) == place]


def _gain_title(gain: Mapping[str, Any]) -> str:
    name = f"{gain['gain'].replace('_', '-')} gain"
    if gain["by_half"]:
        return f"{name}, each half with the cells chosen on the other"
    before, after = gain["before"], gain["after"]
    if asked_title(before) == asked_title(after):
        return f"{name}, both {asked_title(before)}"
    return f"{name}, from {title(before)} to {title(after)}"


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
            title(cell),
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
        *mean_notes(table),
        power.note(table["problems"]),
        *_choice_notes(table),
        *_absent_notes(table),
        *published_notes(table),
    ]


def published_notes(table: Mapping[str, Any]) -> list[str]:
    """What the published rows are, if there are any."""
    said = (
        "Published: in percent, by their own prompts, limits of tokens and graders, without an "
        "interval; the paper's from its Table 1 (arXiv 2510.07962), its math being all 5,000 "
        "problems; the means are over the same benchmarks as ours."
    )
    return [said] if published_rows(table) else []


def mean_notes(table: Mapping[str, Any]) -> list[str]:
    """What the mean is over."""
    averaged, missing = table["averaged"], table["missing"]
    if not averaged:
        return ["No mean: none of the paper's seven benchmarks was evaluated."]
    over = f"Mean: the plain mean of percentages over {', '.join(averaged)}"
    return [f"{over}; missing: {', '.join(missing)}." if missing else f"{over}."]


def _choice_notes(table: Mapping[str, Any]) -> list[str]:
    """Where a model's mean is higher under another prompt than the one called best-fitting."""
    chosen = {cell["model"]: cell for cell in table["cells"] if cell["best_fitting"]}
    return [
        f"{title(cell)} has a higher mean by {verdict} than best-fitting "
        f"{chosen[cell['model']]['style']}: {found:.1f} against {reported:.1f}."
        for verdict in VERDICTS
        for cell in table["cells"]
        if (found := cell["mean_percent"][verdict] or 0.0)
        > (reported := chosen[cell["model"]]["mean_percent"][verdict] or 0.0)
    ]


def _absent_notes(table: Mapping[str, Any]) -> list[str]:
    styles = table["base_style"], table["style"]
    if styles[0] == styles[1]:
        return ["Both models have the same prompt: no format gain, and the total is by reasoning."]
    there = {(cell["model"], cell["style"]) for cell in table["cells"]}
    absent = [cell for cell in (("base", styles[1]), ("tuned", styles[0])) if cell not in there]
    return [
        f"The {model} model was not evaluated under {style}: gains that need it are absent."
        for model, style in absent
    ]


def markdown(table: Mapping[str, Any], said: Sequence[str] | None = None) -> str:
    """Accuracies and gains by both verdicts, the rates, what others published, and the notes."""
    grid = functools.partial(markdown_table, headings(table))
    parts = []
    for name, rows in tables(table, "<br>").items():
        parts += [name, grid(rows)]
    return "\n\n".join([*parts, *(notes(table) if said is None else said)]) + "\n"


def tables(table: Mapping[str, Any], line_break: str = "\n") -> dict[str, list[list[str]]]:
    """All rows under `headings`, by their title; where both verdicts have the same, once."""
    rows: dict[str, list[list[str]]] = {}
    for kind, made in (("Accuracy", cell_rows), ("Gains", gain_rows)):
        found = [made(table, verdict, line_break) for verdict in VERDICTS]
        same = found[0] == found[1]
        names = [" and ".join(VERDICTS)] if same else VERDICTS
        rows |= {f"{kind}, {name}": each for name, each in zip(names, found, strict=not same)}
    rows |= {ENDS: rate_rows(table), PUBLISHED: published_rows(table)}
    return {name: each for name, each in rows.items() if each}
