"""Parity: how far a model's next-token distributions are from another's, at the same prefixes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightreasoner.inference.forward import hidden_states, logits_of, pad_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NONE = {"kl_mean": 0.0, "kl_max": 0.0, "top1_agreement": 1.0}
"""The distance of a model from itself."""


@torch.inference_mode()
def logits(model: "PreTrainedModel", rows: list[list[int]]) -> Iterator[Tensor]:
    """TrainingRow by row, the float32 logits (positions, vocab) at its last positions, at most 32.

    A float32 model computes in float32: no TF32, whose 10 bits a GPU may otherwise use.
    """
    for row in rows:
        with _highest_precision():
            hidden = hidden_states(model, pad_right([row], model.device))
            found = logits_of(model, hidden[0, -32:]).float().cpu()
        yield found


@contextmanager
def _highest_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def distance(before: Iterable[Tensor], after: Iterable[Tensor]) -> dict[str, float]:
    """KL(before || after) in nats, mean and largest over positions, and how often the likeliest
    token is the same; logits are (positions, vocab) for each row. NaN is never lost."""
    divergences, agreements = [], []
    for one, other in zip(before, after, strict=True):
        log_p, log_q = one.double().log_softmax(dim=-1), other.double().log_softmax(dim=-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum(dim=-1))
        agreements.append(one.argmax(dim=-1) == other.argmax(dim=-1))
    kl = torch.cat(divergences).clamp(min=0.0)  # clamp keeps NaN
    return {
        "kl_mean": kl.mean().item(),
        "kl_max": kl.max().item(),
        "top1_agreement": torch.cat(agreements).double().mean().item(),
        "positions": len(kl),
    }
