"""Folders and lock files under home, whatever lies in their place: it is cleared away, or named.

What lies directly under home is not removed: it may be someone's, where home was chosen badly.
"""

import contextlib
import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts

log = logging.getLogger(__name__)

NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)
"""What opening says of a link, a directory and a socket."""


def folder(home: Path, *names: str) -> Path:
    """The directory home/name/name..., made where it is missing.

    Raises ArtifactError where it cannot be, DiskFullError.
    """
    path = home
    for depth, name in enumerate(names):
        path /= name
        if os.path.lexists(path) and not path.is_dir():
            if not depth:
                raise ArtifactError(f"{path}: is no folder, but {home} keeps one there; move it")
            log.warning("%s is no folder; removing it", path)
            discard(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise artifacts.unwritable(error, path) from error
    return path


def discard(path: Path) -> None:
    """Remove what lies there, of whatever kind. Raises ArtifactError where that fails."""
    if not os.path.lexists(path):
        return
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{path}: is damaged and cannot be removed ({error.strerror}); remove it by hand"
        ) from error


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to lock by flock(2), made where it is missing; no link is followed.

    Raises ArtifactError.
    """
    try:
        file = _opened(path)
        if file is None:
            log.warning("%s is no file that can be locked; removing it", path)
            discard(path)
            file = _opened(path)
    except OSError as error:
        raise artifacts.unwritable(error, path) from error
    if file is None:
        raise ArtifactError(f"{path}: is no file that can be locked; remove it")
    with file:
        yield file


def _opened(path: Path) -> IO[bytes] | None:
    """The file; None if something else lies there."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "r+b")
    os.close(handle)
    return None
