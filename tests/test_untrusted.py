"""The reader of files from outside: regular files, within limits, faults in one line."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from lightreasoner import untrusted
from lightreasoner.errors import ProblemsError

Limits = pytest.mark.timeout(20)


def test_text_is_read_with_or_without_a_mark(tmp_path: Path) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "text").write_bytes(start + "déjà".encode())
        assert untrusted.read_text(tmp_path / "text", ProblemsError) == "déjà"


@Limits
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a named pipe"),
        (Path.mkdir, "a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8 text"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 101), "at most 100"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "it")
    with pytest.raises(ProblemsError, match=said) as caught:
        untrusted.read_text(tmp_path / "it", ProblemsError, limit=100)
    assert str(caught.value).startswith(str(tmp_path / "it"))
    assert "\n" not in str(caught.value)


@Limits
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("door")
        with pytest.raises(ProblemsError, match="a socket"):
            untrusted.open_file(Path("door"), ProblemsError)


def test_a_file_that_is_not_there_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        untrusted.read_json(tmp_path / "gone", ProblemsError)
    with pytest.raises(ProblemsError, match="null"):
        untrusted.read_json(Path("a\0b"), ProblemsError)


def nested(depth: int) -> Any:
    tree: Any = 1
    for _ in range(depth):
        tree = [tree]
    return tree


@Limits
@pytest.mark.parametrize("depth", [untrusted.DEPTH + 1, 900, 1_500, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(ValueError, match="nested over 100 deep"):
            untrusted.json_value(text)


def test_nesting_within_the_limit_is_read() -> None:
    tree = nested(untrusted.DEPTH)
    assert untrusted.json_value(json.dumps(tree)) == tree


def test_numbers_have_a_limit() -> None:
    assert untrusted.json_value("9" * untrusted.DIGITS) == int("9" * untrusted.DIGITS)
    for digits in (untrusted.DIGITS + 1, 5_000):
        with pytest.raises(ValueError, match="300 are read"):
            untrusted.json_value("9" * digits)


def test_a_name_that_appears_twice() -> None:
    assert untrusted.json_value('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="'a' appears twice"):
        untrusted.json_value('{"a": 1, "a": 2}', unique=True)


@Limits
def test_members_behind_aliases_count() -> None:
    """Nine lists, each of nine times the one before: 10 objects, 9**9 members."""
    tree: Any = 1
    for _ in range(9):
        tree = [tree] * 9
    untrusted.check_tree(tree[0][0][0][0][0][0], nodes=1_000)  # 9 + 81 + 729
    with pytest.raises(ValueError, match="over 10,000 values"):
        untrusted.check_tree(tree, nodes=10_000)
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="nested over 100 deep"):
        untrusted.check_tree(ring, nodes=10_000)


def test_a_value_in_a_message_is_short() -> None:
    for value in ("x" * 100_000, [1] * 10_000, 10**5_000, nested(5_000), [10**5_000]):
        assert len(untrusted.shown(value)) <= 200


def test_a_short_value_is_as_python_writes_it() -> None:
    for value in ("a", 1.5, [1, 2], {"a": None}, True):
        assert untrusted.shown(value) == repr(value)


def test_an_error_of_a_library_is_one_line() -> None:
    assert untrusted.one_line(ValueError("a\n  b\0\x1b[31m")) == "a b??[31m"
    assert untrusted.one_line(ValueError()) == "no detail"
    assert len(untrusted.one_line("x" * 5_000)) == 300
