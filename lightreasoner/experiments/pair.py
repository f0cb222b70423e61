"""How far an expert is ahead of an amateur on the same problems: is the pair worth a run?

The authors' rule of thumb (README of HKUDS/LightReasoner, "Caveat"): the expert must be clearly
better than the amateur, and the amateur still able to reason coherently, so that the widest gap is
not the best. There, an amateur ahead of the expert moved the expert's average by +0.5 and -0.6
points ("Expertise-Driven Contrast"). Reads scores; no model. All numbers of the tree are fractions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightreasoner.evaluation import gains, pairing
from lightreasoner.evaluation.gains import VERDICTS
from lightreasoner.formatting import (
    accuracy,
    difference,
    p_value,
    percent,
    points,
    points_interval,
)

MODELS = ("expert", "amateur")
HEADINGS = (
    "problem set", "n", "verdict", "expert (95% CI)", "amateur (95% CI)", "gap, points (95% CI)",
    "paired p", "no answer (expert / amateur)",
)  # fmt: skip


def gap(expert: Path, amateur: Path) -> dict[str, Any]:
    """A set's `n`, both models' scores and, by either verdict, expert - amateur.

    Takes the directories of their scores. Raises ArtifactError unless both are of the same problems
    and conditions.
    """
    ours, theirs = pairing.read_scores(expert), pairing.read_scores(amateur)
    pairing.check_comparable(ours, theirs)
    after, before = gains.by_set(ours.rows), gains.by_set(theirs.rows)
    gaps = {verdict: gains.gain(before, after, [], verdict)["scores"] for verdict in VERDICTS}
    return {
        name: {
            "n": int(rows["problem_id"].nunique()),
            "expert": gains.score(rows),
            "amateur": gains.score(before[name]),
            "gap": {verdict: gaps[verdict][name] for verdict in VERDICTS},
        }
        for name, rows in after.items()
    }


def gap_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Two rows per set, one per verdict, under HEADINGS; p is McNemar's."""
    return [_row(name, each, verdict) for name, each in found.items() for verdict in VERDICTS]


def _row(name: str, each: Mapping[str, Any], verdict: str) -> tuple[str, ...]:
    gap = each["gap"][verdict]
    return (
        name,
        f"{each['n']:,}",
        verdict,
        *(accuracy(each[model][verdict]) for model in MODELS),
        difference(gap),
        p_value(gap["p"]),
        " / ".join(percent(each[model]["no_answer"]) for model in MODELS),
    )


def warnings(found: Mapping[str, Any]) -> list[str]:
    """A line for each set on which the expert is not ahead by the strict verdict."""
    return [
        f"{name}: the expert is not shown to be ahead of the amateur: the gap of "
        f"{points(gap['difference'])} points has a 95% interval of {points_interval(gap['ci95'])} "
        "(strict), which must be above 0; choose a weaker amateur or a stronger expert, or grade "
        "more problems"
        for name, each in found.items()
        if (gap := each["gap"]["strict"])["ci95"][0] <= 0
    ]
