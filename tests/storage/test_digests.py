"""Digests of large files: read once while a file stays as it is, again when anything changed."""

import hashlib
import json
import os
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightreasoner.storage import artifacts, digests

CONTENT = bytes(range(256)) * (digests.LARGE // 256)
OTHER = CONTENT[:-1] + b"\0"
LATER = digests.SETTLED + 1_000_000_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read in full."""
    names: list[str] = []
    real = hashlib.file_digest

    def counted(file: object, digest: object) -> object:
        names.append(Path(file.name).name)  # type: ignore[attr-defined]
        return real(file, digest)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digests are kept in a new folder, and nothing is known yet."""
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "_kept", [])
    digests.keep(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file; the clock says that it was written some seconds ago."""
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    clock = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: clock() + LATER)
    return path


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def kept(home: Path) -> list[list[Any]]:
    """A row per file that later processes know."""
    rows: list[list[Any]] = json.loads((home / "digests.json").read_text())["files"]
    return rows


def forget(home: Path) -> None:
    """As in a new process."""
    digests._known.clear()
    digests.keep(home)


def test_an_unchanged_file_is_read_once(file: Path, home: Path, reads: list[str]) -> None:
    for _ in range(3):
        assert digests.md5(file) == md5(CONTENT)
    forget(home)
    assert digests.md5(file) == md5(CONTENT)
    assert reads == ["weights"]


def overwrite(file: Path) -> None:
    """In place, so that size and inode stay."""
    with file.open("r+b") as opened:
        opened.write(OTHER)


def hide(file: Path) -> None:
    """In place, and the time of the change is set back."""
    before = file.stat()
    overwrite(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    """By another file of the same size and time, as `mv` and `cp -p` do."""
    before, other = file.stat(), file.with_name("other")
    other.write_bytes(OTHER)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("process", ["same", "another"])
@pytest.mark.parametrize("change", [overwrite, hide, replace])
def test_a_change_that_keeps_the_size_is_seen(
    change: Callable[[Path], None], process: str, file: Path, home: Path
) -> None:
    assert digests.md5(file) == md5(CONTENT)
    time.sleep(0.02)  # more than a tick of the disk's clock
    change(file)
    if process == "another":
        forget(home)
    assert digests.md5(file) == md5(OTHER)


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    """It might change again within the same tick of the clock."""
    (tmp_path / "new").write_bytes(CONTENT)
    for _ in range(2):
        digests.md5(tmp_path / "new")
    assert reads == ["new", "new"]


def test_small_files_are_not_remembered(file: Path, reads: list[str], home: Path) -> None:
    file.with_name("small").write_bytes(CONTENT[1:])
    for _ in range(2):
        digests.md5(file.with_name("small"))
    assert reads == ["small", "small"]
    assert not (home / "digests.json").exists()


def test_anew_reads_what_is_remembered(file: Path, reads: list[str]) -> None:
    """What a disk loses by itself changes no time."""
    digests.md5(file)
    digests._known[str(file)] = digests._known[str(file)][0], "0" * 32
    assert digests.md5(file) == "0" * 32
    assert digests.md5(file, anew=True) == digests.md5(file) == md5(CONTENT)
    assert reads == ["weights", "weights"]


def test_a_directory_is_known_by_its_files(file: Path, reads: list[str]) -> None:
    folder = file.parent / "model"
    folder.mkdir()
    file.rename(folder / "weights")
    (folder / "config.json").write_text("{}")
    before = artifacts.of(folder)
    assert not before.has_changed()
    assert sorted(reads) == ["config.json", "config.json", "weights"]
    overwrite(folder / "weights")
    assert before.has_changed()


@pytest.mark.parametrize("said", [b"", b"\xff", b"[1]", b'{"a": 1}', b'{"a": ["b", 2]}', b"{}"])
def test_what_is_kept_may_be_damaged(said: bytes, file: Path, home: Path) -> None:
    (home / "digests.json").write_bytes(said)
    forget(home)
    assert digests.md5(file) == md5(CONTENT)
    assert [name for name, *_ in kept(home)] == [str(file)]


def test_a_home_that_is_not_there_costs_the_memory_only(file: Path, tmp_path: Path) -> None:
    digests.keep(tmp_path / "gone")
    assert digests.md5(file) == md5(CONTENT)
    assert not (tmp_path / "gone").exists()


def test_what_is_kept_is_bounded(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LIMIT", 2)
    for name in ("a", "b", "c"):
        path = file.with_name(name)
        path.hardlink_to(file)
        digests.md5(path)
    assert [Path(name).name for name, *_ in kept(home)] == ["b", "c"]
    assert [path.name for path in home.iterdir()] == ["digests.json"]


def test_processes_add_to_each_others(file: Path, home: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(OTHER)
    time.sleep(digests.SETTLED / 1e9 + 0.1)
    script = (
        "import sys; from pathlib import Path; from lightreasoner.storage import digests; "
        "digests.keep(Path(sys.argv[1])); digests.md5(Path(sys.argv[2]))"
    )
    digests.md5(file)
    subprocess.run([sys.executable, "-c", script, home, other], check=True)
    assert {name: digest for name, *_, digest in kept(home)} == {
        str(file): md5(CONTENT),
        str(other): md5(OTHER),
    }


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"a": [Infinity, 1, 1, 1, "x"]}', '{"a": 3}', "9" * 5_000]
)
def test_what_was_kept_may_be_damaged(home: Path, file: Path, text: str) -> None:
    (home / "digests.json").write_text(text)
    digests.keep(home)
    assert digests.md5(file) == hashlib.md5(CONTENT).hexdigest()


def test_a_digit_that_a_disk_loses_is_no_digest(home: Path, file: Path) -> None:
    """Nor does it pass for the file's state."""
    digests.md5(file)
    text = (home / "digests.json").read_text()
    for at, before in enumerate(text):
        if before in string.hexdigits:
            changed = text[:at] + ("1" if before == "0" else "0") + text[at + 1 :]
            (home / "digests.json").write_text(changed)
            forget(home)
            assert digests.md5(file) == md5(CONTENT), changed


def test_what_is_kept_may_be_a_pipe(home: Path, file: Path) -> None:
    os.mkfifo(home / "digests.json")
    digests.keep(home)
    assert digests.md5(file) == hashlib.md5(CONTENT).hexdigest()
    assert (home / "digests.json").is_file()
