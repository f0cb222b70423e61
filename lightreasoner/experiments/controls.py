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

from lightreasoner.evaluation.gains import VERDICTS, Asked, Cell, Model, Sets, Verdict
from lightreasoner.experiments import table1
from lightreasoner.experiments.table1 import Cells, Choice
from lightreasoner.formatting import difference

STEPS = {"format": "the prompt style", "few_shot": "worked examples", "budget": "the token limit"}


def controls(
    scores: Mapping[Cell, Path], start: Asked, tuned: Asked, expert: str | None = None
) -> dict[str, Any]:
    """The table as a tree, from the directory of scores of each cell; `table1.table1`'s arguments.

    `best` names each half's chosen cells by verdict, of which `left` says in words what is left.
    """
    chosen: dict[Verdict, list[Choice]] = {}

    def choose(cells: Cells, averaged: Sequence[str], verdict: Verdict) -> list[Choice]:
        chosen[verdict] = by_halves(cells, start, tuned, averaged, verdict)
        return chosen[verdict]

    found = table1.tree(scores, start, tuned, expert, choose, of_own_sets=True)
    found["best"] = {
        verdict: [
            {"base": table1.named(("base", base)), "tuned": table1.named(("tuned", after))}
            for _, base, after in choices
        ]
        for verdict, choices in chosen.items()
    }
    return {**found, "left": {verdict: left(found, verdict) for verdict in VERDICTS}}


def by_halves(
    cells: Cells, start: Asked, tuned: Asked, averaged: Sequence[str], verdict: Verdict
) -> list[Choice]:
    """For each half of the problems the cells that are best on the other half."""
    first, second = (partial(half, parity=parity) for parity in (0, 1))
    return [
        (
            read,
            best(cells, "base", start, chosen_on, averaged, verdict),
            best(cells, "tuned", tuned, chosen_on, averaged, verdict),
        )
        for read, chosen_on in ((first, second), (second, first))
    ]


def half(sets: Sets, parity: int) -> Sets:
    """Every other problem of each set, in the order of their ids."""
    return {
        name: rows[rows["problem_id"].factorize(sort=True)[0] % 2 == parity]
        for name, rows in sets.items()
    }


def best(
    cells: Cells,
    model: Model,
    own: Asked,
    part: "partial[Sets]",
    averaged: Sequence[str],
    verdict: Verdict,
) -> Asked:
    """How a model is asked where its mean accuracy over the averaged sets is highest on a part.

    Of equal ones its `own`, as it is reported, else the first. Sets without a problem in the part
    do not count.
    """

    def mean(asked: Asked) -> float:
        rows = part(cells[model, asked])
        shares = [rows[name][verdict].mean() for name in averaged if len(rows[name])]
        return round(float(np.mean(shares)), 12) if shares else 0.0

    ways = [asked for named, asked in cells if named == model]
    return max(sorted(ways, key=lambda asked: asked != own), key=mean)


def headline(table: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """The last reasoning gain: tuned at its best less base at its best."""
    found: dict[str, Any] = [
        gain for gain in table["gains"][verdict] if gain["gain"] == "reasoning"
    ][-1]
    return found


def left(table: Mapping[str, Any], verdict: Verdict) -> str:
    """What is left of the gain, in words: points of the mean over the averaged sets."""
    gain = headline(table, verdict)["mean"]
    means = {each["gain"]: each["mean"] for each in table["gains"][verdict]}
    total = f"of a total gain of {difference(means['total'])} points" if "total" in means else ""
    parts = [
        f"{difference(means[kind])} is {said}" for kind, said in STEPS.items() if kind in means
    ]
    low, high = gain["ci95"]
    judged = (
        "a gain is left that the base does not have by being asked otherwise"
        if low > 0
        else "the base at its best is ahead of the tuned model at its best"
        if high < 0
        else "what is left cannot be told from nothing"
    )
    apart = f" ({'; '.join([total, *parts])})" if total else ""
    return (
        f"By {verdict}, the tuned model at its best is {difference(gain)} points from the base at "
        f"its best{apart}: {judged}."
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
