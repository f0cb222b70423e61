"""Problems, written and read."""

from pathlib import Path

from lightreasoner.data import problems
from lightreasoner.data.problems import Problem


def test_written_problems_read_back(tmp_path: Path) -> None:
    some = [Problem("a", "q\u2028\n", "1", "s"), Problem("b", "é", "2", "")]
    problems.write_problems(some, tmp_path / "p.jsonl")
    assert problems.read_problems(tmp_path / "p.jsonl") == some
