"""Validation: what held-out problems say while the expert is tuned.

The loss and the entropy (appendix E) are of held-out samples and need no answer. The perplexity of
held-out gold solutions (figure 8) is shown, and decides nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightreasoner.contrast import entropy
from lightreasoner.forward import batches, hidden_states, logits_of
from lightreasoner.loss import LOGITS_IN_FLIGHT, Batch, collate, summed_divergence
from lightreasoner.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
LARGEST = 700.0  # nats that exp can take
MEASURES = ("loss", "entropy", "gold_perplexity")


@dataclass(frozen=True)
class Validation:
    """Held-out rows of samples, and gold solutions as rows of one-hot labels (maybe none)."""

    rows: list[Row]
    gold: list[Row]

    @torch.no_grad()
    def measure(self, model: "PreTrainedModel") -> dict[str, float]:
        """`loss`: mean KL(v || pi) of the samples, nats; `entropy`: mean of pi at their positions,
        nats; `gold_perplexity`: exp of the mean negative log-likelihood of the solutions' tokens.
        """
        held_out = list(_batches(self.rows, model.device))
        gold = list(_batches(self.gold, model.device))
        found = {
            "loss": _mean([summed_divergence(model, batch).item() for batch in held_out], held_out),
            "entropy": _mean([_summed_entropy(model, batch) for batch in held_out], held_out),
        }
        if gold:
            nll = _mean([summed_divergence(model, batch).item() for batch in gold], gold)
            found["gold_perplexity"] = math.exp(nll) if nll < LARGEST else math.inf
        return found


def _batches(rows: Sequence[Row], device: torch.device) -> list[Batch]:
    lengths = [len(row.input_ids) for row in rows]
    return [
        collate([rows[index] for index in batch], device)
        for batch in batches(lengths, BATCH_TOKENS[device.type])
    ]


def _summed_entropy(model: "PreTrainedModel", batch: Batch) -> float:
    states = hidden_states(model, batch.input_ids)[batch.rows, batch.positions]
    size = max(1, LOGITS_IN_FLIGHT[states.device.type] // model.config.vocab_size)
    pieces = [
        entropy(logits_of(model, piece).float().log_softmax(dim=-1)).sum().item()
        for piece in states.split(size)
    ]
    return math.fsum(pieces)


def _mean(sums: list[float], of: list[Batch]) -> float:
    return math.fsum(sums) / sum(len(batch.positions) for batch in of)
