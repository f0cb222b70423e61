"""The loss: KL(v_C || pi_E) at the selected positions alone (paper, eq. 37).

The label v is sparse, so the divergence is log-sum-exp over the vocabulary minus a gather on the
support, plus the label's own (constant) negative entropy. The LM head runs at trained positions
only. It is fixed (LoRA leaves it alone), so the gradient for the states that enter it is known at
once, (sum v) softmax(z) - v through the head, and no logits are kept for a backward pass: memory
does not grow with samples x vocabulary.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightreasoner.inference.forward import hidden_states, pad_right
from lightreasoner.inference.transfer import to_device
from lightreasoner.tuning.rows import TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A CPU is faster where they stay in its caches; a GPU wants more at a time.
FLOAT = torch.float32
LOGITS_IN_FLIGHT = {"cpu": 1 << 22, "cuda": 1 << 27}


@dataclass(frozen=True)
class Batch:
    """Rows as tensors. Sample i is at `positions[i]` of row `rows[i]`."""

    input_ids: Tensor
    rows: Tensor
    positions: Tensor
    labels: "Labels"
    attention_mask: Tensor | None = None


class Labels(NamedTuple):
    """Flat labels: entry j gives `weights[j]` to token `ids[j]` of sample `samples[j]`; those of
    sample i are the entries from offsets[i] to offsets[i + 1]."""

    samples: Tensor
    ids: Tensor
    weights: Tensor
    offsets: list[int]


def collate(rows: list[TrainingRow], device: torch.device) -> Batch:
    """A batch of rows, padded on the right."""
    labels = [label for row in rows for label in row.labels]
    at = [(i, position) for i, row in enumerate(rows) for position in row.positions]
    entries = [(sample, id_) for sample, (ids, _) in enumerate(labels) for id_ in ids]
    places, labelled = (
        to_device(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous(), device)
        for pairs in (at, entries)
    )
    weights = to_device([w for _, weights in labels for w in weights], device, FLOAT)
    offsets = [0, *itertools.accumulate(len(ids) for ids, _ in labels)]
    return Batch(
        pad_right([row.input_ids for row in rows], device),
        places[0],
        places[1],
        Labels(labelled[0], labelled[1], weights, offsets),
    )


def summed_divergence(
    model: "PreTrainedModel", batch: Batch, vocabulary: int | None = None
) -> Tensor:
    """Sum of KL(v || pi) over a batch's samples (scalar), nats, one forward pass.

    pi is over the first `vocabulary` ids, all if None; the labels must lie in them.
    """
    hidden = hidden_states(model, batch.input_ids, batch.attention_mask)
    head = model.get_output_embeddings()
    bias = None if head.bias is None else head.bias[:vocabulary]
    return _SummedDivergence.apply(
        hidden[batch.rows, batch.positions],
        head.weight[:vocabulary],
        bias,
        batch.labels,
    )


class _SummedDivergence(torch.autograd.Function):
    """Sum of KL(v || softmax(states W^T + b)), differentiable in the states alone."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Labels,
    ) -> Tensor:
        """`states` (samples, hidden), `weight` (vocab, hidden), `bias` (vocab,)."""
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=_wide(states), device=states.device)
        for piece in pieces(states, weight, bias, labels):
            total += piece.divergence()
            if gradient is not None:
                gradient[piece.samples] = piece.slope().to(states.dtype) @ weight
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, outgoing: Tensor) -> Any:
        """The stored gradient for the states, scaled."""
        scaled = (ctx.gradient * outgoing).to(ctx.gradient.dtype)
        return scaled, None, None, None


class Piece(NamedTuple):
    """Some of a batch's `samples`: their logits (samples, vocab), the log-sum-exp of these
    (samples,), and their labels' entries: `rows[i]` gives `weights[i]` to token `ids[i]`."""

    samples: slice
    logits: Tensor
    norms: Tensor
    rows: Tensor
    ids: Tensor
    weights: Tensor

    def divergence(self) -> Tensor:
        """Sum of KL(v || pi) over the samples, nats."""
        return divergence_terms(self.logits, self.norms, self.rows, self.ids, self.weights).sum()

    def slope(self) -> Tensor:
        """That sum's gradient for the logits, (sum v) pi - v (samples, vocab), in their place."""
        sums = torch.zeros_like(self.norms).index_add_(0, self.rows, self.weights)
        slope = self.logits.sub_(self.norms[:, None]).exp_().mul_(sums[:, None])
        return slope.index_put_((self.rows, self.ids), -self.weights, accumulate=True)


def pieces(states: Tensor, weight: Tensor, bias: Tensor | None, labels: Labels) -> Iterator[Piece]:
    """As many samples at a time as may have their logits in memory together; float32 or wider."""
    wide = _wide(states)
    size = max(1, LOGITS_IN_FLIGHT[states.device.type] // len(weight))
    for start in range(0, len(states), size):
        end = min(start + size, len(states))
        entries = slice(labels.offsets[start], labels.offsets[end])
        logits = torch.nn.functional.linear(states[start:end], weight, bias).to(wide)
        yield Piece(
            slice(start, end),
            logits,
            logits.logsumexp(dim=-1),
            labels.samples[entries] - start,
            labels.ids[entries],
            labels.weights[entries].to(wide),
        )


def _wide(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def divergence_terms(
    logits: Tensor, norms: Tensor, rows: Tensor, ids: Tensor, weights: Tensor
) -> Tensor:
    """v log v - v log pi for each entry of the labels (entries,): entry i gives `weights[i]` to
    token `ids[i]` of sample `rows[i]`; `norms` (samples,) are the log-sum-exp of `logits`."""
    return torch.special.xlogy(weights, weights) - weights * (logits[rows, ids] - norms[rows])
