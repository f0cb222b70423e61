"""Where results go: a new or empty folder, or in place of one that the store has as well.

So a command replaces an earlier result, wherever it was put, and nothing else without --overwrite.
A file is known for an earlier result by the fields of its JSON.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from lightreasoner import untrusted
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts, places
from lightreasoner.storage.artifacts import Artifact

HOME = Path(".lightreasoner")
DATA = HOME / "data"
KEPT = ("store", "work", "mlflow", "prefect", "runs")
"""Folders under home whose content no result may replace."""
NAMED = 3


def own(home: Path) -> Path:
    """Home by its whole path, made for this user alone if it is not there."""
    with contextlib.suppress(OSError):  # the store says what is wrong
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home.absolute()


def check_new(out: Path, remedy: str = "choose a new directory") -> None:
    """Refuse a file, and a folder that holds any. Raises ArtifactError."""
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise ArtifactError(f"{out}: is a file; choose a new directory")
    files = (path for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    found = [path.relative_to(out).as_posix() for path in islice(files, NAMED + 1)]
    if found:
        listed = ", ".join([*found[:NAMED], *(["..."] if len(found) > NAMED else [])])
        raise ArtifactError(f"{out}: holds other files ({listed}); {remedy}")


def check(out: Path, home: Path, overwrite: bool = False) -> None:
    """Refuse a place whose files the store under `home` does not have. Raises ArtifactError.

    With `overwrite` any folder will do that holds neither the current folder nor home, and is none
    of those that home keeps. Waits while another process puts a result there.
    """
    with _alone(out, home):
        _check(out, home, overwrite)


def put(artifact: Artifact, out: Path, home: Path, overwrite: bool = False) -> None:
    """Place a result at `out`, checked again as time has passed."""
    with _alone(out, home):
        _check(out, home, overwrite)
        artifacts.place(artifact, out)


@contextlib.contextmanager
def _alone(out: Path, home: Path) -> Iterator[None]:
    """One process at a time for a place: in the middle of a replacement nothing is there, and what
    comes then is a result. Before there is a store no result can be put anywhere."""
    if not (home / "store").is_dir():
        yield
        return
    place = os.path.relpath(out.absolute().parent.resolve() / out.name, home.resolve())
    key = hashlib.md5(os.fsencode(place), usedforsecurity=False).hexdigest()
    with places.lock_file(places.folder(home, "store", "locks") / key) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check(out: Path, home: Path, overwrite: bool) -> None:
    if any(kept.resolve().is_relative_to(out.resolve()) for kept in (Path.cwd(), home)):
        raise ArtifactError(f"{out}: holds the current folder, or {home}; choose a new directory")
    if any(out.resolve().is_relative_to((home / name).resolve()) for name in KEPT):
        raise ArtifactError(f"{out}: is kept by {home}; choose a new directory")
    if not out.is_dir() or not (overwrite or _is_stored(out, home)):
        check_new(out, "choose a new directory, or replace all that it holds by --overwrite")


def check_file(out: Path, fields: Collection[str], overwrite: bool = False) -> None:
    """Refuse a file that does not begin as those that the command writes: with a JSON object, in
    one line or alone, that has these fields. Raises ArtifactError."""
    if out.exists() and not out.is_file():
        raise ArtifactError(f"{out}: is a directory or a device; name a file")
    if not overwrite and (out.exists() or out.is_symlink()) and not _has_fields(out, fields):
        raise ArtifactError(
            f"{out}: is there, and no earlier result of this command; name another file, or "
            "replace it by --overwrite"
        )


def _has_fields(file: Path, fields: Collection[str]) -> bool:
    """Whether a file is empty, or its first line, or all of it, is an object with these fields."""
    try:
        with untrusted.open_file(file, ArtifactError) as opened:
            text = opened.read(untrusted.SETTINGS_BYTES)
    except (ArtifactError, OSError):
        return False
    for part in (text, text.partition(b"\n")[0]):
        try:
            found = untrusted.json_value(part)
        except ValueError:
            continue
        return isinstance(found, dict) and found.keys() >= set(fields)
    return not text


def _is_stored(out: Path, home: Path) -> bool:
    """Whether a manifest of the store (store.py) names just this content."""
    try:
        said = f'"digest": "{artifacts.digest(out)}"'.encode()
    except (OSError, ArtifactError):  # what cannot be read is in no result
        return False
    return any(said in _content(file) for file in (home / "store").glob("*/*/manifest.json"))


def _content(manifest: Path) -> bytes:
    """A manifest as it is, which may be damaged; nothing where it cannot be read."""
    try:
        with untrusted.open_file(manifest, ArtifactError) as file:
            return file.read(untrusted.TEXT_BYTES)
    except (OSError, ArtifactError):
        return b""
