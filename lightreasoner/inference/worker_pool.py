"""Workers: what makes the pieces of a long table, in this process or in several on Ray.

A worker loads its models once and then makes pieces. With `compute.workers` above 1 each worker is
an actor of Ray, on cuda with a GPU of its own; RAY_ADDRESS names a cluster to join, else Ray starts
on this machine and ends with the stage (docs/decisions/009-workers.md). Pieces come back as they
are finished, and the caller stores each at once (shards.py).
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from lightreasoner.errors import ModelError
from lightreasoner.storage.shards import Piece

if TYPE_CHECKING:
    from lightreasoner.config import Compute


class Worker(Protocol):
    """Makes the rows of a range of inputs, best `size` inputs at a time."""

    @property
    def size(self) -> int: ...

    def __call__(self, inputs: range, /) -> pa.Table: ...


class Crew(Protocol):
    """Equal workers; `size` is that of each."""

    @property
    def size(self) -> int: ...

    def pieces(self, ranges: Sequence[range]) -> Iterator[Piece]:
        """The piece of each range, as they are finished."""
        ...


@contextlib.contextmanager
def crew(make: Callable[[], Worker], compute: "Compute") -> Iterator[Crew]:
    """`compute.workers` workers, each by a call of `make` where it works.

    `make` travels to Ray's processes, so it holds paths and plain values, no model. Raises
    ModelError if Ray has too few resources for so many, and what `make` and the workers raise.
    """
    if compute.workers == 1:
        yield _Here(make())
        return
    ray = _ray()
    try:
        yield _OnRay(ray, make, compute)
    finally:
        ray.shutdown()


class _Here:
    """One worker, in this process."""

    def __init__(self, worker: Worker):
        self.worker, self.size = worker, worker.size

    def pieces(self, ranges: Sequence[range]) -> Iterator[Piece]:
        return ((inputs, self.worker(inputs)) for inputs in ranges)


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, make: Callable[[], Worker]):
        self.make = make

    def load(self) -> int:
        """Make the worker; its size."""
        self.worker = self.make()
        return self.worker.size

    def piece(self, inputs: range) -> Piece:
        return inputs, self.worker(inputs)


class _OnRay:
    """Several workers, each an actor; what one raises is raised here."""

    def __init__(self, ray: Any, make: Callable[[], Worker], compute: "Compute"):
        self.ray = ray
        actor = ray.remote(**_share(ray, compute))(_Actor)
        made = ray.put(make)
        self.actors = [actor.remote(made) for _ in range(compute.workers)]
        with self._original_errors():
            self.size = min(ray.get([each.load.remote() for each in self.actors]))

    def pieces(self, ranges: Sequence[range]) -> Iterator[Piece]:
        from ray.util import ActorPool

        with self._original_errors():
            yield from ActorPool(self.actors).map_unordered(
                lambda actor, inputs: actor.piece.remote(inputs), list(ranges)
            )

    @contextlib.contextmanager
    def _original_errors(self) -> Iterator[None]:
        try:
            yield
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayActorError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ModelError(
                f"a worker of compute.workers died ({reason}); "
                "finished pieces are kept, run again, with fewer workers or a smaller "
                "compute.batch_size if memory was short"
            ) from error


def _ray() -> Any:
    """Ray, joined to the cluster at RAY_ADDRESS, or to one that it starts on this machine."""
    is_own = "RAY_ADDRESS" not in os.environ
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_own:
        _lock()
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        "local" if is_own else "auto",
        include_dashboard=False if is_own else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    return ray


def _lock() -> None:
    """Close the ports of a Ray that is yet to be imported; it reads the second name only then.

    They take no call without a token, which stays in memory, and are on loopback, as for a Ray
    that joins no clusters (by default on Windows and macOS).
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _share(ray: Any, compute: "Compute") -> dict[str, float]:
    """What each worker asks of Ray: a GPU, or its part of the cores."""
    kind = "GPU" if compute.device == "cuda" else "CPU"
    there = int(ray.cluster_resources().get(kind, 0))
    if there < compute.workers:
        raise ModelError(
            f"compute.workers {compute.workers}: Ray has {there} {kind}s, and each worker takes "
            "one; lower it"
        )
    return {"num_gpus": 1} if kind == "GPU" else {"num_cpus": there // compute.workers}
