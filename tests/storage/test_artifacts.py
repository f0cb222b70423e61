"""Digests as DVC computes them, and placing that is whole or not at all."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lightreasoner.errors import ArtifactError, DiskFullError
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact


def test_a_files_digest_is_its_md5(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    assert artifacts.digest(tmp_path / "a") == "b1946ac92492d2347c6235b4d2611184"


def test_a_directorys_digest_is_dvcs(tmp_path: Path) -> None:
    """DVC 3.67's listing, written out by hand: sorted by path, `md5` before `relpath`."""
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "b").write_bytes(b"hello\n")
    (tmp_path / "d" / "sub" / "a").write_bytes(b"")
    listing = (
        '[{"md5": "b1946ac92492d2347c6235b4d2611184", "relpath": "b"}, '
        '{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "sub/a"}]'
    )
    expected = hashlib.md5(listing.encode()).hexdigest() + ".dir"
    assert artifacts.digest(tmp_path / "d") == expected


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone: no such file"):
        artifacts.digest(tmp_path / "gone")


def test_placing_replaces_a_directory_whole(tmp_path: Path) -> None:
    for name, text in (("one", "1"), ("out", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(text)
    one = artifacts.of(tmp_path / "one")
    artifacts.place(one, tmp_path / "out")
    assert artifacts.digest(tmp_path / "out") == one.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out"]
    assert (tmp_path / "out" / "one.txt").stat().st_ino == (one.path / "one.txt").stat().st_ino


def test_a_full_disk_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left") as caught, full.open("wb", 0) as file:
        file.write(b"x")
    error = artifacts.disk_full(caught.value, Path("store"))
    assert isinstance(error, DiskFullError)
    assert str(error) == "store: no space left on the disk; free some and run again"


def test_another_os_error_stays_itself() -> None:
    error = PermissionError(13, "no")
    assert artifacts.disk_full(error, Path("x")) is error


def test_what_lies_behind_a_linked_directory_counts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "set").symlink_to(tmp_path / "real")
    before = artifacts.of(tmp_path / "source")
    assert not before.has_changed()
    (tmp_path / "real" / "a").write_text("new")
    assert before.has_changed()


@pytest.mark.parametrize("kept", [".cache/huggingface/download/a.metadata", ".git/index", ".git"])
def test_what_programs_keep_beside_given_files_does_not_count(tmp_path: Path, kept: str) -> None:
    """`hf download --local-dir` writes when it fetched each file; no stage does."""
    (tmp_path / "a").write_text("weights")
    before = artifacts.of(tmp_path)
    assert artifacts.given(tmp_path) == before
    (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / kept).write_text("1760000000.1")
    assert artifacts.given(tmp_path) == before
    assert not before.has_changed()
    assert artifacts.digest(tmp_path) != before.digest
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".git").write_text("not at the top")
    assert before.has_changed()


def test_a_name_never_changes(tmp_path: Path) -> None:
    assert not Artifact(tmp_path / "gone", "microworld").has_changed()


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        (f"Qwen/Qwen2.5-0.5B@{'0a' * 20}", True),
        ("Qwen/Qwen2.5-0.5B@main", False),
        (f"Qwen2.5-0.5B@{'0a' * 20}", False),
        (f"../Qwen2.5-0.5B@{'0a' * 20}", False),
    ],
)
def test_only_a_commit_pins(name: str, pinned: bool) -> None:
    assert artifacts.is_pinned(name) == pinned


def test_a_full_disk_is_known_by_safetensors_error_too() -> None:
    """Its text as it was on a full tmpfs; safetensors replaces files, so not on /dev/full."""
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert isinstance(artifacts.disk_full(SafetensorError(said), Path("store")), DiskFullError)


def test_a_linked_file_is_placed_as_the_file(tmp_path: Path) -> None:
    """As the hub's cache has them: snapshots/c/model -> ../../blobs/1."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("weights")
    (tmp_path / "snapshots" / "c").mkdir(parents=True)
    (tmp_path / "snapshots" / "c" / "model").symlink_to("../../blobs/1")
    artifacts.place(artifacts.of(tmp_path / "snapshots" / "c"), tmp_path / "out")
    assert not (tmp_path / "out" / "model").is_symlink()
    assert (tmp_path / "out" / "model").read_text() == "weights"


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def linked_to_nothing(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")


def looped(folder: Path) -> None:
    """Two links double the paths at each of the forty levels that the system follows."""
    for name in "ab":
        (folder / name).symlink_to(".", target_is_directory=True)


def crossed(folder: Path) -> None:
    for name, other in ("xy", "yx"):
        (folder / name).mkdir()
        for link in "ab":
            (folder / name / link).symlink_to(f"../{other}", target_is_directory=True)


def doubled(folder: Path) -> None:
    """No loop, but 2^30 paths."""
    for level in range(30):
        (folder / f"{level}").mkdir()
        for link in "ab":
            (folder / f"{level}" / link).symlink_to(f"../{level + 1}", target_is_directory=True)
    (folder / "30").mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (fifo, "pipe: is a pipe or leads nowhere; remove it"),
        (linked_to_nothing, "gone: is a pipe or leads nowhere"),
        (looped, "leads back to a folder above it; remove the link"),
        (crossed, "leads back to a folder above it"),
        (doubled, "holds 1,000 files or more; give one with fewer"),
    ],
)
def test_a_walk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], said: str
) -> None:
    """Neither waits for ever nor fills the memory: the digest, a copy, what fits the store."""
    monkeypatch.setattr(artifacts, "MOST_FILES", 1_000)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("x")
    change(folder)
    for walk in (
        lambda: artifacts.digest(folder),
        lambda: artifacts.place(Artifact(folder, ""), tmp_path / "out"),
    ):
        with pytest.raises(ArtifactError, match=said):
            walk()
    assert not (tmp_path / "out").exists()


def test_files_of_linked_folders_count(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "file").write_text("x")
    for name in "ab":
        (tmp_path / "folder" / name).symlink_to(tmp_path / "other", target_is_directory=True)
    found = artifacts.files_under(tmp_path / "folder")
    assert sorted(found) == [tmp_path / "folder" / name / "deep" / "file" for name in "ab"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path in (tmp_path / "file" / "new", tmp_path / "folder"):
        with pytest.raises(ArtifactError, match=r"cannot be written \(.*\); clear the way"):
            artifacts.write_text(path, "text")
