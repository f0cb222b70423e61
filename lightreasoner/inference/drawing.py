"""Choosing the next token of each row: the largest logit, or a draw at a temperature."""

import hashlib
from random import Random

import torch
from torch import Tensor

from lightreasoner.inference.transfer import to_device

LIKELIEST = 2.0**43
"""The weight of a row's most likely id: 2^20 such ids still sum to less than 2^63."""

UNSOUND = -1
"""The id where there is none to choose, as the logits are not finite."""


def draw_seed(seed: int, completion_id: str) -> int:
    """The seed of one completion's draws, whatever its place among the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{completion_id}".encode()).digest()[:8]) >> 1


def uniforms(generators: list[Random], steps: int, device: torch.device) -> Tensor:
    """The next numbers in [0, 1) of each row's generator (steps, rows)."""
    numbers = [[each.random() for _ in range(steps)] for each in generators]
    return to_device(torch.tensor(numbers, dtype=torch.float64).T.contiguous(), device)


def choose(logits: Tensor, temperature: float, numbers: Tensor | None) -> Tensor:
    """Ids (rows,) of `logits` (rows, vocab): the likeliest, or drawn by `numbers` (rows,) at a
    temperature; UNSOUND where the logits are not finite.
    """
    largest, ids = logits.max(dim=-1)
    if temperature > 0:
        assert numbers is not None
        ids = draw_tokens(logits, temperature, numbers)
    return ids.masked_fill(~torch.isfinite(largest), UNSOUND)


def draw_tokens(logits: Tensor, temperature: float, uniforms: Tensor) -> Tensor:
    """Ids (rows,) from softmax(logits / temperature) by inversion; `uniforms` (rows,) in [0, 1).

    Probabilities are taken as whole weights, so that their running sums are exact on any device, in
    any order: an id of weight 0 is never drawn, the last sum never missed. What is less likely than
    the likeliest id by 2^-43 has weight 0, at most 2e-8 of the whole in 2^17 ids.
    """
    # On a CPU a row at a time, which stays in its caches.
    size = len(logits) if logits.device.type == "cuda" else 1
    parts = zip(logits.split(size), uniforms[:, None].split(size), strict=True)
    return torch.cat([_draw(rows.float(), temperature, numbers) for rows, numbers in parts])


def _draw(logits: Tensor, temperature: float, uniforms: Tensor) -> Tensor:
    weights = logits.sub(logits.amax(dim=-1, keepdim=True)).div_(temperature).exp_()
    sums = weights.mul_(LIKELIEST).long().cumsum_(dim=-1)
    totals = sums[:, -1:]
    targets = torch.minimum((uniforms * totals).long(), totals - 1)
    return torch.searchsorted(sums, targets, right=True)[:, 0]
