"""The gate: whether a new model, the candidate, becomes the champion.

It does if it is better than the base, and than the champion where there is one: the exact sign test
on the problems of one set that it gained and lost, strict verdict, one-sided. The best of many
candidates tried on the same problems is partly the luckiest of them, so the k-th candidate since
the champion must pass at a level of its own, and the levels of all sum to 0.025. What becomes
champion is chosen on these problems: report it on others.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import pairing
from lightreasoner.evaluation.pairing import Scores
from lightreasoner.formatting import differing_prompts, p_value, points, points_interval
from lightreasoner.statistics import (
    Array,
    Interval,
    bootstrap_difference,
    level_of_try,
    sign_p,
)

Ruling = Literal["promoted", "kept"]


@dataclass(frozen=True)
class Champion:
    """The model to beat: its version, and its directory of scores of the candidate's problems.

    Without scores there is no comparison, the champion stays, and `why` says why.
    """

    version: str
    scores: Path | None = None
    why: str = ""


@dataclass(frozen=True)
class Difference:
    """The candidate's accuracy minus another model's, and its interval: fractions.

    `gained` problems the candidate does better, `lost` ones worse; `p` is the sign test's.
    """

    accuracy: float
    other_accuracy: float
    difference: float
    ci95: Interval
    gained: int
    lost: int
    p: float

    def is_shown(self, level: float) -> bool:
        """Whether the candidate is better at this level: on average, and by the sign test."""
        return self.difference > 0 and self.p <= level

    def __str__(self) -> str:
        return (
            f"{points(self.difference)} points (95% interval {points_interval(self.ci95)}; "
            f"{self.gained} problems gained, {self.lost} lost, p {p_value(self.p)})"
        )


@dataclass(frozen=True)
class Decision:
    """What the gate decided and from what.

    `n` problems of `problem_set`, whose ids, questions and gold answers have the digest `problems`
    (sha256, 32 digits). `against` is the version that was champion, None if there was none. It is
    the `tried`-th candidate against it on these problems, tested at `level`.
    """

    verdict: Ruling
    reason: str
    problem_set: str
    n: int
    problems: str
    tried: int
    level: float
    over_base: Difference
    against: str | None
    over_champion: Difference | None

    def as_tree(self) -> dict[str, Any]:
        """The same as JSON has it."""
        tree: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return tree


def decide(
    problem_set: str,
    base: Path,
    candidate: Path,
    champion: Champion | None = None,
    earlier: Callable[[str], int] = lambda problems: 0,
) -> Decision:
    """Compare directories of scores on one of their sets.

    `earlier` says how many candidates met this champion on the problems with a digest before. The
    base's prompt style may differ from the candidate's, the champion's may not. Raises
    ArtifactError for a set without problems, and unless all have the same problems, golds,
    questions and conditions, and under one style the same prompts.
    """
    ours, bases = _of_set(candidate, problem_set), _of_set(base, problem_set)
    over_base = _difference(bases, ours, {"style"})
    over_champion = None
    if champion and champion.scores:
        over_champion = _difference(_of_set(champion.scores, problem_set), ours, set())
    problems = problems_digest(ours.rows)
    tried = earlier(problems) + 1
    level = level_of_try(tried)
    verdict, why = _verdict(over_base, over_champion, champion, level)
    n = ours.rows["problem_id"].nunique()
    reason = f"{why} On {n} problems of {problem_set}, candidate minus base: {over_base}"
    if champion and over_champion:
        reason += f"; candidate minus champion (version {champion.version}): {over_champion}"
    if over_champion or not champion:
        reason += f"; p must be at most {p_value(level)} for candidate {tried} on these problems"
    return Decision(
        verdict,
        f"{reason}.{differing_prompts(bases.conditions.get('style'), ours.conditions['style'])}",
        problem_set,
        n,
        problems,
        tried,
        level,
        over_base,
        champion.version if champion else None,
        over_champion,
    )


def _verdict(
    over_base: Difference,
    over_champion: Difference | None,
    champion: Champion | None,
    level: float,
) -> tuple[Ruling, str]:
    """The verdict and its first sentence."""
    if champion and over_champion is None:
        return "kept", f"Version {champion.version} stays champion: {champion.why}."
    stays = f"Version {champion.version} stays champion" if champion else "There is no champion yet"
    if not over_base.is_shown(level):
        return "kept", f"{stays}: the candidate is not shown to be better than the base."
    if champion is None:
        return "promoted", "The first champion: it is better than the base."
    if over_champion is None or not over_champion.is_shown(level):
        return "kept", f"{stays}: the candidate is not shown to be better than it."
    return "promoted", f"Better than the base and than version {champion.version}, the champion."


def problems_digest(rows: pd.DataFrame) -> str:
    """What identifies the problems of a table of scores: 32 digits of sha256, in any order."""
    columns = ["problem_set", "problem_id", "question", "gold"]
    found = sorted(set(rows[columns].itertuples(index=False, name=None)))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32]


def _of_set(directory: Path, problem_set: str) -> Scores:
    scores = pairing.read_scores(directory)
    rows = scores.rows[scores.rows["problem_set"] == problem_set]
    if rows.empty:
        raise ArtifactError(
            f"{scores.path} has no problems of {problem_set}; evaluate that set, or name another "
            "in register.gate_set"
        )
    return Scores(scores.path, rows, scores.conditions)


def _difference(other: Scores, ours: Scores, free: set[str]) -> Difference:
    pairing.check_comparable(other, ours, free)
    theirs, own = _per_problem(other.rows), _per_problem(ours.rows)
    gained, lost = int((own > theirs).sum()), int((own < theirs).sum())
    return Difference(
        accuracy=float(own.mean()),
        other_accuracy=float(theirs.mean()),
        difference=float(own.mean() - theirs.mean()),
        ci95=bootstrap_difference(theirs, own),
        gained=gained,
        lost=lost,
        p=sign_p(gained, lost),
    )


def _per_problem(rows: pd.DataFrame) -> Array:
    """Problems in the order of their ids: each one's share of responses that are right."""
    right = rows["strict"] == "correct"
    return right.groupby(rows["problem_id"]).mean().to_numpy(dtype=np.float64)
