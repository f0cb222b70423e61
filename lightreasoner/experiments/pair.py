"""How far an expert is ahead of an amateur, and what their contrast would teach: worth a run?

The authors' rule of thumb (README of HKUDS/LightReasoner, "Caveat"): the expert must be clearly
better than the amateur, and the amateur still able to reason coherently, so that the widest gap is
not the best. There, an amateur ahead of the expert moved the expert's average by +0.5 and -0.6
points ("Expertise-Driven Contrast"). Reads scores and steps; no model. All numbers of the gap's
tree are fractions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from lightreasoner.errors import SelectionError
from lightreasoner.evaluation import gains, pairing
from lightreasoner.evaluation.gains import VERDICTS
from lightreasoner.formatting import (
    accuracy,
    difference,
    number,
    p_value,
    percent,
    points,
    points_interval,
)
from lightreasoner.sampling import pull
from lightreasoner.sampling.select import pull as pull_of
from lightreasoner.sampling.select import refuse_unstored, select_samples
from lightreasoner.storage import tables

if TYPE_CHECKING:
    from lightreasoner.config import Select

MODELS = ("expert", "amateur")
HEADINGS = (
    "problem set", "n", "verdict", "expert (95% CI)", "amateur (95% CI)", "gap, points (95% CI)",
    "paired p", "no answer (expert / amateur)",
)  # fmt: skip
TEACHING = (
    "amateur", "steps", "samples", "labels of several tokens", "pull, nats", "pull per sample",
)  # fmt: skip


class Teaching(NamedTuple):
    """What a selection would teach: how many steps and samples, labels of several tokens, pull in
    nats (None where labels are one-hot)."""

    steps: int
    samples: int
    several: int
    pull: float | None


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


def teaching(steps_dir: Path, config: "Select") -> Teaching:
    """What would be selected of scored steps; that may be none. Raises SelectionError for an alpha
    below what they store."""
    paths = [steps_dir / f"{name}.parquet" for name in ("steps", "trajectories")]
    steps = tables.read_table(paths[0], tables.STEPS)
    refuse_unstored(config.alpha, tables.provenance(paths[0]))
    try:
        samples = select_samples(steps, tables.read_table(paths[1], tables.TRAJECTORIES), config)
    except SelectionError:
        return Teaching(len(steps), 0, 0, 0.0)
    several = pc.sum(pc.greater(pc.list_value_length(samples["token_ids"]), 1)).as_py()
    return Teaching(len(steps), len(samples), several, pull_of(steps, config))


def teaching_row(amateur: str, found: Teaching) -> tuple[str, ...]:
    """Under TEACHING."""
    mean = None if found.pull is None or not found.samples else found.pull / found.samples
    return (
        amateur,
        f"{found.steps:,}",
        f"{found.samples:,} ({percent(_share(found.samples, found.steps))})",
        f"{found.several:,} ({percent(_share(found.several, found.samples))})",
        number(found.pull),
        number(mean),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def warnings(found: Mapping[str, Any], taught: Teaching) -> list[str]:
    """A line for each set on which the expert is not ahead by the strict verdict, and one where the
    labels teach next to nothing."""
    return [*_gap_warnings(found), *_teaching_warnings(taught)]


def _teaching_warnings(taught: Teaching) -> list[str]:
    if not taught.samples:
        return ["no step is selected: expert and amateur say the same; take another amateur"]
    said = pull.warning(taught.pull, taught.samples)
    return [said] if said else []


def _gap_warnings(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: the expert is not shown to be ahead of the amateur: the gap of "
        f"{points(gap['difference'])} points has a 95% interval of {points_interval(gap['ci95'])} "
        "(strict), which must be above 0; choose a weaker amateur or a stronger expert, or grade "
        "more problems"
        for name, each in found.items()
        if (gap := each["gap"]["strict"])["ci95"][0] <= 0
    ]
