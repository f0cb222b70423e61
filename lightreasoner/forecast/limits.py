"""What certainly cannot run here is refused before anything expensive: loads no torch on a CPU.

Only lower bounds count: the weights that a stage holds at once, and what trains LoRA's parameters;
the files of the merged model and of models that are yet to be fetched. A stage whose result is in
the store needs nothing.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightreasoner.config import Compute, Params
from lightreasoner.errors import DiskFullError, LightReasonerError, NoMemoryError
from lightreasoner.forecast import local, rates
from lightreasoner.forecast.local import Start
from lightreasoner.forecast.shapes import ADAPTER_BYTES, ITEM_BYTES, Shape
from lightreasoner.pipeline.graph import resolved
from lightreasoner.pipeline.store import Store

STAGES = ("generate", "score", "finetune", "merge", "evaluate_base", "evaluate")
"""Those that run a model."""


def least(params: Params, compute: Compute, expert: Shape, amateur: Shape) -> dict[str, float]:
    """Bytes of memory that a stage certainly holds at once.

    merge keeps the expert in its files' dtype and the result in `compute.dtype`, on the CPU where a
    GPU is too small for them. Of a text's stages vLLM may share the weights among GPUs; named
    servers hold them elsewhere. On a CPU each worker and each process of finetune has weights of
    its own; on GPUs, a GPU.
    """
    workers, ranks = (
        (compute.workers, params.finetune.processes) if compute.device == "cpu" else (1, 1)
    )
    weights = expert.weight_bytes(compute.dtype)
    written: float = workers * weights
    if compute.engine == "vllm":
        written = 0.0 if compute.endpoints else weights / compute.gpus_per_model
    return {
        "generate": written,
        "score": workers * (weights + amateur.weight_bytes(compute.dtype)),
        "finetune": ranks * (weights + ADAPTER_BYTES * expert.adapter(params.finetune)),
        "merge": max(weights, expert.widening_bytes),
        "evaluate_base": written,
        "evaluate": written,
    }


@dataclass(frozen=True)
class Disk:
    """A place to which files go: bytes at the least and as expected, and what is free there."""

    place: Path
    least: float
    expected: float
    free: int


def check(params: Params, home: Path) -> None:
    """Raise NoMemoryError or DiskFullError if a stage that is to do cannot be done here.

    Raises ModelError and ProblemsError for what the parameters name wrongly.
    """
    start, compute = local.start(params), resolved(params.compute)
    expert, amateur = (start.shapes[role] for role in local.MODELS)
    if expert is None or amateur is None:
        return
    needs, room = in_each_dtype(params, compute, expert, amateur), memory(compute.device)
    disks = places(start, compute, home)
    if refusal(needs, room, compute, disks, ()):
        done = local.stored(params, start.inputs, Store(home))
        if error := refusal(needs, room, compute, disks, done):
            raise error


def in_each_dtype(
    params: Params, compute: Compute, expert: Shape, amateur: Shape
) -> dict[str, dict[str, float]]:
    """`least`, were `compute.dtype` this one."""
    return {
        dtype: least(params, compute.model_copy(update={"dtype": dtype}), expert, amateur)
        for dtype in ITEM_BYTES
    }


def refusal(
    needs: Mapping[str, Mapping[str, float]],
    room: Mapping[str, float],
    compute: Compute,
    disks: Sequence[Disk],
    done: Collection[str],
) -> LightReasonerError | None:
    """The error of what cannot be done; `needs` is memory by dtype and stage, `done` is stored."""
    return no_memory(needs, room, compute, done) or no_disk(
        disks[1:] if "merge" in done else disks  # the first is home
    )


def no_memory(
    needs: Mapping[str, Mapping[str, float]],
    room: Mapping[str, float],
    compute: Compute,
    done: Collection[str],
) -> NoMemoryError | None:
    """The error of the stage to do that lacks most; `room` is the memory by stage."""
    over = _over(needs[compute.dtype], room, done)
    if not over:
        return None
    stage = max(over, key=over.__getitem__)
    remedy = "" if _over(needs["bfloat16"], room, done) else "set compute.dtype=bfloat16, "
    return NoMemoryError(
        f"{stage}: needs at least {gib(over[stage])} of memory for weights alone, "
        f"{gib(room[stage])} are there ({compute.device}); {remedy}use a machine with more, or a "
        "smaller model"
    )


def _over(
    needs: Mapping[str, float], room: Mapping[str, float], done: Collection[str]
) -> dict[str, float]:
    return {
        stage: needs[stage] for stage in needs if stage not in done and needs[stage] > room[stage]
    }


def no_disk(disks: Collection[Disk]) -> DiskFullError | None:
    """The error of a place that is too small for the files that certainly go there."""
    for disk in disks:
        if disk.least > disk.free:
            return DiskFullError(
                f"{disk.place}: {gib(disk.least)} at least are to be written, {gib(disk.free)} are "
                "free; free some, or move it (LIGHTREASONER_HOME, HF_HOME)"
            )
    return None


def memory(device: str) -> dict[str, float]:
    """Bytes of memory by stage: the device's; for merge the CPU's, where that has more."""
    room = rates.memory(device)
    return {**dict.fromkeys(STAGES, room), "merge": max(room, rates.memory("cpu"))}


def places(start: Start, compute: Compute, home: Path, tables: float = 0) -> list[Disk]:
    """Home, where the merged model goes, into the store and again into MLflow's files, beside
    `tables` bytes; and the hub's folder, for models in bfloat16 that are not here."""
    expert = start.shapes["expert"]
    merged = expert.weight_bytes(compute.dtype) if expert else 0
    fetched = sum(
        max(0, shape.weight_bytes("bfloat16") - _fetched(start.inputs[role].digest))
        for role, shape in start.shapes.items()
        if shape and start.directories[role] is None and not start.inputs[role].derivation
    )
    found = [Disk(home, merged, 2 * merged + tables, free_bytes(home))]
    if fetched:
        cache = cache_folder()
        found.append(Disk(cache, fetched, fetched, free_bytes(cache)))
    return found


def _fetched(name: str) -> int:
    """Bytes of a model of the hub that were fetched before, if not all."""
    repository = name.partition("@")[0].replace("/", "--")
    blobs = (cache_folder() / f"models--{repository}" / "blobs").glob("*")
    return sum(blob.stat().st_size for blob in blobs)


def gib(size: float) -> str:
    """`28.4 GiB`."""
    return f"{size / 2**30:,.1f} GiB"


def cache_folder() -> Path:
    """Where the hub's client keeps what it fetches."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_bytes(place: Path) -> int:
    """Of the disk on which a place is or will be."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
