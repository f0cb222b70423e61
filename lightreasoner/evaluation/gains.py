"""Base and tuned model, each asked in several ways: accuracies, and what of a gain is reasoning.

The paper reports each model under its best-fitting prompt (appendix G): the base under one, the
tuned model under another. Its gain then mixes several things. With B and T the accuracies of base
and tuned model, b how the base is asked, t how the tuned model is, and e how the base is asked at
its best (in the row of Table 1: as the tuned model, e = t):

    total gain      T_t - B_b            what is reported
    reasoning gain  T_t - B_e            what tuning adds to a base that is asked well
                    T_b - B_b            the models differ, how they are asked does not
    format gain     B moves to e's prompt style,
    few-shot gain   then to e's worked examples before each question,
    budget gain     then to e's limit of new tokens

so total = format + few-shot + budget + the first reasoning gain. In another order the three in the
middle may share out otherwise; their sum stays. A reasoning gain still holds what tuning taught of
form (to box, to stop), so the rates of both stand beside each gain. Reads scores; no model. All
numbers are fractions.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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

if TYPE_CHECKING:
    from lightreasoner.config import Evaluate

Model = Literal["base", "tuned"]
Verdict = Literal["qwen", "strict"]


class Asked(NamedTuple):
    """How a model is asked: the prompt style, and what differs from the run's own parameters."""

    style: str
    shots: int | None = None
    max_new_tokens: int | None = None


Cell = tuple[Model, Asked]
"""A model and how it was asked when it was evaluated."""

Sets = dict[str, pd.DataFrame]
"""A problem set's responses: a column of booleans for each of VERDICTS and RATES."""

VERDICTS: tuple[Verdict, ...] = ("qwen", "strict")
RATES = ("truncated", "no_answer", "no_box")


def reported(evaluate: "Evaluate") -> tuple[Asked, Asked]:
    """How the parameters ask the base, and the tuned model."""
    return Asked(evaluate.of_base().style), Asked(evaluate.of_tuned().style)


def read_cells(scores: Mapping[Cell, Path], start: Asked, tuned: Asked) -> dict[Cell, Scores]:
    """The scores of each cell, the base's before the tuned model's, checked to be comparable.

    Base asked as `start` and tuned asked as `tuned` must be there, both of the run's own shots and
    limit of tokens. Raises ArtifactError for a cell without scores or asked otherwise than it is
    named, and unless all cells have the same problems, golds, questions and other conditions, and
    asked alike the same prompts.
    """
    for model, needed in (("base", start), ("tuned", tuned)):
        if (model, needed) not in scores:
            raise ArtifactError(
                f"no scores of the {model} model under {needed.style}; evaluate it under that style"
            )
    places = {asked: place for place, (_, asked) in enumerate(scores)} | {tuned: -1} | {start: -2}
    order = sorted(scores, key=lambda cell: (cell[0], places[cell[1]]))
    cells = {cell: pairing.read_scores(scores[cell]) for cell in order}
    first, alike = cells[order[0]], dict[Asked, Scores]()
    if first.rows.empty:
        raise ArtifactError(f"{first.path} has no problems; evaluate again")
    for (_, asked), cell in cells.items():
        pairing.check_comparable(first, cell, {"style", "demos", *_varied(asked)})
        _check_asked(cell, asked)
        pairing.check_prompts(alike.setdefault(asked, cell), cell)
    return cells


def _varied(asked: Asked) -> set[str]:
    """The conditions beside the style that are not the run's own."""
    return {name for name in ("shots", "max_new_tokens") if getattr(asked, name) is not None}


def _check_asked(scores: Scores, asked: Asked) -> None:
    found = scores.conditions
    named = {name: getattr(asked, name) for name in ("style", *sorted(_varied(asked)))}
    for name, value in named.items():
        values = set(found[name].values()) if name == "shots" else {found.get(name)}
        if values != {value}:
            raise ArtifactError(
                f"{scores.path} was made under the {name} {', '.join(map(str, values))}, not "
                f"{value}; name its own {name}, or evaluate again"
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


def comparisons(start: Asked, base: Asked, tuned: Asked) -> list[tuple[str, Cell, Cell]]:
    """The gains and the two cells of each, as at the top of this module: b, e, t.

    All six, also where the two cells of one are the same.
    """
    prompt = start._replace(style=base.style)
    shown = prompt._replace(shots=base.shots)
    return [
        ("total", ("base", start), ("tuned", tuned)),
        ("reasoning", ("base", start), ("tuned", start)),
        ("reasoning", ("base", base), ("tuned", tuned)),
        ("format", ("base", start), ("base", prompt)),
        ("few_shot", ("base", prompt), ("base", shown)),
        ("budget", ("base", shown), ("base", base)),
    ]


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
