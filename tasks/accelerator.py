"""Taking turns at the accelerator: one heavy task at a time, however many flows run.

With a server this is Prefect's global concurrency limit `accelerator`, which its interface shows.
A turn is not a device: every holder computes on the same one (`compute.device`), so a higher limit
lets runs share it and gives none a GPU of its own; `compute.workers` spreads one run over several.
A holder renews a lease; what a killed one held is free again LEASE_SECONDS later, at most 20 s
more until the server looks.

A run's own server takes no leases back (Prefect's ephemeral API has no such service), so with one a
lock under home stands for the limit: flock(2), which ends with its holder.
"""

import contextlib
import fcntl
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from lightreasoner.storage import places

LIMIT = "accelerator"
HEAVY = frozenset({"generate", "score", "finetune", "merge", "evaluate_base", "evaluate"})
"""The stages that load a model."""

LEASE_SECONDS = 60.0

log = logging.getLogger(__name__)

_without_limit = threading.Event()


def do_without_limit() -> None:
    """From now on use the lock in place of the limit in this process."""
    _without_limit.set()


@contextlib.contextmanager
def turn(stage: str, home: Path) -> Iterator[None]:
    """Hold the accelerator while a heavy stage runs; waits for it, and logs that it does."""
    if stage not in HEAVY:
        yield
    elif _without_limit.is_set() or PREFECT_API_URL.value() is None:
        with _locked(home / "accelerator.lock", stage):
            yield
    else:
        _announce(stage)
        with concurrency(LIMIT, lease_duration=LEASE_SECONDS, strict=False):
            yield


def ensure_limit(client: SyncPrefectClient) -> tuple[int, int]:
    """How many may hold the accelerator and how many do; creates the limit if there is none.

    A limit that someone has changed stays as it is.
    """
    try:
        found = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=LIMIT, limit=1)
            )
        return 1, 0
    return found.limit, found.active_slots


def _announce(stage: str) -> None:
    with get_client(sync_client=True) as client:
        limit, held = ensure_limit(client)
    if held >= limit:
        log.info("%s: waiting for its turn at the accelerator", stage)


@contextlib.contextmanager
def _locked(path: Path, stage: str) -> Iterator[None]:
    places.folder(path.parent)
    with places.lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: waiting for its turn at the accelerator", stage)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
