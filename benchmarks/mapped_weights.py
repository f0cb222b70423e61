"""The console, on models in files that the memory does not hold: `exact_shapes --wide` runs it.

A product reads a matrix in blocks, here and there, and each page that is not in memory would be a
read of its own, tens of MB/s. So before a module's forward and backward pass its weights are asked
for as a whole. Nothing is computed otherwise.
"""

import ctypes
from typing import Any

from torch import nn
from torch.nn.modules import module

from flows.cli.console import main

WILL_BE_NEEDED = 3  # MADV_WILLNEED
PAGE = 4096
LIBC = ctypes.CDLL(None)


def ask_for(layer: nn.Module, *_: Any) -> None:
    """Have the system read the layer's own weights; of an embedding few rows are looked up."""
    if isinstance(layer, nn.Embedding):
        return
    for weight in layer.parameters(recurse=False):
        start = weight.data_ptr() // PAGE * PAGE
        size = weight.data_ptr() + weight.nbytes - start
        LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), WILL_BE_NEEDED)


if __name__ == "__main__":
    module.register_module_forward_pre_hook(ask_for)
    module.register_module_full_backward_pre_hook(ask_for)
    main()
