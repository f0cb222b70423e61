"""Results of the store at a place that machines share, by fingerprint; any file system of fsspec.

    REMOTE/files/<sha256>                        a file of payloads or curves, by its content
    REMOTE/entries/<stage>/<fingerprint>.json    a result's manifest; comes last, so what it names
                                                 is there

Files that are there are not sent again, so that a push that was cut short goes on, and results
share what they have in common. What comes back is a stranger's until its digests are those of the
manifest: it enters the store whole or not at all. A manifest is believed as one of the store is.
"""

import contextlib
import os
import posixpath
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lightreasoner.errors import ArtifactError, ConfigError, DiskFullError, LightReasonerError
from lightreasoner.pipeline.graph import STAGES, Stage
from lightreasoner.pipeline.store import Store, check_manifest, read_manifest, seal_entry
from lightreasoner.storage import artifacts, in_use, places
from lightreasoner.untrusted import listed, one_line, shown

SUFFIXES = {
    ".csv", ".html", ".jinja", ".json", ".jsonl", ".md", ".parquet", ".png", ".safetensors", ".txt",
}  # fmt: skip
"""Of the files that stages write; none of them is run when it is read."""

MANIFEST_BYTES = 16 << 20
CURVES = "metrics.jsonl"
_SHA256, _ENTRY = re.compile(r"[0-9a-f]{64}"), re.compile(r"([0-9a-f]{32})\.json")


