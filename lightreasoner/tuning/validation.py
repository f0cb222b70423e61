"""Validation: measures on held-out problems while the expert is tuned.

The loss and the entropy (appendix E) are of held-out samples and need no answer. All samples of a
trajectory are read in one forward pass, however they are trained on. The perplexity of held-out
gold solutions (figure 8) is shown, and decides nothing. The drift (drift.py) is of all steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightreasoner.inference.forward import batches, hidden_states
from lightreasoner.sampling.contrast import entropy
from lightreasoner.tuning import drift, ranks
from lightreasoner.tuning.loss import Batch, collate, pieces, summed_divergence
from lightreasoner.tuning.rows import TrainingRow, join_rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
LARGEST = 700.0  # nats that exp can take
MEASURES = ("loss", "entropy", "gold_perplexity", *drift.MEASURES)


@dataclass(frozen=True)
class Validation:
    """Held-out rows of samples, gold solutions as rows of one-hot labels (maybe none), and the
    samples' trajectories as rows of all their steps, a label of no token where nothing is taught.
    """

    rows: list[TrainingRow]
    gold: list[TrainingRow]
    steps: list[TrainingRow]

    @torch.no_grad()
    def measure(self, model: "PreTrainedModel") -> dict[str, float]:
        """`loss`: mean KL(v || pi) of the samples, nats; `entropy`: mean of pi at their positions,
        nats; `gold_perplexity`: exp of the mean negative log-likelihood of the solutions' tokens.
        """
        held_out = list(_batches(join_rows(self.rows), model.device))
        parts = [_loss_and_entropy(model, batch) for batch in ranks.share(held_out)]
        loss, entropy_ = (_sum(parts, model, 2) / _samples(held_out)).tolist()
        found = {"loss": loss, "entropy": entropy_}
        if self.gold:
            gold = list(_batches(self.gold, model.device))
            losses = [summed_divergence(model, batch).double() for batch in ranks.share(gold)]
            nll = _sum(losses, model).item() / _samples(gold)
            found["gold_perplexity"] = math.exp(nll) if nll < LARGEST else math.inf
        return found

    def drift(self, model: "PeftModel") -> dict[str, float]:
        """How far the adapter moves the model, by drift.py's measures."""
        return drift.drift(model, list(_batches(self.steps, model.device)))


def _sum(parts: list[Tensor], model: "PreTrainedModel", *shape: int) -> Tensor:
    """The sum of all ranks' parts, each of this shape; a rank may have none."""
    if not parts:
        parts = [torch.zeros(shape, dtype=torch.float64, device=model.device)]
    return ranks.total(torch.stack(parts).sum(dim=0))


def _batches(rows: Sequence[TrainingRow], device: torch.device) -> list[Batch]:
    lengths = [len(row.input_ids) for row in rows]
    return [
        collate([rows[index] for index in batch], device)
        for batch in batches(lengths, BATCH_TOKENS[device.type])
    ]


def _loss_and_entropy(model: "PreTrainedModel", batch: Batch) -> Tensor:
    """Sums over a batch's samples of KL(v || pi) and of pi's entropy (2,), one forward pass."""
    states = hidden_states(model, batch.input_ids)[batch.rows, batch.positions]
    head = model.get_output_embeddings()
    sums = torch.zeros(2, dtype=torch.float64, device=states.device)
    for piece in pieces(states, head.weight, head.bias, batch.labels):
        log_probs = piece.logits - piece.norms[:, None]
        sums += torch.stack([piece.divergence(), entropy(log_probs).sum()])
    return sums


def _samples(batches: Sequence[Batch]) -> int:
    return sum(len(batch.positions) for batch in batches)
