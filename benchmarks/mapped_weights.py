"""The console, on models in files that the memory does not hold: `exact_shapes --wide` runs it.

A product reads a matrix in blocks, here and there, and each page that is not in memory would be a
read of its own, tens of MB/s. So before a module's forward and backward pass its weights are asked
for in large pieces. Nothing is computed otherwise.
"""

import ctypes
from typing import Any

from torch import nn
from torch.nn.modules import module

from flows.cli.console import main

WILL_BE_NEEDED = 3  # MADV_WILLNEED
PAGE, PIECE = 4 << 10, 2 << 20  # bytes; of a larger piece Linux would read the beginning
LIBC = ctypes.CDLL(None)


def ask_for(layer: nn.Module, *_: Any) -> None:
    """Have the system read the layer's own weights; of an embedding few rows are looked up."""
    if isinstance(layer, nn.Embedding):
        return
    for weight in layer.parameters(recurse=False):
        start, end = weight.data_ptr() // PAGE * PAGE, weight.data_ptr() + weight.nbytes
        for piece in range(start, end, PIECE):
            size = min(PIECE, end - piece)
            LIBC.madvise(ctypes.c_void_p(piece), ctypes.c_size_t(size), WILL_BE_NEEDED)


if __name__ == "__main__":
    module.register_module_forward_pre_hook(ask_for)
    module.register_module_full_backward_pre_hook(ask_for)
    main()
