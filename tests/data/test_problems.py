"""Problems, written and read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ProblemsError


def test_written_problems_read_back(tmp_path: Path) -> None:
    some = [Problem("a", "q\u2028\n", "1", "s"), Problem("b", "é", "2", "")]
    problems.write_problems(some, tmp_path / "p.jsonl")
    assert problems.read_problems(tmp_path / "p.jsonl") == some


GOOD = {"id": "a/0", "question": "q", "answer": "1", "solution": ""}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD | {"answer": 7}, ":2: must have the texts answer, id, question, solution, got"),
        (GOOD | {"more": "x"}, ":2: must have the texts"),
        ({"id": "a/1"}, ":2: must have the texts"),
        (GOOD | {"question": "\ud83d"}, ":2: must have the texts"),
        (GOOD, ":1: the id 'a/0' appears twice"),
        ("[" * 100_000, ":2: not valid JSON"),
        ("9" * 5_000, ":2: "),
        ("[]", ":2: "),
        ('{"id": "\x00', ":2: not valid JSON"),
    ],
)
def test_a_line_that_is_no_problem(tmp_path: Path, line: Any, said: str) -> None:
    path = tmp_path / "problems.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(json.dumps(GOOD) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(ProblemsError) as caught:
        problems.read_problems(path)
    assert str(caught.value).startswith(f"{path}{said}")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.timeout(20)
def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match="no such file; run the stage"):
        problems.read_problems(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProblemsError, match="a named pipe"):
        problems.read_problems(tmp_path / "pipe")
