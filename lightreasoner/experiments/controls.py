"""Elicitation controls: what of a gain could the base have had by being asked better?

Base and tuned model answer the same problems under every cell of {style} x {shots} x {limit of
tokens}; Table 1's row is the grid of two styles. The headline sets the base at its best beside the
tuned model at its best. A best cell owes part of its lead to luck on the problems that it was
chosen on, and the more cells the more. So each model's cell is chosen on one half of every set's
problems and read on the other half, and the other way round: together all problems count, none for
a choice that it helped to make. What is so estimated is a chooser's who has half of the problems.
The p-values take the choices as given; that the halves choose for each other is not in them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lightreasoner.evaluation import power
from lightreasoner.evaluation.gains import VERDICTS, Asked, Cell, Model, Sets, Verdict
from lightreasoner.experiments import table1
from lightreasoner.experiments.table1 import Cells, Choice
from lightreasoner.formatting import difference

STEPS = {"format": "the prompt style", "few_shot": "worked examples", "budget": "the token limit"}


def controls(
    scores: Mapping[Cell, Path], start: Asked, tuned: Asked, expert: str | None = None
) -> dict[str, Any]:
    """The table as a tree, from the directory of scores of each cell; `table1.table1`'s arguments.

    `left` says in words, by each verdict, what is left between the cells that `best` names.
    """
    choose = partial(by_halves, start, tuned)
    found = table1.tree(scores, start, tuned, expert, choose, of_own_sets=True)
    return {**found, "left": {verdict: left(found, verdict) for verdict in VERDICTS}}


def by_halves(
    start: Asked, tuned: Asked, cells: Cells, averaged: Sequence[str], verdict: Verdict
) -> list[Choice]:
    """For each half of the problems, the cells with the highest mean accuracy on the other half.

    The mean is over the averaged sets, without those that have no problem in that half. Of equal
    cells it is the one that the model is reported under, else the first.
    """

    def best(model: Model, own: Asked, parity: int) -> Asked:
        def mean(asked: Asked) -> float:
            rows = half(cells[model, asked], parity)
            shares = [rows[name][verdict].mean() for name in averaged if len(rows[name])]
            return round(float(np.mean(shares)), 12) if shares else 0.0

        ways = [asked for each, asked in cells if each == model]
        return max(sorted(ways, key=lambda asked: asked != own), key=mean)

    return [
        (partial(half, parity=read), best("base", start, chosen), best("tuned", tuned, chosen))
        for read, chosen in ((0, 1), (1, 0))
    ]


def half(sets: Sets, parity: int) -> Sets:
    """Every other problem of each set, in the order of their ids."""
    return {
        name: rows[rows["problem_id"].factorize(sort=True)[0] % 2 == parity]
        for name, rows in sets.items()
    }


def left(table: Mapping[str, Any], verdict: Verdict) -> str:
    """What is left of the gain, in words: points of the mean over the averaged sets."""
    # Of two gains for reasoning the last one counts, that between the best cells.
    means = {gain["gain"]: gain["mean"] for gain in table["gains"][verdict]}
    steps = [f"{difference(means[kind])} is {STEPS[kind]}" for kind in STEPS if kind in means]
    parts = "; ".join([f"of a total gain of {difference(means['total'])}", *steps])
    rest = means["reasoning"]
    low, high = rest["ci95"]
    judged = "what is left cannot be told from nothing"
    if low > 0:
        judged = "a gain is left that the base has by none of these ways to ask"
    elif high < 0:
        judged = "the base at its best is ahead of the tuned model at its best"
    return (
        f"By {verdict}, the tuned model at its best is {difference(rest)} points from the base at "
        f"its best ({parts}): {judged}."
    )


def metrics(table: Mapping[str, Any]) -> dict[str, float]:
    """`<model>/<style>_4-shot_64-tokens/<set>/<verdict>` of all cells, and of each gain
    `<gain>_gain/<set>/<verdict>` and that of the mean, fractions; reasoning is what is left."""
    cells = {
        f"{cell['model']}/{_metric(cell)}/{name}/{verdict}": score[verdict]["accuracy"]
        for cell in table["cells"]
        for name, score in cell["scores"].items()
        for verdict in VERDICTS
    }
    return cells | {
        f"{gain['gain']}_gain/{name}/{verdict}": score["difference"]
        for verdict, found in table["gains"].items()
        for gain in found
        for name, score in {**gain["scores"], "mean": gain["mean"]}.items()
    }


def _metric(cell: Mapping[str, Any]) -> str:
    return table1.asked_title(cell).replace(", ", "_").replace(" ", "-").replace(",", "")


def notes(table: Mapping[str, Any]) -> list[str]:
    """What is left, in words, and what the tables need to be read."""
    ways = len(table["cells"]) // 2
    return [
        *table["left"].values(),
        *(_chosen(table, verdict) for verdict in VERDICTS),
        f"Each model was asked in {ways} ways; what a cell does not name is the run's own "
        "parameter. Best-fitting: as the model is reported. Accuracy in percent with 95% intervals "
        "over problems; the highest of many owes part of its lead to having been picked.",
        "Gains in points on the same problems, with paired bootstrap intervals; p is McNemar's, "
        "corrected over the sets (Holm). The last reasoning gain, what is left, is between cells "
        "chosen on one half of the problems and read on the other, both ways; total = format + "
        "few-shot + budget + what is left, in this order of steps. It still holds what tuning "
        "taught of form: see the truncated, and those without a box, before and after.",
        *table1.mean_notes(table),
        power.note(table["problems"]),
        *table1.published_notes(table),
    ]


def _chosen(table: Mapping[str, Any], verdict: Verdict) -> str:
    pairs = table["best"][verdict]
    cells = {
        model: " / ".join(dict.fromkeys(table1.asked_title(pair[model]) for pair in pairs))
        for model in ("base", "tuned")
    }
    return (
        f"Best by {verdict}, each chosen on a half: base {cells['base']}; tuned {cells['tuned']}."
    )


def markdown(table: Mapping[str, Any]) -> str:
    """What is left, then the tables, then the notes."""
    return "\n\n".join([*table["left"].values(), table1.markdown(table, notes(table))])
