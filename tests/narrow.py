"""What is printed on a terminal of 80 columns, against the same in a file."""

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len

WIDTH = 80


def check(show: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what `show` prints on a terminal no table's line is longer, and no word is cut or broken.

    The terminal itself wraps a sentence.
    """
    wide = show()
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")  # no colours
    narrow = show()
    assert "…" not in narrow
    assert set(narrow.split()) == set(wide.split())
    long = [line.rstrip() for line in narrow.splitlines() if cell_len(line.rstrip()) > WIDTH]
    assert [line for line in long if re.search(r"\S {2,}\S", line)] == []
