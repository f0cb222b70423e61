"""A Prefect server for tests that run flows, on a database of its own."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)
from prefect.utilities.asyncutils import run_coro_as_sync


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The server's url, its database in `folder`; it takes about 12 s of work to start.

    As Prefect's own prefect_test_harness has it, but that the server may be used in turns.
    """
    database = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    server = SubprocessASGIServer(free_port())
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        server.start(timeout=180)
    try:
        yield server.api_url
        run_coro_as_sync(_drain())
    finally:
        server.stop()


@contextmanager
def using(url: str) -> Iterator[None]:
    """Flows that run in this block are the server's."""
    with temporary_settings({PREFECT_API_URL: url}):
        yield


async def _drain() -> None:
    """Let go out what waits to be sent."""
    for drained in (APILogWorker.instance().drain(), EventsWorker.drain_all()):
        if inspect.isawaitable(drained):
            await drained
