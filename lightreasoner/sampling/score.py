"""Score: one teacher-forced pass of each model over each trajectory, every step from the first.

Departures from the authors' script (docs/deviations.md): the amateur reads the trajectory once
instead of every prefix again; token ids are kept; raw logits; both distributions are renormalised
over the vocabulary that the two models share; the first step counts. A step whose own token the
models do not share (an end token that only the expert has) cannot be contrasted: it is left out
and counted. The amateur reads the expert's ids, as in that script; those that are another token to
it (the markers of another chat template) are counted and reported.
"""

import logging
import shutil
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from lightreasoner.errors import ModelError
from lightreasoner.inference import loading, vocabulary
from lightreasoner.inference.forward import batches, check_head, hidden_states, logits_of, pad_right
from lightreasoner.inference.transfer import to_device
from lightreasoner.inference.worker_pool import crew
from lightreasoner.sampling.contrast import (
    Floats,
    Ints,
    entropy,
    kl_divergence,
    plausible,
    shared_log_probs,
)
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from lightreasoner.storage.fingerprint import running_code
from lightreasoner.storage.shards import Shards, shard_size
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Score
    from lightreasoner.progress import Watcher

log = logging.getLogger(__name__)

# What a CPU's caches hold runs faster; a GPU wants more at a time. The LM head wants many rows at
# once, the passes over its logits few: on all of them they took twice the time (49,152 tokens).
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
LOGITS_IN_FLIGHT = {"cpu": 1 << 23, "cuda": 1 << 26}
LOGITS_IN_CACHE = {"cpu": 1 << 18, "cuda": 1 << 26}
Trajectory = dict[str, Any]
Names = npt.NDArray[np.str_]


def write(inputs: Inputs, config: "Score", work: Workspace, watcher: "Watcher") -> None:
    """Write `steps.parquet`, one row per step, and pass `trajectories.parquet` on beside it.

    Raises ModelError if the vocabularies differ in an ordinary token, if a trajectory exceeds a
    model's context or holds a token that a model has no row for, and if logits are not finite.
    """
    expert, amateur, compute = inputs["expert"], inputs["amateur"], work.compute
    source = inputs["trajectories"].path / "trajectories.parquet"
    shared = vocabulary.check_pair(expert.path, amateur.path)
    trajectories = tables.read_table(source, tables.TRAJECTORIES)
    for model in (expert, amateur):
        _check_lengths(trajectories, model.path)
        _check_ids(trajectories, model.path)
    differing = vocabulary.differing_tokens(expert.path, amateur.path)
    provenance = {
        "expert": expert.digest,
        "amateur": amateur.digest,
        "alpha_min": config.alpha_min,
        "shared_vocabulary": len(shared),
        "differing_tokens": differing,
        "misread_tokens": _count_misread(trajectories, differing),
        **_count_left_out(trajectories, shared),
        "code": running_code("lightreasoner.sampling.score"),
    }
    tokens = np.concatenate([[0], np.cumsum(_lengths(trajectories))])
    make = partial(_ShardScorer, expert, amateur, trajectories, shared, config.alpha_min, compute)
    with crew(make, compute) as scorers:
        shards = Shards(work.scratch, tables.STEPS, len(trajectories), scorers.size)
        steps = shards.compute(
            scorers.pieces,
            lambda done: watcher.progress(int(tokens[done]), int(tokens[-1]), "tokens"),
        )
        tables.write_pieces(steps, tables.STEPS, work.out / "steps.parquet", provenance)
    shutil.copyfile(source, work.out / "trajectories.parquet")


class _ShardScorer:
    """Both models, scoring ranges of `trajectories` over the ids `shared`."""

    def __init__(
        self,
        expert: Artifact,
        amateur: Artifact,
        trajectories: pa.Table,
        shared: list[int],
        alpha_min: float,
        compute: "Compute",
    ):
        self.trajectories = trajectories
        self.scorer = Scorer(
            _load(expert, compute),
            _load(amateur, compute),
            torch.tensor(shared),
            alpha_min,
        )
        parameters = self.scorer.expert.num_parameters() + self.scorer.amateur.num_parameters()
        flop = 2.0 * parameters * int(_lengths(trajectories).sum())
        each = flop / max(1, len(trajectories))
        self.size = shard_size(len(trajectories), max(1.0, each), compute.device)

    def __call__(self, rows: range) -> pa.Table:
        """The rows of steps.parquet."""
        return self.scorer.score(self.trajectories.slice(rows.start, len(rows)).to_pylist())


def _load(found: Artifact, compute: "Compute") -> "PreTrainedModel":
    model = loading.load_model(found.path, compute.device, compute.dtype, found.derivation)
    check_head(model)
    return model


