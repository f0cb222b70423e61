"""docs/security.md: each row of its tables names tests that are there."""

import ast
import re

import pytest
from checkout import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| who |")
]


def test_every_door_has_a_row() -> None:
    assert len(ROWS) > 25
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:40])
def test_the_tests_of_a_row_are_there(row: list[str]) -> None:
    """By their file and name, and none is skipped or expected to fail."""
    shown = row[-1].split(", ")
    for name in shown:
        found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", name)
        assert found, name
        tree = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
        (test,) = (
            each
            for each in tree.body
            if isinstance(each, ast.FunctionDef) and each.name == found[2]
        )
        marks = " ".join(map(ast.unparse, test.decorator_list))
        assert not re.search(r"\bmark\.(skip|xfail)", marks), name
