"""Explain: one trajectory token by token, as the contrast saw it. For the page and the terminal.

Reads stored tables and a tokenizer only; no model. A step's candidates are the tokens that `score`
stored, those with pi_E >= alpha_min max pi_E: the amateur's others are unknown here.
"""

import bisect
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.data.problems import problem_of
from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference.token_text import Texts, Token
from lightreasoner.storage import artifacts, tables

KL_EDGES = (0.1, 0.4, 1.0, 2.0, 4.0)
"""Where the colour changes, nats; fixed, so that runs compare."""

_EDGES = [float(np.float32(edge)) for edge in KL_EDGES]  # as the KL is stored, and as select asks

SHADES = {
    "light": (
        ("#eeeafb", "#1c2128"), ("#d8ccf4", "#1c2128"), ("#b59de6", "#1c2128"),
        ("#7f55c9", "#ffffff"), ("#45208a", "#ffffff"),
    ),
    "dark": (
        ("#29233f", "#e7eaee"), ("#43356e", "#ffffff"), ("#674cab", "#ffffff"),
        ("#a485e6", "#10131a"), ("#dccbff", "#10131a"),
    ),
}  # fmt: skip
"""Paper and ink of each level over 0, by theme: one hue whose lightness alone says the order."""

FIRST, MOST = 3, 3
NEAR = 5


@dataclass(frozen=True)
class Candidate:
    """A token that could come next: both models' probabilities, its weight in the soft label.

    A probability is None if it was not stored, a weight if the token is not in the label.
    """

    token: Token
    expert: float | None
    amateur: float | None
    weight: float | None
    is_written: bool


@dataclass(frozen=True)
class Step:
    """A step: `index` tokens of the response precede it, `token` is what the expert wrote.

    KL(expert || amateur) and entropies in nats, None where nothing was scored. Candidates stand in
    the order of the expert's probabilities; `amateur_elsewhere` is the amateur's first choice if it
    is not among them.
    """

    index: int
    token: Token
    kl: float | None
    expert_entropy: float | None
    amateur_entropy: float | None
    amateur_elsewhere: Token | None
    candidates: tuple[Candidate, ...]

    @property
    def is_sample(self) -> bool:
        """Whether the step was selected: a sample has a soft label."""
        return any(candidate.weight is not None for candidate in self.candidates)

    @property
    def level(self) -> int | None:
        """Which shade the KL has: how many of KL_EDGES it exceeds."""
        return None if self.kl is None else bisect.bisect_left(_EDGES, self.kl)

    def top(self, n: int) -> list[Candidate]:
        """The n most likely by the expert, by the amateur and by the label, each taken once."""
        kept = [*self.by_expert(n), *self.by_amateur(n), *self.label()[:n]]
        return [each for each in self.candidates if each in kept or each.is_written]

    def by_expert(self, n: int) -> list[Candidate]:
        """The expert's n most likely tokens."""
        return [each for each in self.candidates if each.expert is not None][:n]

    def by_amateur(self, n: int) -> list[Candidate]:
        """The amateur's n most likely tokens, of those that were stored."""
        stored = [each for each in self.candidates if each.amateur is not None]
        return sorted(stored, key=lambda each: -(each.amateur or 0))[:n]

    def label(self) -> list[Candidate]:
        """The soft label's tokens, the heaviest first."""
        weighted = [each for each in self.candidates if each.weight is not None]
        return sorted(weighted, key=lambda each: -(each.weight or 0))


@dataclass(frozen=True)
class ExplainedTrajectory:
    """A response of the expert to a problem: the prompt's tokens, and a step per token."""

    id: str
    prompt: tuple[Token, ...]
    steps: tuple[Step, ...]
    finish_reason: str

    @property
    def samples(self) -> list[Step]:
        """The steps that were selected."""
        return [step for step in self.steps if step.is_sample]


@dataclass(frozen=True)
class Scored:
    """Scored trajectories, the samples selected from them, and the texts of their tokens."""

    trajectories: pa.Table
    steps: pa.Table
    samples: pa.Table
    texts: Texts
    score: Mapping[str, Any]
    select: Mapping[str, Any]

    @property
    def ids(self) -> list[str]:
        """The trajectories' ids, in the order of the draw."""
        return self.trajectories["problem_id"].to_pylist()


