"""Databases, Prefect's and MLflow's, looked at before anything starts on them.

On one that they cannot use both fail late and in many lines. A look at a sound one of SQLite takes
milliseconds, whatever its size; PostgreSQL is asked whether it lets us in.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lightreasoner.errors import LightReasonerError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

PATIENCE = 60.0
"""Seconds that another program may keep a database locked."""

SMALL = 8 << 20
"""Bytes; of such a database every page is looked at, which takes 8 ms for each million bytes."""

PROBE_SECONDS = 1.0
"""Between two tries; Ctrl-C is heard after each. A server holds a lock for milliseconds."""

ANSWER_SECONDS = 5
"""In which a database server must let us in."""

log = logging.getLogger(__name__)


class DatabaseError(LightReasonerError):
    """A database is damaged, locked for long, or may not be written."""


def check(path: Path, lost: str, whole: bool = False) -> None:
    """Raise DatabaseError if SQLite cannot write to a database that is there.

    Waits for one that is locked. `lost` says what goes with it; `whole` looks at every page of a
    large one, too.
    """
    end, is_waiting = time.monotonic() + PATIENCE, False
    while fault := _fault(path, whole):
        if fault != "is locked":
            raise DatabaseError(
                f"{path}: the database {fault}; put back a copy of it, or move it away and a new "
                f"one is made: stages' results are in the store, but {lost} would be lost"
            )
        if time.monotonic() > end:
            raise DatabaseError(
                f"{path}: still locked by another program after {PATIENCE:.0f} s; end that "
                f"program (`fuser {path}` finds it), then run this again"
            )
        if not is_waiting:
            log.warning("waiting for %s, which another program has locked", path)
            is_waiting = True


def _fault(path: Path, whole: bool) -> str:
    """What is wrong with a database; nothing with one that is not there, or is empty."""
    if not path.exists():
        return ""
    if not path.is_file():
        return "is not a regular file"
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        return "may not be written, or not its folder (give this user the right to)"
    try:
        with contextlib.closing(
            sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)
        ) as opened:
            opened.execute("BEGIN IMMEDIATE")
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
            is_read = whole or path.stat().st_size <= SMALL
            said = opened.execute("PRAGMA quick_check(1)").fetchone()[0] if is_read else "ok"
    except sqlite3.Error as error:
        is_locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        return "is locked" if is_locked else f"cannot be used ({error})"
    return "" if said == "ok" else f"is damaged ({said.splitlines()[-1]})"


def check_server(variable: str, url: str) -> None:
    """Raise DatabaseError if PostgreSQL, at the URL that a variable gives, does not let us in.

    No password is shown. SQLite's URLs, and other databases', which were not tried, pass.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseError(
            f"{variable}: is no URL of a database, such as postgresql+asyncpg://user@host/name; a "
            "password in it is written in percent-encoding"
        ) from None
    if parsed.get_backend_name() != "postgresql":
        return
    try:
        _connect(parsed)
        return
    except (ImportError, NoSuchModuleError) as error:
        fault = f"its driver is not installed ({error}); pip install -e '.[shared]'"
    except (OSError, SQLAlchemyError) as error:
        said = str(getattr(error, "orig", error)).partition("\n")[0]
        fault = f"no way in ({said or type(error).__name__}); start that server, or mend the URL"
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    raise DatabaseError(f"{variable} {shown}: {fault}")


def _connect(url: "URL") -> None:
    """Connect to PostgreSQL and go, by the driver that the URL names."""
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def enter() -> None:
        given = {"timeout": ANSWER_SECONDS}
        async with create_async_engine(url, poolclass=NullPool, connect_args=given).connect():
            pass

    if url.get_driver_name() == "asyncpg":
        asyncio.run(enter())
    else:
        given = {"connect_timeout": ANSWER_SECONDS}
        create_engine(url, poolclass=NullPool, connect_args=given).connect().close()
