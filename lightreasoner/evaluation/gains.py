"""Base and tuned model under two prompts: accuracies, and what of a gain is reasoning.

The paper reports each model under its best-fitting prompt (appendix G): the base under one, the
tuned model under another. Its gain then mixes two things. With B and T the accuracies of base and
tuned model, b the base's prompt and t the tuned model's:

    total gain      T_t - B_b                  what the paper reports
    reasoning gain  T_b - B_b and T_t - B_t    the models differ, the prompt does not
    format gain     B_t - B_b                  what the base gains by the other prompt alone

so total = format + reasoning under t. A reasoning gain still holds what tuning taught of form
(to box, to stop), so the rates of both stand beside each gain. Reads scores; no model. All numbers
are fractions.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lightreasoner.data.problems import BOX
from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import pairing
from lightreasoner.evaluation.pairing import Scores
from lightreasoner.statistics import (
    Array,
    accuracy_interval,
    bootstrap_difference,
    bootstrap_mean_difference,
    holm,
    mcnemar_p,
)

Model = Literal["base", "tuned"]
Verdict = Literal["qwen", "strict"]
Cell = tuple[Model, str]
"""A model and the prompt style that it was evaluated under."""

Sets = dict[str, pd.DataFrame]
"""A problem set's responses: a column of booleans for each of VERDICTS and RATES."""

VERDICTS: tuple[Verdict, ...] = ("qwen", "strict")
RATES = ("truncated", "no_answer", "no_box")


def read_cells(scores: Mapping[Cell, Path], base_style: str, style: str) -> dict[Cell, Scores]:
    """The scores of each cell, the base's before the tuned model's, checked to be comparable.

    Base under `base_style` and tuned under `style` must be there. Raises ArtifactError for a cell
    without scores or of another style than it is named, and unless all cells have the same
    problems, golds, questions and conditions, and under one style the same prompts.
    """
    for model, needed in (("base", base_style), ("tuned", style)):
        if (model, needed) not in scores:
            raise ArtifactError(
                f"no scores of the {model} model under {needed}; evaluate it under that style"
            )
    order = sorted(scores, key=lambda cell: (cell[0], cell[1] != base_style, cell[1] != style))
    cells = {cell: pairing.read_scores(scores[cell]) for cell in order}
    first, of_style = cells[order[0]], dict[str, Scores]()
    if first.rows.empty:
        raise ArtifactError(f"{first.path} has no problems; evaluate again")
    for (_, named), cell in cells.items():
        _check_style(cell, named)
        pairing.check_comparable(first, cell, {"style"})
        pairing.check_prompts(of_style.setdefault(named, cell), cell)
    return cells


def _check_style(scores: Scores, named: str) -> None:
    found = scores.conditions.get("style")
    if found != named:
        raise ArtifactError(
            f"{scores.path} was made under the style {found}, not {named}; name its own style, or "
            "evaluate again"
        )


def by_set(rows: pd.DataFrame) -> Sets:
    """The responses of scores.parquet per set, in order of appearance.

    An answer is missing where the strict verdict read none; a box is missing where the response
    nowhere says that it boxes.
    """
    judged = rows[["problem_set", "problem_id"]].assign(
        **{verdict: rows[verdict] == "correct" for verdict in VERDICTS},
        truncated=rows["finish_reason"] == "length",
        no_answer=rows["extracted"].isna(),
        no_box=~rows["response"].str.contains(BOX, regex=False),
    )
    return {str(name): group for name, group in judged.groupby("problem_set", sort=False)}


def score(rows: pd.DataFrame) -> dict[str, Any]:
    """One set under one cell: n problems, both verdicts' accuracies, RATES over responses."""
    values = {verdict: _per_problem(rows, verdict) for verdict in VERDICTS}
    accuracies: dict[str, Any] = {
        verdict: {"accuracy": float(each.mean()), "ci95": list(accuracy_interval(each))}
        for verdict, each in values.items()
    }
    rates = {rate: float(rows[rate].mean()) for rate in RATES}
    return {"n": len(values["qwen"]), "responses": len(rows), **accuracies, **rates}


def comparisons(base_style: str, style: str) -> list[tuple[str, Cell, Cell]]:
    """Each gain's name and its two cells; with one style for both there is no format gain."""
    found: list[tuple[str, Cell, Cell]] = [("total", ("base", base_style), ("tuned", style))]
    for each in dict.fromkeys((base_style, style)):
        found.append(("reasoning", ("base", each), ("tuned", each)))
    if base_style != style:
        found.append(("format", ("base", base_style), ("base", style)))
    return found


def gain(before: Sets, after: Sets, averaged: Sequence[str], verdict: Verdict) -> dict[str, Any]:
    """The difference of two cells of the same problems: `scores` per set, `mean` over `averaged`.

    `p` is `mcnemar_p`'s, `p_holm` the same corrected over the sets; `mean` is None if there is no
    set.
    """
    scores = {name: _paired(before[name], after[name], verdict) for name in before}
    corrected = holm([each["p"] for each in scores.values()])
    for each, p in zip(scores.values(), corrected, strict=True):
        each["p_holm"] = p
    sets = [(before[name], after[name]) for name in averaged]
    pairs = [(_per_problem(old, verdict), _per_problem(new, verdict)) for old, new in sets]
    return {"scores": scores, "mean": _mean(pairs) if pairs else None}


def _paired(before: pd.DataFrame, after: pd.DataFrame, verdict: Verdict) -> dict[str, Any]:
    """One set's difference; each of RATES as [before, after]."""
    first, second = (_per_problem(rows, verdict) for rows in (before, after))
    gained, lost = int((second > first).sum()), int((second < first).sum())
    return {
        "difference": _difference(first, second),
        "ci95": list(bootstrap_difference(first, second)),
        "gained": gained,
        "lost": lost,
        "p": mcnemar_p(gained, lost),
        **{rate: [float(before[rate].mean()), float(after[rate].mean())] for rate in RATES},
    }


def _mean(pairs: Iterable[tuple[Array, Array]]) -> dict[str, Any]:
    pairs = list(pairs)
    return {
        "difference": float(np.mean([_difference(*pair) for pair in pairs])),
        "ci95": list(bootstrap_mean_difference(pairs)),
    }


def _difference(first: Array, second: Array) -> float:
    return float(second.mean() - first.mean())


def _per_problem(rows: pd.DataFrame, verdict: Verdict) -> Array:
    """Problems in the order of their ids: each one's share of correct responses."""
    return rows.groupby("problem_id")[verdict].mean().to_numpy(dtype=np.float64)
