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
from lightreasoner.report.page import p_value

MODELS = ("expert", "amateur")
HEADINGS = (
    "problem set", "n", "verdict", "expert", "95%", "amateur", "95%", "gap", "95%", "p",
    "no answer",
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


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Two rows a set, one a verdict, under HEADINGS: percent, gaps in points, McNemar's p.

    The last column is the share of responses without an answer, of expert and amateur.
    """
    return [_row(name, each, verdict) for name, each in found.items() for verdict in VERDICTS]


def _row(name: str, each: Mapping[str, Any], verdict: str) -> tuple[str, ...]:
    scores = [each[model][verdict] for model in MODELS]
    accuracies = [(f"{100 * score['accuracy']:.1f}", _percent(score["ci95"])) for score in scores]
    gap = each["gap"][verdict]
    return (
        name,
        str(each["n"]),
        verdict,
        *accuracies[0],
        *accuracies[1],
        f"{100 * gap['difference']:+.1f}",
        _points(gap["ci95"]),
        p_value(gap["p"]),
        " / ".join(f"{100 * each[model]['no_answer']:.1f}" for model in MODELS),
    )


def _percent(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:.1f}-{100 * high:.1f}"


def _points(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def warnings(found: Mapping[str, Any]) -> list[str]:
    """A line for each set on which the expert is not ahead by the strict verdict."""
    return [
        f"{name}: the expert is not shown to be ahead of the amateur, the gap "
        f"of {100 * gap['difference']:+.1f} points has a 95% interval of {_points(gap['ci95'])} "
        "(strict), limit above 0; choose a weaker amateur or a stronger expert, or grade more "
        "problems"
        for name, each in found.items()
        if (gap := each["gap"]["strict"])["ci95"][0] <= 0
    ]
