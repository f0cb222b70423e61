"""A GPU that is only pretended: its tensors lie in memory, but mix with none that lie there openly.

`with pretended_gpu.at_hand() as gpu:` makes `cuda` a device of this process: `.to("cuda")`,
factories with `device=`, `tensor.device` and `module.to` know it, and every operator computes on
the CPU, so that results are those of the CPU, bit for bit. As on a card,

- an operator on tensors of both kinds is refused (MixedDevicesError), but for CPU scalars of no
  dimension in element-wise operators, CPU indices, and copies;
- `numpy()` is refused;
- whatever makes the host wait for the card is noted in `gpu.waits`, with the line that asked: reads
  (`item`, `tolist`, `bool`, `.cpu()`), results whose size the card decides (`nonzero`, masks as
  indices, `repeat_interleave`), and copies to the card that are not both pinned and non-blocking.

A tensor is on the card if its storage is: views, parameters and gradients need nothing more.
`FakeTensorMode` cannot do this on a build without CUDA, and computes nothing.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("cuda", 0)
aten = torch.ops.aten

SIZED_BY_VALUES = {
    aten.nonzero, aten.masked_select, aten.repeat_interleave, aten.bincount, aten.unique_dim,
    aten._unique2, aten.unique_consecutive, aten.equal, aten.allclose,
}  # fmt: skip
"""What a card cannot answer, or size the result of, before it has computed."""

READS = {aten._local_scalar_dense, aten.item, aten.is_nonzero}
WITH_INDICES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
TAKES_SCALARS = {
    aten.where,
    aten.masked_fill,
    aten.masked_fill_,
    aten.fill,
    aten.fill_,
    *WITH_INDICES,
}
FROM_VALUES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
MINE = (__file__, str(Path(torch.__file__).parent), traceback.__file__)


class MixedDevicesError(RuntimeError):
    """An operator got tensors of the card and of the CPU."""


class Wait(NamedTuple):
    """Something that the host waited for, and the line that asked for it."""

    kind: str
    line: str


@dataclass
class Card:
    """What happened on the pretended card; `operators` counts what was asked of it."""

    waits: list[Wait] = field(default_factory=list)
    operators: int = 0
    storages: dict[int, StorageWeakRef] = field(default_factory=dict)
    pinned: dict[int, StorageWeakRef] = field(default_factory=dict)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the card."""
        return tensor.untyped_storage()._cdata in self.storages

    def put(self, tensor: Tensor) -> Tensor:
        """Call a tensor's memory the card's."""
        return _mark(tensor, self.storages)

    def wait(self, kind: str) -> None:
        """Note that the host waits."""
        frames = (
            f for f in traceback.walk_stack(None) if not f[0].f_code.co_filename.startswith(MINE)
        )
        frame, line = next(frames)
        self.waits.append(Wait(kind, f"{frame.f_code.co_filename}:{line}"))


def _mark(tensor: Tensor, marks: dict[int, StorageWeakRef]) -> Tensor:
    """The weak reference keeps the storage's address from being given to another."""
    storage = tensor.untyped_storage()
    marks[storage._cdata] = StorageWeakRef(storage)
    return tensor


@contextmanager
def at_hand(memory: int = 80 << 30, free: int | None = None, kept: int = 0) -> Iterator[Card]:
    """A pretended card of so many bytes, of which `free` are, and torch has `kept` some of the
    others for its next use; it is gone at the end."""
    card = Card()
    about = SimpleNamespace(total_memory=memory)
    grouped = _foreach_utils._group_tensors_by_device_and_dtype

    def group(tensors: Any, *args: Any) -> Any:
        groups = grouped(tensors, *args).items()
        return {(lists[0][0].device, dtype): (lists, at) for (_, dtype), (lists, at) in groups}

    with (
        mock.patch("torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype", group),
        mock.patch("torch.optim.optimizer._group_tensors_by_device_and_dtype", group),
        mock.patch("torch.cuda.get_device_properties", return_value=about),
        mock.patch(
            "torch.cuda.mem_get_info", return_value=(memory if free is None else free, memory)
        ),
        mock.patch("torch.cuda.memory_reserved", return_value=kept),
        _Operators(card),
        _Functions(card),
    ):
        yield card


@contextmanager
def for_trainer() -> Iterator[None]:
    """transformers' Trainer takes the pretended card; by itself it asks whether torch has CUDA."""

    def device(self: Any) -> torch.device:
        _ = self._setup_devices
        return CARD

    with (
        mock.patch("transformers.TrainingArguments.device", property(device)),
        mock.patch("accelerate.Accelerator.device", CARD),
    ):
        yield


