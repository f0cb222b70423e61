"""bfloat16 products in float32 on a CPU that has none, so that a stage's bfloat16 path can run.

    python -m benchmarks.bfloat16_products COMMAND ...   # as: lightreasoner COMMAND ...

A GPU multiplies bfloat16 numbers, adds them up in float32 and rounds the sum once. A CPU without
such instructions falls back to a loop: a backward pass through one layer of 1.5B took 17 s on one
core (0.1 GFLOP/s). Here the numbers are widened, which is exact, multiplied in float32 and rounded
once: what the GPU does, up to the order of the sum. Nothing else of the computation changes.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}


class InFloat32(TorchDispatchMode):
    """Computes matrix products of bfloat16 in float32, rounded once."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        return func(*map(_widened, args), **kwargs).bfloat16()


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def main() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from flows.cli.console import main as lightreasoner

    with InFloat32(), sdpa_kernel(SDPBackend.MATH):  # attention too is made of products then
        lightreasoner()


if __name__ == "__main__":
    sys.argv[0] = "lightreasoner"
    main()
