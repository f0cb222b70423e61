"""Folders for what is being written, beside its place: none stays, whoever is killed.

    <parent>/.<name>.unfinished-1k3j5x/     of the process that writes <parent>/<name>

Each is locked (flock) by who writes in it. One that is not locked was left by a process that was
killed; the next who writes to the same name, or asks, removes it.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MARK = ".unfinished-"


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, removed at the end of the block; `path.parent` must be there."""
    clear(path)
    work, handle = _locked(path)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(handle)


def clear(path: Path) -> None:
    """Remove what killed processes left beside `path`, as far as that can be done."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        remove_abandoned(left)


def remove_abandoned(left: Path, dry_run: bool = False) -> bool:
    """Whether nobody writes in a folder that `beside` made; it is removed then."""
    try:
        handle = _lock(left, wait=False)
    except OSError:
        return False
    if not dry_run:
        shutil.rmtree(left, ignore_errors=True)
    os.close(handle)
    return True


def below(folder: Path) -> list[Path]:
    """All that `beside` made below a folder, whether somebody writes there or not."""
    return [path for path in folder.rglob(f".*{MARK}*") if path.is_dir() and not path.is_symlink()]


def _prefix(path: Path) -> str:
    return f".{path.name}{MARK}"


def _locked(path: Path) -> tuple[Path, int]:
    """A new folder and its lock; another one if it was cleared before it was locked."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        with contextlib.suppress(FileNotFoundError):
            handle = _lock(work, wait=True)
            if work.exists():
                return work, handle
            os.close(handle)


def _lock(folder: Path, wait: bool) -> int:
    """Raises BlockingIOError if another process holds it and this one does not wait."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise
    return handle
