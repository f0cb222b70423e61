"""Memory: how much there is, errors about too little of it in one line, the GPU's high-water mark.

Loads no torch, so that it can stand around stages that do without.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import psutil

from lightreasoner import control_groups
from lightreasoner.errors import NoMemoryError

SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says when memory runs out, on cuda and on a CPU."""

EXCERPT = 120


def machine_bytes() -> int:
    """The machine's memory, or what a container may have of it."""
    return int(min(psutil.virtual_memory().total, control_groups.memory()))


def cuda() -> Any:
    """torch.cuda if this process has begun to use it, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


@contextlib.contextmanager
def errors_with_remedy(what: str, device: str, remedy: str) -> Iterator[None]:
    """Raise NoMemoryError with the remedy where the memory of `device` runs out in `what`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and not is_shortage(error):
            raise
        raise NoMemoryError(
            f"{what}: no memory is left on {device} ({said[:EXCERPT]}); {remedy}"
        ) from error
    finally:
        release()


def is_shortage(error: BaseException) -> bool:
    """Whether torch says that memory ran out."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def release() -> None:
    """Give back the GPU's memory that torch keeps for its next use: that may need other shapes."""
    if gpu := cuda():
        gpu.empty_cache()


def reset_gpu_peak() -> None:
    """Start a new high-water mark of the GPU's memory, if this process uses one."""
    if gpu := cuda():
        gpu.reset_peak_memory_stats()


def gpu_peak_bytes() -> int:
    """The most that torch held in the GPU's memory since the last reset; 0 without one."""
    gpu = cuda()
    return gpu.max_memory_allocated() if gpu else 0