def _lengths(trajectories: pa.Table) -> Ints:
    """Tokens of each trajectory, prompt and completion."""
    counts = [
        pc.list_value_length(trajectories[name]).to_numpy()
        for name in ("prompt_ids", "completion_ids")
    ]
    return counts[0] + counts[1]


def _check_lengths(trajectories: pa.Table, model: Path) -> None:
    longest = int(_lengths(trajectories).max(initial=0))
    context = loading.context_length(model)
    if longest > context:
        row = int(_lengths(trajectories).argmax())
        raise ModelError(
            f"trajectory of {trajectories['problem_id'][row]}: its {longest} tokens exceed the "
            f"context of {context} of {model}; leave the problem out or lower "
            "generate.max_new_tokens"
        )


def _check_ids(trajectories: pa.Table, model: Path) -> None:
    """Raise ModelError for a token that the model has to read, but has no row for."""
    rows = vocabulary.vocabulary_size(model)
    names = trajectories["problem_id"].to_pylist()
    for name, prompt, completion in zip(
        names,
        trajectories["prompt_ids"].to_pylist(),
        trajectories["completion_ids"].to_pylist(),
        strict=True,
    ):
        largest = max([*prompt, *completion[:-1]], default=0)
        if largest >= rows:
            raise ModelError(
                f"trajectory of {name}: holds token {largest}, but {model} has rows only for the "
                f"first {rows}; use a generate.style without it, or leave the problem out"
            )


def _count_left_out(trajectories: pa.Table, shared: list[int]) -> dict[str, int]:
    """Trajectories without a step, and steps whose own token is not shared; both are reported."""
    completions = trajectories["completion_ids"]
    written = pc.list_flatten(completions).to_numpy()
    unshared = int(np.isin(written, shared, invert=True).sum())
    if unshared:
        log.warning(
            "score: %d of %d steps are left out: expert and amateur do not share the token that "
            "the expert wrote there",
            unshared,
            len(written),
        )
    is_empty = pc.equal(pc.list_value_length(completions), 0)
    empty = trajectories["problem_id"].filter(is_empty).to_pylist()
    if empty:
        log.warning("score: %d trajectories have no step: %s", len(empty), ", ".join(empty[:10]))
    return {"unshared_steps": unshared, "empty_trajectories": len(empty)}


def _count_misread(
    trajectories: pa.Table, differing: dict[int, tuple[str | None, str | None]]
) -> int:
    """How many tokens of the prefixes are different ones to the amateur; they are named in the
    log."""
    completions = trajectories["completion_ids"]
    lengths = pc.list_value_length(completions).to_numpy()
    last = np.cumsum(lengths)[lengths > 0] - 1  # which no prefix holds
    ids = np.concatenate(
        [
            pc.list_flatten(trajectories["prompt_ids"]).to_numpy(),
            np.delete(pc.list_flatten(completions).to_numpy(), last),
        ]
    )
    found, counts = np.unique(ids[np.isin(ids, list(differing))], return_counts=True)
    if len(found):
        named = [f"{differing[id_][0]} as {differing[id_][1]}" for id_ in found.tolist()]
        log.warning(
            "score: the amateur reads %d of %d tokens, prompts included, as different tokens: %s; "
            "everything else is the same text to both models (docs/deviations.md)",
            counts.sum(),
            len(ids),
            ", ".join(named),
        )
    return int(counts.sum())