class _Functions(TorchFunctionMode):
    """What Python asks of torch: devices by name, copies between them, values."""

    def __init__(self, card: Card):
        self.card = card
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        card = self.card
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, *args, **kwargs)
        is_ours = bool(args) and isinstance(args[0], Tensor) and card.holds(args[0])
        if func == Tensor.device.__get__ and is_ours:
            return CARD
        if func in (Tensor.is_cuda.__get__, Tensor.is_cpu.__get__) and is_ours:
            return func == Tensor.is_cuda.__get__
        if func in (Tensor.numpy, Tensor.__array__) and is_ours:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
        if func is Tensor.tolist and is_ours and args[0].dim():
            card.wait("tolist")
        if func is Tensor.pin_memory:
            return _mark(args[0].clone(), card.pinned)
        if kwargs.get("device") is None or torch.device(kwargs["device"]).type != CARD.type:
            found = func(*args, **kwargs)
            if func is Tensor.new_tensor and is_ours and kwargs.get("device") is None:
                self._bring(found)
            return found
        found = func(*args, **{**kwargs, "device": "cpu"})
        return self._bring(found) if func in FROM_VALUES else card.put(found)

    def _bring(self, values: Tensor) -> Tensor:
        """Put values on the card that come from the host."""
        if values.numel():
            self.card.wait("copy to the card")
        return self.card.put(values)

    def _move(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype, is_quick, copy = _asked(func, tensor, args, kwargs)
        is_ours = self.card.holds(tensor)
        to_card = is_ours if device is None else device.type == CARD.type
        if not to_card and not is_ours:
            return func(tensor, *args, **kwargs)
        if to_card and is_ours:
            return tensor.to(dtype=dtype, copy=copy)
        found = tensor.to(dtype=dtype, copy=True)
        if not to_card:
            self.card.wait("copy to the CPU")
            self.card.storages.pop(found.untyped_storage()._cdata)
            return found
        if is_quick and tensor.untyped_storage()._cdata in self.card.pinned:
            return self.card.put(found)
        return self._bring(found)


def _asked(
    func: Any, tensor: Tensor, args: Any, kwargs: Any
) -> tuple[torch.device | None, torch.dtype, bool, bool]:
    """Device, dtype, non_blocking and copy of a call of `to`, `cpu` or `cuda`."""
    if func is not Tensor.to:
        device: Any = "cpu" if func is Tensor.cpu else CARD
        return torch.device(device), tensor.dtype, bool(kwargs.get("non_blocking")), False
    device, dtype, is_quick, copy = None, tensor.dtype, False, False
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, bool):
            is_quick = value
        elif value is not None:
            device = value
    device = kwargs.get("device", device)
    dtype = kwargs.get("dtype") or dtype
    is_quick, copy = kwargs.get("non_blocking", is_quick), kwargs.get("copy", copy)
    return None if device is None else torch.device(device), dtype, is_quick, copy


class _Operators(TorchDispatchMode):
    """What reaches the devices: each operator, those of the backward pass too."""

    def __init__(self, card: Card):
        self.card = card
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_ours = any(map(self.card.holds, given))
        if is_ours:
            self.card.operators += 1
            self._check(func, given, args, kwargs)
        found = func(*args, **kwargs)
        if is_ours:
            known = {tensor.untyped_storage()._cdata for tensor in given}
            for leaf in pytree.tree_leaves(found):
                if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                    self.card.put(leaf)
        return found

    def _check(self, func: Any, given: list[Tensor], args: Any, kwargs: Any) -> None:
        operator, card = func.overloadpacket, self.card
        others = [tensor for tensor in given if not card.holds(tensor)]
        if operator is aten.copy_ and others:
            card.wait(f"copy to the {'card' if card.holds(args[0]) else 'CPU'}")
            return
        if operator in READS:
            card.wait("item")
        if operator in SIZED_BY_VALUES and kwargs.get("output_size") is None:
            card.wait(operator.__name__)
        if operator is aten.nonzero_numpy or func is aten.where.default:
            card.wait("nonzero")
        if operator in WITH_INDICES:
            others = self._without_indices(others, *args)
        takes_scalars = torch.Tag.pointwise in func.tags or operator in TAKES_SCALARS
        writes = [*args[:1], kwargs.get("out")] if func._schema.is_mutable else []
        if any(t.dim() or not takes_scalars or any(t is each for each in writes) for t in others):
            found = [f"{tuple(t.shape)} on the {'card' if card.holds(t) else 'CPU'}" for t in given]
            raise MixedDevicesError(f"{operator.__name__}: {', '.join(found)}")

    def _without_indices(
        self, others: list[Tensor], target: Tensor, indices: Any, values: Any = None, *_: Any
    ) -> list[Tensor]:
        """Those of `others` that are no indices of a tensor of the card; what indices cost."""
        indices = [index for index in indices if index is not None]
        fills = len(indices) == 1 and values is not None and values.numel() == 1
        for index in indices if self.card.holds(target) else ():
            if not self.card.holds(index):
                self.card.wait("copy to the card")
            if index.dtype in (torch.bool, torch.uint8) and not fills:
                self.card.wait("nonzero")
            others = [tensor for tensor in others if tensor is not index]
        return others
