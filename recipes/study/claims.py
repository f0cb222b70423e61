"""The paper's claims, each beside what came out here, and a verdict by a rule.

A claim about a difference holds here if the 95% interval lies above 0 at every seed, does not hold
if it lies below at every seed, and is not shown otherwise. A claim about a share or a count, which
have no interval here, holds if it is reached at every seed. That an amateur ahead brings no gain
holds if none shows and LightReasoner is ahead, also where a loss shows, which is then named: that
is more than to teach nothing. The interval of a sum of differences adds up their intervals, which
is as wide as it can be. What the embedded world cannot say is said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from lightreasoner.formatting import percent, points, points_interval
from recipes.study.arms import OURS, TABLES

Verdict = Literal["holds here", "does not hold here", "not shown here", "cannot be tested here"]
Arms = Mapping[str, Mapping[str, Any]]
"""A seed's entries by arm."""

Answer = tuple[str, int]
"""What a seed says: in words, and 1 (it holds), 0 (it is open) or -1 (it does not)."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, with its place there and its number; `answer` is a seed's."""

    text: str
    place: str
    paper: str
    answer: Callable[[Arms], Answer] | None = None
    why: str = ""

    def judge(self, seeds: Sequence[Arms]) -> tuple[str, Verdict]:
        """What came out, a part per seed, and the verdict."""
        if self.answer is None:
            return self.why, "cannot be tested here"
        texts, signs = zip(*map(self._answered, seeds), strict=True)
        if set(signs) == {1}:
            return "; ".join(texts), "holds here"
        return "; ".join(texts), "does not hold here" if set(signs) == {-1} else "not shown here"

    def _answered(self, arms: Arms) -> Answer:
        """A seed's answer; open where an arm or a set that it reads has no result."""
        assert self.answer is not None
        try:
            return self.answer(arms)
        except KeyError as lacking:
            return f"no result ({lacking.args[0]})", 0


def _sign(low: float, high: float) -> int:
    return 1 if low > 0 else -1 if high < 0 else 0


def gain(of: str, on: str | None = None) -> Callable[[Arms], Answer]:
    """An arm over the base, on a set or in the mean."""

    def answer(arms: Arms) -> Answer:
        found = arms[of]["to_base"]
        each = found["scores"][on] if on else found["mean"]
        return _said(each["difference"], each["ci95"]), _sign(*each["ci95"])

    return answer


def over(other: str) -> Callable[[Arms], Answer]:
    """LightReasoner over another arm, in the mean over the sets."""

    def answer(arms: Arms) -> Answer:
        each = arms[other]["to_ours"]["mean"]
        low, high = (-value for value in reversed(each["ci95"]))
        return _said(-each["difference"], (low, high)), _sign(low, high)

    return answer


def _said(difference: float, ci95: Sequence[float]) -> str:
    return f"{points(difference)} ({points_interval(ci95)})"


def saved(costs: Sequence[str], share: float) -> Callable[[Arms], Answer]:
    """At least this share less than SFT takes."""

    def answer(arms: Arms) -> Answer:
        ours, theirs = (sum(arms[name][cost] for cost in costs) for name in (OURS, "sft"))
        less = 1 - ours / theirs
        said = f"{percent(abs(less))} {'less' if less > 0 else 'more'}"
        return f"{said} ({ours:,.0f} against {theirs:,.0f})", 1 if less >= share else -1

    return answer


def synergy(arms: Arms) -> Answer:
    """Whether both ablations together lose more than the sum of each alone."""
    lost, *each = (arms[name]["to_ours"]["mean"] for name in
                   ("neither", "no_selection", "no_contrast"))  # fmt: skip
    more = sum(one["difference"] for one in each) - lost["difference"]
    low = sum(one["ci95"][0] for one in each) - lost["ci95"][1]
    high = sum(one["ci95"][1] for one in each) - lost["ci95"][0]
    return _said(more, (low, high)), _sign(low, high)


def no_gap(arms: Arms) -> Answer:
    """Whether an amateur ahead of the expert teaches less, and brings no gain that shows."""
    said, sign = gain("stronger")(arms)
    less = over("stronger")(arms)[1]
    what = {1: "a gain", 0: "no gain shows", -1: "a loss"}[sign]
    return f"{what} {said}", 1 if less == 1 and sign <= 0 else -1 if sign == 1 else 0


def by_gap(arms: Arms) -> Answer:
    """The rank correlation of gap and gain over the amateurs, p from all orders of so few."""
    names = [OURS, *TABLES["Amateurs"]]
    there = [arms[name] for name in names if "missing" not in arms[name]]
    gaps = rankdata([each["gap"] for each in there])
    gains = rankdata([each["to_base"]["mean"]["difference"] for each in there])
    if min(len(set(gaps)), len(set(gains))) < 2:
        return "all alike", 0
    rho = np.corrcoef(gaps, gains)[0, 1]
    orders = np.array([np.corrcoef(gaps, order)[0, 1] for order in permutations(gains)])
    p = (abs(orders) >= abs(rho) - 1e-9).mean()
    return f"rho {rho:+.2f} (n {len(there)}, p {p:.2g})", 1 if p < 0.05 and rho > 0 else 0


def fewer_single(arms: Arms) -> Answer:
    """Whether labels of one token are fewer among the selected steps."""
    less = arms[OURS]["statistics"]["single-token labels, difference"]["value"]
    return f"{less:+.1f} points, without an interval", 1 if less > 0 else -1


CLAIMS = (
    Claim("Tuning on the contrast raises accuracy on problems of the kind that was sampled",
          "3.2, table 1", "+28.1 points at most", gain(OURS, "tuned")),
    Claim("and on kinds that were not (transfer)", "3.2", "MATH +25.1 at most",
          gain(OURS, "transfer")),
    Claim("and on kinds that were not (chain_sum)", "3.2", "", gain(OURS, "chain_sum")),
    Claim("It matches or surpasses SFT on the expert's own right solutions", "3.2, table 2",
          "+4.1 in the mean (1.5B)", over("sft")),
    Claim("also where SFT tunes on about as many tokens", "not in the paper", "",
          over("sft_as_many")),
    Claim("It takes 90% less time than SFT (sampling and tuning)", "3.3", "90%",
          saved(("sampling_seconds", "seconds"), 0.9)),
    Claim("and 80% fewer problems", "3.3", "80%",
          why="all methods draw the same problems here, so that they differ in the method alone"),
    Claim("and tunes 99% fewer tokens", "3.3", "99%", saved(("trained_samples",), 0.99)),
    Claim("SFT on people's solutions is weaker than the contrast", "3.5, table 6", "",
          over("gold")),
    Claim("Step selection helps", "3.5", "0.2 in the mean", over("no_selection")),
    Claim("The contrast in the labels helps", "3.5", "9.2 in the mean", over("no_contrast")),
    Claim("Both together are worth more than the sum of each", "3.5", "12.4 > 9.2 + 0.2", synergy),
    Claim("Gains grow with the expertise gap", "3.4, figure 7", "", by_gap),
    Claim("An amateur ahead of the expert brings no gain", "3.4, table 5",
          "+0.5 and -0.6", no_gap),
    Claim("Among selected steps fewer labels have one token", "F.3.2", "27.4 to 35.6 points",
          fewer_single),
    Claim("Expertise, not size, makes the contrast", "3.4", "+12.1 at equal size",
          why="all amateurs here are of the expert's family and training"),
    Claim("Gains on five real models and seven benchmarks", "3.2, table 1", "",
          why="the embedded world has one pair; no GPU was at hand"),
)  # fmt: skip
