"""Folders and locks under home: what lies in their place is cleared away, or named."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import places


def a_file(path: Path) -> None:
    path.write_text("in the way")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_a_file(path: Path) -> None:
    other = path.parent / "precious"
    other.write_text("kept")
    path.symlink_to(other)


def a_folder(path: Path) -> None:
    (path / "full").mkdir(parents=True)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


KINDS = [a_file, a_pipe, a_link_to_nothing, a_link_to_itself, a_link_to_a_file, a_socket]


@pytest.mark.parametrize("put", KINDS)
def test_a_folder_is_made_in_place_of_what_is_none(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    (tmp_path / "store").mkdir()
    put(tmp_path / "store" / "prepare")
    made = places.folder(tmp_path, "store", "prepare", "key")
    assert made.is_dir()
    for kept in tmp_path.glob("store/precious"):
        assert kept.read_text() == "kept"


@pytest.mark.parametrize("put", KINDS)
def test_what_lies_directly_under_home_may_be_someones(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    put(tmp_path / "store")
    with pytest.raises(
        ArtifactError, match=r"store: is no folder, but .* keeps one there; move it"
    ):
        places.folder(tmp_path, "store", "prepare")
    assert os.path.lexists(tmp_path / "store")


@pytest.mark.parametrize("put", [*KINDS, a_folder])
def test_a_lock_is_a_file_of_its_own(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """Opening a pipe would wait for ever; a link would have another file emptied."""
    put(tmp_path / "lock")
    with places.lock_file(tmp_path / "lock"):
        assert (tmp_path / "lock").is_file()
        assert not (tmp_path / "lock").is_symlink()
    for kept in tmp_path.glob("precious"):
        assert kept.read_text() == "kept"


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    a_file(tmp_path / "home")
    for make in (
        lambda: places.folder(tmp_path / "home", "store"),
        lambda: places.lock_file(tmp_path / "home" / "lock").__enter__(),
    ):
        with pytest.raises(ArtifactError, match="cannot be written"):
            make()
