"""What a store holds, and how much of the disk each part of home takes."""

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from lightreasoner import untrusted
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.store import INPUTS, Store
from lightreasoner.storage.outputs import DATA

KEY = re.compile("[0-9a-f]{32}")
WORK = "half-done work"
BLOCK = 512
"""Bytes that stat(2) counts blocks in."""


@dataclass(frozen=True)
class Entry:
    """A result of the store, or half-done work, whose `stage` is WORK.

    `used` is when it was last made, taken or written to, in seconds since 1970. `digest` is that of
    the payload and `inputs` has those of what it was made from; of what is damaged neither is
    known.
    """

    stage: str
    key: str
    path: Path
    used: float
    digest: str | None
    inputs: dict[str, str]
    manifest: dict[str, Any]

    @cached_property
    def size(self) -> int:
        """Bytes of its files, whether others share them or not."""
        return sum(state.st_size for state in _states(self.path) if not stat.S_ISDIR(state.st_mode))

    def as_tree(self) -> dict[str, Any]:
        """What `ls --json` says of it."""
        return {
            "stage": self.stage,
            "key": self.key,
            "bytes": self.size,
            "used": self.used,
            "digest": self.digest,
            "seconds": self.manifest.get("seconds"),
        }


def results(home: Path) -> list[Entry]:
    """All results by stage, the one last used first; payloads are not read."""
    found = []
    for path in (home / "store").glob("*/*"):
        stage, key = path.parent.name, path.name
        if not KEY.fullmatch(key) or stage == "locks":
            continue
        known = Store(home).look(stage, key)
        manifest = known.manifest if known else {}
        digest = known.artifact.digest if known else None
        used = max((state.st_mtime for state in islice(_states(path), 1)), default=0.0)
        found.append(Entry(stage, key, path, used, digest, manifest.get("inputs", {}), manifest))
    return sorted(found, key=lambda each: (each.stage, -each.used, each.key))


def work(home: Path) -> list[Entry]:
    """All half-done work: what a stage, a pull or `evaluate --endpoint` goes on from."""
    found = []
    for path in sorted((home / "work").glob("*")):
        if KEY.fullmatch(path.name):
            used = max((state.st_mtime for state in _states(path)), default=0.0)
            found.append(Entry(WORK, path.name, path, used, None, _inputs(path / INPUTS), {}))
    return found


def _inputs(file: Path) -> dict[str, str]:
    """The digests that a folder of work notes; none where it does not, or is damaged."""
    try:
        tree = untrusted.read_json(file, ValueError, untrusted.SETTINGS_BYTES)
        return {str(name): str(digest) for name, digest in tree.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def named(home: Path, prefix: str) -> Entry:
    """The result whose fingerprint begins so. Raises ArtifactError for none, and for several."""
    matching = [each for each in results(home) if each.key.startswith(prefix.lower())]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        shown = untrusted.shown(prefix)
        raise ArtifactError(f"no result {shown} in {home / 'store'}; `lightreasoner store ls`")
    keys = untrusted.listed([f"{each.stage} {each.key}" for each in matching])
    raise ArtifactError(f"{prefix!r} begins {len(matching)} results: {keys}; give more of it")


def disk_use(home: Path) -> dict[str, int]:
    """Bytes of the disk by part of home: `store/<stage>`, else its folder or file.

    Files that parts share by hard link count where they come first, the store before all others;
    so the sum is what is taken, and a part's number what it adds to those above.
    """
    seen: set[tuple[int, int]] = set()
    stages = sorted((home / "store").glob("*"))
    others = sorted(path for path in home.glob("*") if path.name != "store")
    parts = {f"store/{path.name}": path for path in stages} | {path.name: path for path in others}
    return {name: blocks(path, seen) for name, path in parts.items()}


def blocks(path: Path, seen: set[tuple[int, int]]) -> int:
    """Bytes of the disk that a file or folder takes, but for what was `seen` (device, inode)."""
    total = 0
    for state in _states(path):
        if (place := (state.st_dev, state.st_ino)) not in seen:
            seen.add(place)
            total += state.st_blocks * BLOCK
    return total


def freed(paths: Collection[Path]) -> int:
    """Bytes of the disk that are free once all of these are removed.

    What a file elsewhere shares by hard link is not.
    """
    found: dict[tuple[int, int], int] = {}
    total = 0
    for path in paths:
        for state in _states(path):
            place = state.st_dev, state.st_ino
            found[place] = found.get(place, 0) + 1
            if stat.S_ISDIR(state.st_mode) or found[place] == state.st_nlink:
                total += state.st_blocks * BLOCK
    return total


def placed(home: Path) -> list[Path]:
    """The folders that commands put results in without being told: under home, and here."""
    folders = (home / DATA.name, home / "evaluations", DATA)
    return [path for folder in folders for path in folder.glob("[!.]*")]


def _states(path: Path) -> Iterator[os.stat_result]:
    """What stat(2) says of a file or folder, then of all in it, links not followed.

    What goes meanwhile is left out.
    """
    with contextlib.suppress(FileNotFoundError):
        yield path.stat(follow_symlinks=False)
    for root, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                yield Path(root, name).stat(follow_symlinks=False)
