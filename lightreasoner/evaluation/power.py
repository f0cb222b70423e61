"""What an evaluation can show, before it is run: problems against the gain that is looked for.

Base and tuned model answer the same problems; McNemar's two-sided test at 5%. The share of problems
that change is not known before: statistics.CHANGED stands for it. The more change for the same
gain, the more problems are needed.
"""

from collections.abc import Mapping
from typing import Any

from lightreasoner import paper
from lightreasoner.config import Params
from lightreasoner.formatting import NONE, percent, points
from lightreasoner.statistics import CHANGED, Z_OF_POWER, detectable_gain, problems_needed

PROBLEMS: Mapping[str, int] = {**paper.PROBLEMS, "math500": 500}
"""Of known test sets."""

HEADINGS = ("problem set", "problems", *(f"gain that shows ({p:.0%} power)" for p in Z_OF_POWER))


def needed(gain: float, changed: float) -> str:
    """The problems that a gain, as a fraction, needs at each power, in a sentence."""
    first, *others = (
        f"{problems_needed(gain, changed, power):,}{{}} with {power:.0%} power"
        for power in Z_OF_POWER
    )
    counts = [first.format(" problems show it"), *(each.format("") for each in others)]
    return (
        f"a gain of {_exactly(gain)} points where {percent(changed)} of the problems change: "
        f"{', '.join(counts)}"
    )


def rows(sizes: Mapping[str, int], changed: float) -> list[tuple[str, ...]]:
    """A row per problem set, under HEADINGS."""
    return [
        (name, f"{n:,}", *(_shown(n, changed, power) for power in Z_OF_POWER))
        for name, n in sizes.items()
    ]


def tree(gain: float, sizes: Mapping[str, int], changed: float) -> dict[str, Any]:
    """What `needed` and `rows` say, as numbers: fractions, by power; None where no gain shows."""
    return {
        "gain": gain,
        "changed": changed,
        "problems": {str(p): problems_needed(gain, changed, p) for p in Z_OF_POWER},
        "sets": {
            name: {"n": n, "gain": {str(p): detectable_gain(n, changed, p) for p in Z_OF_POWER}}
            for name, n in sizes.items()
        },
    }


def _shown(n: int, changed: float, power: float) -> str:
    gain = detectable_gain(n, changed, power)
    if gain is None:
        return NONE
    return points(gain) if gain > 0.001 else f"{100 * gain:+.2g}"


def _exactly(gain: float) -> str:
    """`+5.0` of 0.05, `+0.01` of 0.0001: points with as many digits as they have."""
    text = f"{100 * gain:+.6g}"
    return text if "." in text else f"{text}.0"


def note(sizes: Mapping[str, int]) -> str:
    """The smallest gain that each problem set can show, in a sentence."""
    power, *_ = Z_OF_POWER
    each = ", ".join(f"{name} {_shown(n, CHANGED, power)}" for name, n in sizes.items())
    return (
        f"Gain that shows with {power:.0%} power where {CHANGED:.0%} of the problems change, in "
        f"points by set: {each}."
    )


def sizes(params: Params) -> dict[str, int]:
    """How many problems of each set are evaluated, as far as that is known without reading them."""
    limit = params.evaluate.n_problems
    known = {name: PROBLEMS.get(name, limit) for name in params.evaluate.problem_sets}
    return {name: min(n, limit or n) for name, n in known.items() if n is not None}


def warnings(params: Params) -> list[str]:
    """A line for each set that is too small to show register.gain_to_show."""
    gain = params.register.gain_to_show / 100
    wanted = problems_needed(gain, max(gain, CHANGED))
    return [
        f"{name}: {n:,} problems seldom show a gain of {_exactly(gain)} points, which needs about "
        f"{wanted:,}; evaluate more, or set register.gain_to_show to what you look for"
        for name, n in sizes(params).items()
        if n < wanted
    ]
