"""Files and texts from outside, read within limits: they may be a stranger's, or damaged.

A file is opened only if it is a regular one, since reading a pipe can wait for ever, and is read
only up to a size. JSON nests at most DEPTH deep, and a whole number has at most DIGITS digits.
What breaks a limit is refused in one line, with the error that the caller names.
"""

import contextlib
import json
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterable
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

Refusal = Callable[[str], Exception]
"""Makes an error of a message: a class of errors.py, or what wraps the message for one."""

DEPTH = 100
"""Levels of lists and objects in each other; deeper ones exhaust the interpreter's stack."""

DIGITS = 300
"""Of a whole number; one of 309 is no float, and one of 4,301 cannot be printed."""

TEXT_BYTES = 1 << 30
"""Of a text file: a whole data set in one fits."""

SETTINGS_BYTES = 1 << 20
"""Of a file that a person wrote, such as params.yaml."""

KINDS = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class SuppressErrors(contextlib.suppress):
    """Suppress whatever a library raises for a text that it cannot read. MemoryError goes on: it
    says nothing of the text."""

    def __init__(self) -> None:
        super().__init__(Exception)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool:
        is_want = kind is not None and issubclass(kind, MemoryError)
        return not is_want and super().__exit__(kind, *rest)


def exists(path: Path) -> bool:
    """Whether something is there; nothing is where no file can be, as of a name too long."""
    try:
        return path.exists()
    except OSError:
        return False


def is_directory(path: Path) -> bool:
    """Whether a path leads to a directory; as `exists` for names that no file can have."""
    return exists(path) and path.is_dir()


def open_file(path: Path, refusal: Refusal, limit: int | None = None) -> BufferedReader:
    """A regular file of at most `limit` bytes, open for reading.

    Raises FileNotFoundError, and `refusal` of all else that is not such a file or cannot be opened.
    """
    try:
        _refuse_other_kinds(path, path.stat().st_mode, refusal)
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise refusal(f"{path}: cannot be read ({why}); give a file that can") from error
    found = os.fstat(file.fileno())
    try:
        _refuse_other_kinds(path, found.st_mode, refusal)
        if limit is not None and found.st_size > limit:
            raise refusal(f"{path}: has {found.st_size:,} bytes; at most {limit:,} are read")
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_other_kinds(path: Path, mode: int, refusal: Refusal) -> None:
    if not stat.S_ISREG(mode):
        kind = next((kind for is_it, kind in KINDS.items() if is_it(mode)), "no file")
        raise refusal(f"{path}: is {kind}, not a regular file; give a file")


def read_text(path: Path, refusal: Refusal, limit: int = TEXT_BYTES) -> str:
    """A text in UTF-8, without its byte order mark. Raises as `open_file`, and `refusal`."""
    with open_file(path, refusal, limit) as file:
        content = file.read(limit + 1)  # it may have grown since
    if len(content) > limit:
        raise refusal(f"{path}: grows while it is read; at most {limit:,} bytes are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error


def read_json(path: Path, refusal: Refusal, limit: int = TEXT_BYTES) -> Any:
    """What a JSON file says. Raises as `open_file`, and `refusal` of what `json_value` refuses."""
    text = read_text(path, refusal, limit)
    try:
        return json_value(text)
    except ValueError as error:
        raise refusal(f"{path}: not valid JSON ({error}); save or fetch it again") from error


def json_value(text: str | bytes, *, unique: bool = False) -> Any:
    """What a JSON text says; `unique` refuses a name that appears twice in an object.

    Raises ValueError, one line.
    """
    try:
        value = json.loads(
            text, parse_int=_whole_number, object_pairs_hook=_once_each if unique else None
        )
    except RecursionError:
        raise ValueError(f"nested over {DEPTH} deep") from None
    check_tree(value)
    return value


def check_tree(value: Any, nodes: int | None = None) -> None:
    """Refuse a tree that is over DEPTH deep, or whose lists and mappings have over `nodes` members.

    A member that appears in several places, by YAML's aliases, counts in each. Raises ValueError.
    """
    level, left = [value], nodes
    for _ in range(DEPTH):
        members: Iterable[Any] = (member for each in level for member in _members(each))
        if left is not None:
            members = list(islice(members, left + 1))
            left -= len(members)
            if left < 0:
                raise ValueError(f"over {nodes:,} values, those behind aliases counted")
        level = [member for member in members if isinstance(member, (list, dict))]
        if not level:
            return
    raise ValueError(f"nested over {DEPTH} deep")


def _members(tree: Any) -> Iterable[Any]:
    if isinstance(tree, dict):
        return tree.values()
    return tree if isinstance(tree, list) else ()


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits; {DIGITS} are read")
    return int(digits)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} appears twice")
        found[name] = value
    return found


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names in a message, only the first, each on one line and clipped."""
    first = list(islice(names, most + 1))
    brief = [name if name.isprintable() and len(name) < 60 else shown(name, 60) for name in first]
    return ", ".join([*brief[:most], *(["..."] if len(first) > most else [])])


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxtuple = 20
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 80


def one_line(error: object, width: int = 300) -> str:
    """What an error of a library says, on one line, clipped, what cannot be printed as `?`."""
    said = " ".join(str(error).split())[:width]
    return "".join(char if char.isprintable() else "?" for char in said) or "no detail"


def shown(value: Any, width: int = 200) -> str:
    """A value as Python writes it, on one line, clipped: safe for an error message."""
    try:
        text = _BRIEF.repr(value)
    except ValueError:  # Python prints no number of over 4,300 digits
        text = f"a number of over {DIGITS} digits"
    return text if len(text) <= width else f"{text[: width - 3]}..."


LINE = 2000  # characters of a message; of a longer one the beginning and the end are shown

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Text that is safe to show: what would steer a terminal is escaped (`\\x1b`)."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_line(text: str) -> str:
    """A message in one printable line of at most about LINE characters; ` / ` is a line's end."""
    line = printable(re.sub(r"\s*[\r\n]\s*", " / ", text.strip()))
    if len(line) <= LINE:
        return line
    head, tail = line[: LINE * 3 // 4], line[-LINE // 4 :]
    return f"{head} [{len(line) - LINE:,} characters] {tail}"
