"""The md5 of large files, read again only when they have changed.

A file counts as unchanged while it has the size, inode and times (of content and of inode, ns) that
it had when it was read. DVC goes by the same, but for the inode's time (ctime), which no program
can set back. A file that changed within SETTLED before it was read is not remembered: it might
change again within one tick of the disk's clock. What a disk loses by itself changes no time; so
who must be sure reads again.

    <home>/digests.json    files: [path, size, inode, content's time, inode's time, md5], the newest
                           LIMIT; sealed, for another digit would pass for a file's digest
"""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from lightreasoner import untrusted
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import aside, sealed

LARGE = 1 << 20
"""Bytes; a smaller file is read as fast as it is looked up."""

SETTLED = 2_000_000_000
"""Nanoseconds: what file systems with a coarse clock (FAT) count time in."""

LIMIT = 500

State = list[int]
Known = dict[str, tuple[State, str]]

_known: Known = {}
_kept: list[Path] = []  # the file that outlives the process, if there is one


def keep(home: Path) -> None:
    """Take the digests that earlier processes kept under home, and keep new ones there."""
    _kept[:] = [home / "digests.json"]
    aside.clear(_kept[0])
    _known.update(_load(_kept[0]))


def md5(path: Path, anew: bool = False) -> str:
    """md5 of a file's bytes, in hexadecimal; `anew` reads them whatever is remembered.

    Raises ArtifactError for what is no file that can be read.
    """
    name = os.path.abspath(path)  # noqa: PTH100, a link's own place, not what it leads to
    known = _known.get(name)
    if known and not anew and known[0] == _state(path.stat()):
        return known[1]
    with untrusted.open_file(path, ArtifactError) as file:
        now, state = time.time_ns(), _state(os.fstat(file.fileno()))
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if state[0] >= LARGE and now - max(state[2:]) > SETTLED and known != (state, found):
        _known.pop(name, None)  # the newest come last
        _known[name] = state, found
        _save()
    return found


def _state(found: os.stat_result) -> State:
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _load(file: Path) -> Known:
    """What the file says; nothing if it is not there or says it in another way."""
    try:
        files = sealed.opened(untrusted.read_text(file, ValueError))["files"]
        return {name: (state, digest) for name, *state, digest in files}
    except (OSError, LookupError, TypeError, ValueError):
        return {}


def _save() -> None:
    """Add what is known to what other processes kept; what is lost in a race is read again."""
    for file in _kept:
        new = dict(_known)
        known = {name: each for name, each in _load(file).items() if name not in new} | new
        files = [[name, *state, digest] for name, (state, digest) in [*known.items()][-LIMIT:]]
        # Where nothing can be written, no run fails for it.
        with contextlib.suppress(OSError), aside.beside(file) as work:
            (work / "new").write_text(sealed.closed({"files": files}), encoding="utf-8")
            (work / "new").replace(file)