class Remote:
    """A shared place, by fsspec's URL or a directory. Raises ConfigError of one it cannot be."""

    def __init__(self, url: str):
        import fsspec

        if re.search("://[^/@]*:[^/]*@", url):  # also in a chain: simplecache::s3://...
            raise ConfigError(["REMOTE: holds a password; leave it to the settings of its client"])
        if re.match("[a-z0-9+]+:(?!//|:)", url):
            raise ConfigError([f"REMOTE {shown(url)}: must read SCHEME://..., or be a directory"])
        self.url = url
        try:
            self.files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                [f"REMOTE {shown(url)}: {one_line(error)}; pip install -e '.[shared]' adds s3://"]
            ) from error
        self.root = root.rstrip("/")

    def push(self, home: Path, stages: Collection[str]) -> Iterator[tuple[str, bool]]:
        """Send what the store has of these stages and the place has not.

        Yields a line for each result, and whether the place has it now. Raises ArtifactError.
        """
        in_use.hold(home)
        for name in stages:
            for entry in sorted((home / "store" / name).glob("[0-9a-f]*")):
                with self._reached(home):
                    said, is_there = self._push(entry, STAGES[name], home)
                yield f"{name} {entry.name}  {said}", is_there

    def pull(self, home: Path, stages: Collection[str]) -> Iterator[tuple[str, bool]]:
        """Fetch what the place has of these stages and the store has not.

        Yields a line for each result, and whether the store has it now. Raises ArtifactError,
        DiskFullError.
        """
        for name in stages:
            with self._reached(home):
                self.files.invalidate_cache()
                found = self.files.find(self._at("entries", name), maxdepth=1)
            keys = [_ENTRY.fullmatch(posixpath.basename(path)) for path in sorted(found)]
            for key in (each[1] for each in keys if each):
                with self._reached(home):
                    said, is_there = self._pull(STAGES[name], key, home)
                yield f"{name} {key}  {said}", is_there

    def _push(self, entry: Path, stage: Stage, home: Path) -> tuple[str, bool]:
        mark = self._at("entries", stage.name, f"{entry.name}.json")
        with contextlib.suppress(ArtifactError, FileNotFoundError):
            known = _files(self._manifest(mark, stage, entry.name))
            if all(self._has(entry / name, sha256) for name, sha256 in known.items()):
                return "is there", True
        if Store(home).stored(stage, entry.name) is None:
            return "is damaged here, and not sent; run its stage again", False
        try:
            wanted = _files(read_manifest(entry, entry.name))
        except ArtifactError as error:
            return f"is not sent: {error}", False
        size = 0
        for name, sha256 in wanted.items():
            file, place = entry / name, self._at("files", sha256)
            if artifacts.file_sha256(file) != sha256:
                return f"is damaged here ({name}), and not sent; run its stage again", False
            if not self._has(file, sha256):
                self._put(file, place)
                size += file.stat().st_size
        self._put(entry / "manifest.json", mark)
        return f"sent, {size:,} bytes", True

    def _has(self, file: Path, sha256: str) -> bool:
        """Whether the place has a file of these bytes as long as ours: a copy may have ended."""
        place = self._at("files", sha256)
        return self.files.exists(place) and self.files.size(place) == file.stat().st_size

    def _put(self, file: Path, place: str) -> None:
        if not self.files.async_impl:  # S3 and its like: for them that would make a mistyped bucket
            self.files.makedirs(posixpath.dirname(place), exist_ok=True)
        self.files.put_file(str(file), place)

    def _pull(self, stage: Stage, key: str, home: Path) -> tuple[str, bool]:
        store = Store(home)
        with store.lock(key):
            if store.stored(stage, key):
                return "is there", True
            try:
                manifest = self._manifest(
                    self._at("entries", stage.name, f"{key}.json"), stage, key
                )
                size = self._fetch(manifest, stage, key, home)
            except ArtifactError as error:
                return f"is not taken: {error}", False
        return f"fetched, {size:,} bytes", True

    def _fetch(self, manifest: dict[str, Any], stage: Stage, key: str, home: Path) -> int:
        """Put a result in the store, all its digests compared; bytes that came for it.

        What has come stays until the result is whole, for a pull that goes on after a kill.
        """
        kept, size = places.folder(home, "work", key, "pulled"), 0
        new, entry = home / "work" / key / "entry", Store(home).entry(stage, key)
        places.discard(new)
        for name, sha256 in _files(manifest).items():
            file, out = kept / sha256, new / name
            if not (file.is_file() and artifacts.file_sha256(file) == sha256):
                size += self._get(self._at("files", sha256), file)
            if artifacts.file_sha256(file) != sha256:
                file.unlink()
                raise ArtifactError(
                    f"{name} is damaged there; remove files/{sha256} there, and push it again from "
                    "where it is whole"
                )
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, out)
            except OSError as error:  # a name too long, or of a file and a folder
                raise artifacts.unwritable(error, out) from error
        if artifacts.digest(new / "payload", anew=True) != manifest["digest"]:
            raise ArtifactError("its payload is not what the manifest says; remove it there")
        (new / "manifest.json").write_text(manifest["text"], encoding="utf-8")
        places.discard(entry)
        places.folder(home, "store", stage.name)
        seal_entry(new, entry)
        shutil.rmtree(home / "work" / key, ignore_errors=True)
        return size

    def _get(self, place: str, file: Path) -> int:
        """Fetch a file; its size."""
        try:
            found = self.files.info(place)
        except FileNotFoundError:
            raise ArtifactError(f"{place} is gone; push it again from where it is") from None
        if found["type"] != "file":
            raise ArtifactError(f"{place} is no file; remove it there")
        if found["size"] > shutil.disk_usage(file.parent).free:
            raise DiskFullError(f"{file.parent}: no space for {found['size']:,} bytes; make room")
        self.files.get_file(place, str(file))
        return int(found["size"])

    def _manifest(self, mark: str, stage: Stage, key: str) -> dict[str, Any]:
        """A manifest of the place, with its text. Raises ArtifactError, FileNotFoundError."""
        if (size := self.files.info(mark)["size"]) > MANIFEST_BYTES:
            raise ArtifactError(f"its manifest has {size:,} bytes; at most {MANIFEST_BYTES:,}")
        try:
            text = self.files.cat_file(mark, start=0, end=size).decode()
            manifest = check_manifest(text, key)
            if manifest["stage"] != stage.name:
                raise ValueError("of another stage")
            _files(manifest)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"its manifest is damaged there ({one_line(error)})") from error
        return {**manifest, "text": text}

    def _at(self, *names: str) -> str:
        return posixpath.join(self.root, *names)

    @contextlib.contextmanager
    def _reached(self, home: Path) -> Iterator[None]:
        """Make one line of what the place's client raises; each has kinds of its own."""
        try:
            yield
        except LightReasonerError:
            raise
        except Exception as error:
            if (full := artifacts.disk_full(error, home)) is not error:
                raise full from error
            said = f"{type(error).__name__}: {one_line(error)}"
            raise ArtifactError(
                f"{self.url}: {said}; what was finished stays: mend it, and say this again"
            ) from error


def _files(manifest: dict[str, Any]) -> dict[str, str]:
    """The sha256 of an entry's files by their names, below the entry. Raises ArtifactError."""
    sums = manifest.get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise ArtifactError("its manifest names no files; an earlier version made it")
    for name, sha256 in {**sums, CURVES: manifest["curves"]}.items():
        path = PurePosixPath(name)
        is_below = not path.is_absolute() and ".." not in path.parts and str(path) == name
        if not is_below or not name.isprintable() or path.suffix not in SUFFIXES:
            raise ArtifactError(f"{listed([name])} is no file of a result; remove it there")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ArtifactError(f"{shown(sha256)} is no sha256; remove it there")
    return {**{f"payload/{name}": sha for name, sha in sums.items()}, CURVES: manifest["curves"]}
