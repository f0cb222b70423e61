"""Old runs in Prefect's own database: what its pages show of runs that ended long ago.

Prefect removes events after a week, and runs never unless its servers are told to
(PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED); and the server of a run without `up` hardly lives long
enough for either. Prefect's own functions do it here, beside a server or without one.
"""

import asyncio
import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

BATCH = 200


def ended(database: Path, before: float, kept: Collection[str]) -> list[str]:
    """Ids of the flow runs that ended `before` (seconds since 1970), but for those `kept`.

    A run that has no end, such as a killed one that nobody watched, stays.
    """
    moment = datetime.fromtimestamp(before, UTC).replace(tzinfo=None).isoformat(" ")
    ids: list[str] = []
    if database.exists():
        with (
            suppress(sqlite3.OperationalError),  # it has no tables yet
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened,
        ):
            rows = opened.execute(
                "SELECT id FROM flow_run WHERE end_time < ? AND state_type IN "
                "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')",
                [moment],
            )
            ids = [str(UUID(row[0])) for row in rows]
    return [each for each in ids if each not in kept]


def remove(ids: Collection[str]) -> None:
    """Remove these runs with their tasks, states, logs and artifacts, and events past their time.

    Where that is cut short, the next call goes on.
    """
    asyncio.run(_remove([UUID(each) for each in ids]))


async def _remove(ids: list[UUID]) -> None:
    from prefect.server import models
    from prefect.server.database import provide_database_interface
    from prefect.server.services import db_vacuum

    db = provide_database_interface()
    for start in range(0, len(ids), BATCH):  # each takes the lock first: it reads, then writes
        async with db.session_context(begin_transaction=True, with_for_update=True) as session:
            await models.flow_runs.delete_flow_runs(session, ids[start : start + BATCH])  # type: ignore[attr-defined]
    await db_vacuum.vacuum_orphaned_logs(db=db)
    await db_vacuum.vacuum_orphaned_artifacts(db=db)
    await db_vacuum.vacuum_stale_artifact_collections(db=db)
    await db_vacuum.vacuum_old_events(db=db)


def shrink(database: Path) -> None:
    """Give SQLite's free pages back to the disk, unless another program is writing."""
    if database.exists():
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database)) as opened:
            opened.execute("VACUUM")
