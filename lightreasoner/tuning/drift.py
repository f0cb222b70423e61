"""Drift: how far the tuning moves the expert from itself, on steps that it taught and on others.

Labels are only at selected steps, so a held-out loss can fall while everything else goes. The
drift needs no answer: KL(base || tuned) at every step of held-out trajectories, where the base is
the expert with the adapter switched off. What was not taught should hardly move.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightreasoner.inference.forward import hidden_states
from lightreasoner.sampling.contrast import kl_divergence
from lightreasoner.tuning.loss import LOGITS_IN_FLIGHT, Batch

if TYPE_CHECKING:
    from peft import PeftModel

MEASURES = ("drift", "top1_kept", "drift_taught")


@torch.no_grad()
def drift(model: "PeftModel", steps: Sequence[Batch]) -> dict[str, float]:
    """`drift`: mean KL(base || tuned) at the steps without a label, nats; `top1_kept`: the share of
    these whose likeliest token is the base's; `drift_taught`: the mean KL at those with one.

    A measure without steps is left out.
    """
    found = [_distances(model, batch) for batch in steps]
    kl, kept = (torch.cat(parts) for parts in zip(*found, strict=True))
    counts = [torch.tensor(batch.offsets).diff() for batch in steps]
    taught = torch.cat(counts).to(kl.device) > 0
    sums = torch.stack(
        [kl[~taught].sum(), kept[~taught].double().sum(), kl[taught].sum(), taught.double().sum()]
    )
    *totals, n_taught = sums.tolist()
    sizes = (len(taught) - n_taught, len(taught) - n_taught, n_taught)
    return {name: total / n for name, total, n in zip(MEASURES, totals, sizes, strict=True) if n}


def _distances(model: "PeftModel", batch: Batch) -> tuple[Tensor, Tensor]:
    """KL(base || tuned) at each of a batch's positions, float64, and whether the likeliest token
    stayed (steps,)."""
    inner, at = model.get_base_model(), (batch.rows, batch.positions)
    tuned = hidden_states(inner, batch.input_ids)[at]
    with model.disable_adapter():
        base = hidden_states(inner, batch.input_ids)[at]
    head = inner.get_output_embeddings()
    kl, kept = [], []
    size = max(1, LOGITS_IN_FLIGHT[base.device.type] // len(head.weight))
    for before, after in zip(base.split(size), tuned.split(size), strict=True):
        logits, moved = (head(states).float() for states in (before, after))
        kl.append(kl_divergence(logits.log_softmax(-1), moved.log_softmax(-1)).double())
        kept.append(logits.argmax(-1) == moved.argmax(-1))
    return torch.cat(kl), torch.cat(kept)
