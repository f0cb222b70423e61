"""How fast this device is: measured in a second, or given in a file of the same fields.

<home>/rates.json    device and dtype: what was measured, and when
"""

import contextlib
import datetime
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lightreasoner import untrusted
from lightreasoner.config import Compute
from lightreasoner.errors import ConfigError
from lightreasoner.forecast.work import Work
from lightreasoner.memory import errors_with_remedy, machine_bytes
from lightreasoner.storage import aside
from lightreasoner.untrusted import shown

MATRIX = {"cpu": 1024, "cuda": 8192}
READ_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
LAYERS, STEPS, REPEATS = 8, 16, 5


@dataclass(frozen=True)
class Rate:
    """A device's rates at a dtype, and its memory.

    `flop` per second of large matrix products, `bytes` per second read; `layer_seconds` are what
    the host takes to call one layer once: the least that a small model's pass takes.
    """

    device: str
    dtype: str
    flop: float
    bytes: float
    layer_seconds: float
    memory: float
    date: str

    def seconds(self, work: Work, device: str) -> tuple[float, str]:
        """Expected seconds, and what bounds them: compute, memory or host.

        A GPU computes while the host goes ahead, so that the slower of both counts; a CPU is both.
        """
        parts = {
            "compute": work.flop / self.flop,
            "memory": work.bytes / self.bytes,
            "host": work.layer_calls * self.layer_seconds,
        }
        bound = max(parts, key=parts.__getitem__)
        on_device = max(parts["compute"], parts["memory"])
        if device == "cuda":
            return max(on_device, parts["host"]), bound
        return on_device + parts["host"], bound


def kept(home: Path, compute: Compute, anew: bool = False) -> Rate:
    """The rate that was measured here before, else (or `anew`) measured now and kept.

    Raises NoMemoryError if others leave no room for that.
    """
    path, name = home / "rates.json", device_name(compute)
    known = _load(path)
    key = f"{name}, {compute.dtype}"
    if key not in known or anew:
        with errors_with_remedy("plan", compute.device, "end what else uses it, or give --rate"):
            known[key] = measure(compute, name)
        with contextlib.suppress(OSError), aside.beside(path) as work:
            (work / "new").write_text(
                json.dumps({k: asdict(r) for k, r in known.items()}, indent=1)
            )
            (work / "new").replace(path)
    return known[key]


def read(path: Path) -> Rate:
    """The rate that a file gives. Raises ConfigError."""
    try:
        tree = untrusted.read_json(path, lambda said: ConfigError([said]))
    except FileNotFoundError:
        raise ConfigError(
            [f"--rate {path}: no such file; `lightreasoner plan --json` shows one"]
        ) from None
    found = _rate(tree)
    if found is None:
        names = ", ".join(each.name for each in fields(Rate))
        raise ConfigError(
            [f"--rate {path}: must be an object of {names}, numbers over 0, got {shown(tree, 80)}"]
        )
    return found


def _rate(tree: Any) -> Rate | None:
    if not isinstance(tree, dict) or tree.keys() != {each.name for each in fields(Rate)}:
        return None
    for name, value in tree.items():
        is_text = name in ("device", "dtype", "date")
        is_number = type(value) in (int, float) and 0 < value < 1e30
        if not (isinstance(value, str) and value.isprintable() if is_text else is_number):
            return None
    return Rate(**tree)


def _load(path: Path) -> dict[str, Rate]:
    """What was kept; nothing where it cannot be read."""
    try:
        tree = untrusted.read_json(path, ValueError)
        found = {str(key): _rate(value) for key, value in tree.items()}
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: rate for key, rate in found.items() if rate is not None}


def device_name(compute: Compute) -> str:
    """The GPU's name, or the processor's with the number of threads. Raises ConfigError."""
    import torch

    if compute.device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                ["compute.device cuda: torch finds no GPU here; set cpu, or plan with --rate FILE"]
            )
        return torch.cuda.get_device_name()
    n = torch.get_num_threads()
    return f"{_processor()}, {n} thread{'s' * (n != 1)}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory(device: str) -> float:
    """All bytes of the GPU's memory (without one, no limit is known), or of the machine's with its
    swap."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return math.inf
        return torch.cuda.get_device_properties(0).total_memory
    import psutil

    return machine_bytes() + int(psutil.swap_memory().total)


def measure(compute: Compute, name: str) -> Rate:
    """Matrix products, a sum over memory, and steps of a model so small that the host bounds it."""
    import torch

    from lightreasoner.inference.decode import decode

    kind: Any = {"device": compute.device, "dtype": getattr(torch, compute.dtype)}
    side = MATRIX[compute.device]
    with torch.random.fork_rng(devices=[]):
        one, other = torch.randn(2, side, side).to(**kind)
        model = _small_model().to(**kind).eval()
    product = _best(lambda: torch.mm(one, other), compute.device)
    many = torch.zeros(READ_BYTES[compute.device] // one.element_size(), **kind)
    read = _best(many.sum, compute.device)
    stepping = _best(lambda: decode(model, [[1]], set(), STEPS, batch_size=1), compute.device)
    return Rate(
        name,
        compute.dtype,
        2 * side**3 / product,
        many.numel() * many.element_size() / read,
        stepping / STEPS / LAYERS,
        memory(compute.device),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _small_model() -> Any:
    """A random model of LAYERS layers, so small that the host bounds its steps."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, num_hidden_layers=LAYERS))


def _best(action: Callable[[], object], device: str) -> float:
    """The least seconds that an action took."""
    import torch

    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)