@dataclass(frozen=True)
class Scorer:
    """Expert and amateur, the ids `shared` (shared,) that they share, on the CPU, and what is
    stored."""

    expert: "PreTrainedModel"
    amateur: "PreTrainedModel"
    shared: Tensor
    alpha_min: float

    @cached_property
    def _shared_ids(self) -> Tensor:
        """The same on the models' device."""
        return to_device(self.shared, self.expert.device)

    def score(self, trajectories: list[Trajectory]) -> pa.Table:
        """The steps of all trajectories (schema `tables.STEPS`), in their order."""
        found: dict[int, pa.Table] = {}
        lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in trajectories]
        for batch in batches(lengths, BATCH_TOKENS[self.expert.device.type]):
            rows = [trajectories[index] for index in batch]
            found |= dict(zip(batch, self.score_batch(rows), strict=True))
        return pa.concat_tables([tables.STEPS.empty_table(), *(found[i] for i in sorted(found))])

    @torch.inference_mode()
    def score_batch(self, trajectories: list[Trajectory]) -> list[pa.Table]:
        """The steps of each trajectory, from one forward pass of each model over all of them."""
        kept = [self._shared_steps(row["completion_ids"]) for row in trajectories]
        counts = [len(steps) for steps in kept]
        names = np.repeat([row["problem_id"] for row in trajectories], counts)
        steps = np.concatenate(kept)
        prompts = np.repeat([len(row["prompt_ids"]) for row in trajectories], counts)
        rows = np.repeat(np.arange(len(counts)), counts)
        device = self.expert.device
        at = to_device(torch.from_numpy(np.stack([rows, prompts + steps - 1])), device)
        input_ids = pad_right(
            [row["prompt_ids"] + row["completion_ids"][:-1] for row in trajectories], device
        )
        expert, amateur = (hidden_states(m, input_ids)[*at] for m in (self.expert, self.amateur))
        pieces = [
            self._table(expert[block], amateur[block], names[block], steps[block])
            for block in self._slices(len(steps), LOGITS_IN_FLIGHT)
        ]
        table = pa.concat_tables([tables.STEPS.empty_table(), *pieces])
        ends = np.cumsum(counts)
        return [table.slice(end - count, count) for end, count in zip(ends, counts, strict=True)]

    def _shared_steps(self, completion_ids: list[int]) -> Ints:
        return np.isin(completion_ids, self.shared.numpy()).nonzero()[0]

    def _slices(self, steps: int, logits: dict[str, int]) -> list[slice]:
        """Consecutive steps, each slice of at most this many logits per model (at least one
        step)."""
        size = max(1, logits[self.expert.device.type] // self.expert.config.vocab_size)
        return [slice(start, start + size) for start in range(0, steps, size)]

    def _table(
        self, expert_states: Tensor, amateur_states: Tensor, names: Names, steps: Ints
    ) -> pa.Table:
        """The rows of some steps from both models' last states there, each (steps, hidden)."""
        expert = logits_of(self.expert, expert_states)
        amateur = logits_of(self.amateur, amateur_states)
        pieces = [
            self._contrast(expert[piece], amateur[piece])
            for piece in self._slices(len(steps), LOGITS_IN_CACHE)
        ]
        contrast = Contrast(*(torch.cat(parts, dim=-1) for parts in zip(*pieces, strict=True)))
        kl, *entropies = contrast.measures.float().cpu().numpy()
        _check_finite(kl, names, steps)
        offsets = np.concatenate([[0], contrast.support.cpu().numpy().cumsum()]).astype(np.int32)
        ids = self._shared_ids.int()
        table = pa.table(
            [
                pa.array(names, pa.string()),
                pa.array(steps, pa.int32()),
                kl,
                *entropies,
                *ids[contrast.top1].cpu().numpy(),
                *(
                    pa.ListArray.from_arrays(offsets, values)
                    for values in (
                        ids[contrast.tokens].cpu().numpy(),
                        *contrast.log_probs.float().cpu().numpy(),
                    )
                ),
            ],
            schema=tables.STEPS,
        )
        # A copy in Arrow's memory: small blocks that stay among the logits' large ones would keep
        # the C library from using those again (measured: 1 MiB more per step).
        return table.take(np.arange(len(table)))

    def _contrast(self, expert_logits: Tensor, amateur_logits: Tensor) -> "Contrast":
        """What is stored of some steps, from both models' logits there, each (steps, vocab)."""
        expert = shared_log_probs(expert_logits, self._shared_ids)
        amateur = shared_log_probs(amateur_logits, self._shared_ids)
        support = plausible(expert, self.alpha_min)
        rows, columns = support.nonzero(as_tuple=True)
        return Contrast(
            torch.stack([kl_divergence(expert, amateur), entropy(expert), entropy(amateur)]),
            # On a CPU faster than argmax.
            torch.stack([log_probs.max(dim=-1).indices for log_probs in (expert, amateur)]),
            support.sum(dim=-1),
            columns,
            torch.stack([expert[rows, columns], amateur[rows, columns]]),
        )


class Contrast(NamedTuple):
    """What is stored of some steps: `measures` (3, steps) are KL, the expert's entropy and the
    amateur's, `top1` (2, steps) the likeliest tokens. `tokens` (entries,) and `log_probs`
    (2, entries) hold the plausible tokens of one step after another, `support` (steps,) how many a
    step has. Tokens are columns of the shared ids."""

    measures: Tensor
    top1: Tensor
    support: Tensor
    tokens: Tensor
    log_probs: Tensor


def _check_finite(kl: Floats, names: Names, steps: Ints) -> None:
    finite = np.isfinite(kl)
    if not finite.all():
        bad = int((~finite).argmax())
        raise ModelError(
            f"problem {printable(names[bad])}, step {steps[bad]}: KL is not finite, so a model "
            "gave NaN or infinite logits; try compute.dtype float32 or check the weights"
        )