def load_scored(steps_dir: Path, samples_dir: Path, tokenizer_dir: Path) -> Scored:
    """Read scored steps, the samples selected from them, and the expert's tokenizer.

    Raises ArtifactError if one is missing or malformed, or if the samples are of other steps.
    """
    paths = steps_dir / "steps.parquet", samples_dir / "samples.parquet"
    scored = Scored(
        tables.read_table(steps_dir / "trajectories.parquet", tables.TRAJECTORIES),
        tables.read_table(paths[0], tables.STEPS),
        tables.read_table(paths[1], tables.SAMPLES),
        Texts(tokenizer_dir),
        tables.provenance(paths[0]),
        tables.provenance(paths[1]),
    )
    if scored.select.get("steps_digest") not in (None, artifacts.digest(steps_dir)):
        raise ArtifactError(f"{samples_dir} was not selected from {steps_dir}; run select again")
    if not (tokenizer_dir / "tokenizer.json").is_file():
        raise ArtifactError(
            f"{tokenizer_dir}: no tokenizer.json; give the directory of the expert, or of the "
            "model merged from it"
        )
    return scored


def trajectory(scored: Scored, id_: str) -> ExplainedTrajectory:
    """One trajectory with all that is known of its steps.

    Raises ArtifactError for a sample at a step that was not scored.
    """
    (row,) = _of(scored.trajectories, id_)
    steps = {step["step"]: step for step in _of(scored.steps, id_)}
    labels = {
        sample["step"]: dict(zip(sample["token_ids"], sample["weights"], strict=True))
        for sample in _of(scored.samples, id_)
    }
    completion = row["completion_ids"]
    strange = sorted((steps.keys() - range(len(completion))) | (labels.keys() - steps.keys()))
    if strange:
        raise ArtifactError(
            f"{id_}, step {strange[0]}: steps, samples and trajectory do not belong together; "
            "score and select again"
        )
    texts = scored.texts
    return ExplainedTrajectory(
        id_,
        tuple(texts.running(row["prompt_ids"])),
        tuple(
            _step(index, token, written, steps.get(index), labels.get(index, {}), texts)
            for index, (written, token) in enumerate(
                zip(completion, texts.running(completion), strict=True)
            )
        ),
        row["finish_reason"],
    )


def _of(table: pa.Table, id_: str) -> list[dict[str, Any]]:
    return table.filter(pc.equal(table["problem_id"], id_)).to_pylist()


def _step(
    index: int,
    token: Token,
    written: int,
    row: dict[str, Any] | None,
    label: dict[int, float],
    texts: Texts,
) -> Step:
    if row is None:
        return Step(index, token, None, None, None, None, ())
    columns = (row[name] for name in ("token_ids", "expert_log_probs", "amateur_log_probs"))
    stored = {id_: (math.exp(e), math.exp(a)) for id_, e, a in zip(*columns, strict=True)}
    candidates = []
    for id_ in stored.keys() | label.keys():
        expert, amateur = stored.get(id_, (None, None))
        text = texts.alone(id_)
        candidates.append((id_, Candidate(text, expert, amateur, label.get(id_), id_ == written)))
    candidates.sort(key=lambda pair: (-(pair[1].expert or 0), pair[0]))
    return Step(
        index,
        token,
        row["kl"],
        row["expert_entropy"],
        row["amateur_entropy"],
        None if row["amateur_top1"] in stored else texts.alone(row["amateur_top1"]),
        tuple(candidate for _, candidate in candidates),
    )


def chosen(scored: Scored) -> dict[str, str]:
    """The trajectories that the page shows, and why: none is picked by hand.

    The first ones of the draw, one per problem, then of the others those with the most samples;
    of equals the earlier one.
    """
    counts = {row["values"]: row["counts"] for row in _counts(scored.samples["problem_id"])}
    by_problem: dict[str, str] = {}
    for id_ in scored.ids:
        by_problem.setdefault(problem_of(id_), id_)
    first = list(by_problem.values())[:FIRST]
    others = [id_ for id_ in scored.ids if id_ not in first]
    most = sorted(others, key=lambda id_: -counts.get(id_, 0))[:MOST]
    return dict.fromkeys(first, "first") | dict.fromkeys(most, "most")


def _counts(column: pa.ChunkedArray) -> list[dict[str, Any]]:
    return pc.value_counts(column).to_pylist()


def find(ids: Sequence[str], wanted: str) -> str:
    """The id that is `wanted`, or the only one that begins or ends with it.

    Raises ProblemsError that names ids like it.
    """
    if wanted in ids:
        return wanted
    found = [id_ for id_ in ids if id_.startswith(wanted) or id_.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - NEAR:,} more" if len(found) > NEAR else ""
        raise ProblemsError(
            f"problem {wanted!r}: {len(found):,} trajectories begin or end with it: "
            f"{', '.join(found[:NEAR])}{more}; give more of the id"
        )
    near = [id_ for id_ in ids if wanted in id_]
    near += difflib.get_close_matches(wanted, ids, NEAR, cutoff=0.3) or ids
    raise ProblemsError(
        f"problem {wanted!r}: none of {len(ids):,} trajectories begins or ends with it; similar: "
        f"{', '.join([*dict.fromkeys(near)][:NEAR])}"
    )
