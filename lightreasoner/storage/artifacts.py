"""Artifacts: what passes between stages, and the digest that names its content everywhere.

The digest is DVC's: md5 of a file, `<md5>.dir` of a directory. So Prefect's cache key, the store's
address, dvc.lock, MLflow's dataset digest and the model version's tags all say the same.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lightreasoner import untrusted
from lightreasoner.derivation import Derivation
from lightreasoner.errors import ABSENT, ArtifactError, DiskFullError
from lightreasoner.storage import aside, digests

if TYPE_CHECKING:
    from lightreasoner.config import Compute


@dataclass(frozen=True)
class Artifact:
    """A file or directory and the digest of its content.

    `derivation` says what becomes of a model when it is loaded; its digest is then that of the
    content, a plus sign and the derivation.
    """

    path: Path
    digest: str
    derivation: Derivation | None = None

    def has_changed(self) -> bool:
        """Whether the content at the path is no longer the digest's; a name is no digest."""
        content = self.digest.partition("+")[0]
        return bool(_CONTENT_DIGEST.fullmatch(content)) and given(self.path).digest != content


Inputs = dict[str, Artifact]
"""What a stage reads, by the names that the graph gives its artifacts."""


@dataclass(frozen=True)
class Workspace:
    """Where a stage works: its payload goes into `out`, pieces that a restart finds into `scratch`.

    `compute` says on what, its device and dtype resolved.
    """

    out: Path
    scratch: Path
    compute: "Compute"


MOST_FILES = 100_000
"""In a directory and those under it."""

BOOKKEEPING = frozenset({".cache", ".git"})
"""What programs keep at the top of a folder for themselves: when `hf download --local-dir` fetched
its files, git's versions of them. No stage reads or writes it."""

_PINNED = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*@[0-9a-f]{40}")
_CONTENT_DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


def digest(path: Path, anew: bool = False, without: Collection[str] = ()) -> str:
    """DVC's content digest of a file (md5) or a directory (md5 of its sorted listing, `.dir`).

    Large files that have not changed since they were last read are not read again, but for `anew`
    (digests.py). `without` as for `files_under`. Raises ArtifactError if nothing is there.
    """
    if path.is_dir():
        listing = [
            {"md5": digests.md5(file, anew), "relpath": file.relative_to(path).as_posix()}
            for file in files_under(path, without)
        ]
        listing.sort(key=lambda entry: entry["relpath"])
        return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
    if path.is_file():
        return digests.md5(path, anew)
    raise ArtifactError(f"{path}: {ABSENT}")


def is_pinned(name: str) -> bool:
    """Whether a name is `owner/name@commit` of the hub; a branch or tag can move, a commit not."""
    return bool(_PINNED.fullmatch(name))


def of(path: Path, anew: bool = False) -> Artifact:
    """The artifact at a path, as it is now; `anew` as for `digest`."""
    return Artifact(path, digest(path, anew))


def given(path: Path) -> Artifact:
    """The artifact at a path that a user names, without BOOKKEEPING, so that a model or problem set
    is the same wherever it was fetched. DVC digests no such folder, only what stages write.
    """
    return Artifact(path, digest(path, without=BOOKKEEPING))


def files_under(path: Path, without: Collection[str] = ()) -> list[Path]:
    """All files below a directory, those in linked directories included, but for the entries
    `without` at its top.

    Raises ArtifactError for a directory that cannot be read, what is neither file nor directory
    (a named pipe, a link to nowhere), a link that leads back, and more than MOST_FILES.
    """
    found: list[Path] = []
    left, folders = MOST_FILES, [(path, frozenset[tuple[int, int]]())]
    while folders:
        folder, above = folders.pop()
        try:
            state = folder.stat()
            with os.scandir(folder) as entries:
                members = [
                    (Path(each), each.is_dir(), each.is_file())
                    for each in islice(entries, left)
                    if above or each.name not in without
                ]
        except OSError as error:
            raise ArtifactError(f"{folder}: cannot be read ({error.strerror}); mend it") from error
        left -= len(members)
        if not left:
            raise ArtifactError(f"{path}: holds {MOST_FILES:,} files or more; give one with fewer")
        if (here := (state.st_dev, state.st_ino)) in above:
            raise ArtifactError(f"{folder}: leads back to a folder above it; remove the link")
        for member, is_folder, is_file in members:
            if not is_folder and not is_file:
                raise ArtifactError(f"{member}: is a pipe or leads nowhere; remove it")
            if is_folder:
                folders.append((member, above | {here}))
            else:
                found.append(member)
    return found


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal. Raises as `untrusted.open_file`, ArtifactError."""
    with untrusted.open_file(path, ArtifactError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a directory's files, and the directories themselves, onto the disk."""
    for root, _, names in os.walk(path):
        for name in [*names, "."]:
            sync(Path(root, name))


def sync(path: Path) -> None:
    """Force one file's, or one directory's own, data onto the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def place(artifact: Artifact, out: Path) -> None:
    """Put an artifact's directory at `out`, whole or not at all: hard links, else copies.

    Raises ArtifactError as `files_under`, and DiskFullError.
    """
    files_under(artifact.path)  # else a loop of links is copied without end
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with aside.beside(out) as work:
            shutil.copytree(artifact.path, work / "new", copy_function=_link_or_copy)
            swap(work / "new", out, work / "old")
    except OSError as error:
        raise unwritable(error, out) from error


def swap(new: Path, out: Path, old: Path) -> None:
    """Rename `new` to `out`, what was there to `old`; and back, if that fails."""
    there = os.path.lexists(out)
    if there:
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if there:
            old.rename(out)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises DiskFullError, ArtifactError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.beside(path) as work:
            (work / "new").write_text(text, encoding="utf-8")
            sync(work / "new")
            (work / "new").replace(path)
    except OSError as error:
        raise unwritable(error, path) from error


def disk_full(error: Exception, path: Path) -> Exception:
    """A DiskFullError that names the path if that is what went wrong; else the error itself.

    safetensors has an error of its own, which names the system's in its text alone.
    """
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        return DiskFullError(f"{path}: no space left on the disk; free some and run again")
    return error


def unwritable(error: OSError, path: Path) -> Exception:
    """What the system said of a place that cannot be written, as a line."""
    found = disk_full(error, path)
    if found is not error:
        return found
    return ArtifactError(
        f"{path}: cannot be written ({error.strerror or error}); clear the way or its permissions"
    )


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)  # a link to a link may lead nowhere
    except OSError:
        shutil.copy2(source, target)
