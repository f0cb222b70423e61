"""Score: one teacher-forced pass of each model over each trajectory, every step from the first.

Departures from the authors' script (docs/deviations.md): the amateur reads the trajectory once
instead of every prefix anew; token ids are kept; raw logits; both distributions are renormalised
over the vocabulary that the two models share; the first step counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor

from lightreasoner import models, tables
from lightreasoner.contrast import entropy, kl_divergence, plausible, shared_log_probs
from lightreasoner.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Score
    from lightreasoner.progress import Watcher

BATCH_TOKENS = 4096
LOGITS_IN_FLIGHT = 1 << 25
Trajectory = dict[str, Any]


def write_steps(
    expert_dir: Path,
    amateur_dir: Path,
    trajectories_dir: Path,
    config: "Score",
    compute: "Compute",
    out: Path,
    watcher: "Watcher",
) -> None:
    """Write `steps.parquet`, one row a step, and pass `trajectories.parquet` on beside it.

    Raises ModelError if the vocabularies differ in an ordinary token or logits are not finite.
    """
    shared = torch.tensor(models.check_pair(expert_dir, amateur_dir), device=compute.device)
    table = tables.read(trajectories_dir / "trajectories.parquet", tables.TRAJECTORIES)
    trajectories = table.to_pylist()
    expert = models.load_model(expert_dir, compute.device, compute.dtype)
    amateur = models.load_model(amateur_dir, compute.device, compute.dtype)
    scored: dict[int, pa.Table] = {}
    for batch in _batches(trajectories):
        rows = [trajectories[index] for index in batch]
        for index, steps in zip(
            batch, score_batch(expert, amateur, rows, shared, config.alpha_min), strict=True
        ):
            scored[index] = steps
        watcher.progress(len(scored), len(trajectories), "trajectories")
    steps = pa.concat_tables(scored[index] for index in range(len(trajectories)))
    provenance = {
        "alpha_min": config.alpha_min,
        "shared_vocabulary": len(shared),
        "differing_tokens": models.differing_tokens(expert_dir, amateur_dir),
    }
    tables.write(steps, tables.STEPS, out / "steps.parquet", provenance)
    tables.write(table, tables.TRAJECTORIES, out / "trajectories.parquet")


def _batches(trajectories: list[Trajectory]) -> Iterator[list[int]]:
    """Rows of similar length, at most BATCH_TOKENS padded tokens together."""
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) for row in trajectories]
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def score_batch(
    expert: "PreTrainedModel",
    amateur: "PreTrainedModel",
    trajectories: list[Trajectory],
    shared: Tensor,
    alpha_min: float,
) -> list[pa.Table]:
    """The steps of each trajectory, as tables of schema `tables.STEPS`.

    Rows are padded on the right: under causal attention no real token sees the padding.
    """
    input_ids = pad_right(
        [row["prompt_ids"] + row["completion_ids"][:-1] for row in trajectories], expert.device
    )
    hidden_pair = [hidden_states(model, input_ids) for model in (expert, amateur)]
    found = []
    for row, trajectory in enumerate(trajectories):
        first = len(trajectory["prompt_ids"]) - 1
        last = first + len(trajectory["completion_ids"])
        pieces = [
            _contrast_steps(
                logits_of(expert, hidden_pair[0][row, start:stop]),
                logits_of(amateur, hidden_pair[1][row, start:stop]),
                shared,
                alpha_min,
                trajectory["problem_id"],
                start - first,
            )
            for start, stop in _pieces(first, last, expert.config.vocab_size)
        ]
        found.append(pa.concat_tables(pieces) if pieces else tables.STEPS.empty_table())
    return found


def _pieces(first: int, last: int, vocab_size: int) -> Iterator[tuple[int, int]]:
    """Cut positions [first, last) so that a piece's logits stay within LOGITS_IN_FLIGHT values."""
    size = max(1, LOGITS_IN_FLIGHT // vocab_size)
    for start in range(first, last, size):
        yield start, min(start + size, last)


def pad_right(rows: list[list[int]], device: torch.device) -> Tensor:
    """Ids (batch, longest), padded on the right with 0."""
    input_ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
    return input_ids.to(device)


def hidden_states(model: "PreTrainedModel", input_ids: Tensor) -> Tensor:
    """The last layer's states (batch, seq, hidden), before the LM head."""
    return model.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state


def logits_of(model: "PreTrainedModel", hidden: Tensor) -> Tensor:
    """Logits (positions, vocab) of states (positions, hidden)."""
    return model.get_output_embeddings()(hidden)


def _contrast_steps(
    expert_logits: Tensor,
    amateur_logits: Tensor,
    shared: Tensor,
    alpha_min: float,
    problem_id: str,
    first_step: int,
) -> pa.Table:
    """The rows of consecutive steps from their logits, each (steps, vocab)."""
    expert = shared_log_probs(expert_logits, shared)
    amateur = shared_log_probs(amateur_logits, shared)
    kl = kl_divergence(expert, amateur)
    if not torch.isfinite(kl).all():
        step = first_step + int((~torch.isfinite(kl)).nonzero()[0])
        raise ModelError(
            f"problem {problem_id}, step {step}: KL is not finite, so a model gave NaN or infinite "
            "logits; try compute.dtype float32 or check the weights"
        )
    rows, columns = plausible(expert, alpha_min).nonzero(as_tuple=True)
    offsets = torch.zeros(len(kl) + 1, dtype=torch.int32)
    offsets[1:] = torch.bincount(rows, minlength=len(kl)).cumsum(0)

    def lists(values: Tensor) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets.numpy(), values.cpu().numpy())

    return pa.table(
        [
            pa.array([problem_id] * len(kl), pa.string()),
            pa.array(range(first_step, first_step + len(kl)), pa.int32()),
            *(values.float().cpu().numpy() for values in (kl, entropy(expert), entropy(amateur))),
            *(shared[top].int().cpu().numpy() for top in (expert.argmax(-1), amateur.argmax(-1))),
            lists(shared[columns].int()),
            lists(expert[rows, columns].float()),
            lists(amateur[rows, columns].float()),
        ],
        schema=tables.STEPS,
    )
