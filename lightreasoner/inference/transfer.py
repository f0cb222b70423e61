"""From the host to the model's device, without waiting for what a GPU still has to do."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(
    values: Tensor | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """The host's numbers as a tensor on `device`.

    To a GPU they go from pinned memory: a copy from other memory first waits until all that was
    asked of the GPU is done.
    """
    tensor = values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
