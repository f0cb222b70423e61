"""Ranks: the processes of one fine-tuning, and what they do together (torch.distributed).

Each holds the whole expert and takes its share of an update's forward passes; the gradients of
LoRA's weights are then added up, once an update, so that all take the same step. Trainer knows
nothing of it: DistributedDataParallel would do the same, for a model whose loss is computed in its
own `forward`. A process alone is all ranks at once.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@contextlib.contextmanager
def joined(rank: int, size: int, meeting: Path, device: str) -> Iterator[None]:
    """Be one of `size` ranks, which find one another through the file `meeting`."""
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        there = int(total(torch.ones(1)).item())
        assert there == size, f"{there} of {size} ranks met"
        yield
    finally:
        dist.destroy_process_group()


def are_several() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this rank writes, and talks; a process alone does."""
    return not are_several() or dist.get_rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This rank's part: every n-th of the items, so that long ones and short ones are spread."""
    return items[dist.get_rank() :: dist.get_world_size()] if are_several() else items


def total(tensor: Tensor) -> Tensor:
    """The sum over all ranks, in the tensor's place and of the same bits everywhere."""
    if are_several():
        dist.all_reduce(tensor)
    return tensor


def agreed(decide: Callable[[], T]) -> T:
    """What the first rank decides, for all."""
    found = [decide() if is_first() else None]
    if are_several():
        dist.broadcast_object_list(found)
    return found[0]  # type: ignore[return-value]


def add_up_gradients(weights: Sequence[Tensor]) -> None:
    """Give each weight the sum of all ranks' gradients; a rank without any adds zeros."""
    if not are_several():
        return
    grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in weights]
    flat = total(torch.cat([grad.flatten() for grad in grads]))
    for each, part in zip(weights, flat.split([grad.numel() for grad in grads]), strict=True):
        each.grad = part.view_as(each)


def check_equal(weights: Sequence[Tensor]) -> None:
    """Assert that all ranks hold the same weights, by a sum of them; NaN is the loss's to tell."""
    if are_several():
        found = torch.stack([each.detach().double().sum() for each in weights]).sum().nan_to_num()
        ends = torch.stack([found, -found])
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        assert ends[0] == -ends[1], "the ranks' adapters differ"
