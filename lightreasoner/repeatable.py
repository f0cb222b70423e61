"""What makes training on a GPU come out the same twice: sums in a fixed order."""

import contextlib
from collections.abc import Iterator
from typing import Any

CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""cuBLAS adds in one order only if this is in the environment before CUDA starts."""


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Let torch take algorithms that give the same bits each time, and refuse others.

    The loss adds up label weights and gradients by index, and attention's backward pass adds over
    its blocks; on cuda both are in any order otherwise.
    """
    import torch

    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it would cost a pass over each new tensor
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
