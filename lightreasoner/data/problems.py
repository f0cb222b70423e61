"""Problems: what one is, its ids, and how problems are written down."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lightreasoner.data import user_files
from lightreasoner.errors import ABSENT, ProblemsError
from lightreasoner.untrusted import shown

BOX = r"\boxed"
"""The command that boxes a response's answer."""

CALCULATOR = re.compile(r"<<[^<>]*>>")

Demo = tuple[str, str]
"""A worked example that precedes a question in a prompt: its question and its answer."""


@dataclass(frozen=True)
class Problem:
    """One problem. `answer` is the final answer alone, None where nobody gave one; `solution` may
    be empty."""

    id: str
    question: str
    answer: str | None
    solution: str

    @property
    def gold(self) -> str:
        """The answer, for what needs one: the source was read for that, or `read_answered` used."""
        assert self.answer is not None, self.id
        return self.answer


def solution_text(problem: Problem) -> str:
    r"""A problem's solution as a response: without calculator marks, its final answer in a box.

    GSM8K's `48/2 = <<48/2=24>>24` becomes `48/2 = 24`: the marks call a tool that no model here
    has. A solution without a box gets the sentence that the prompt asks for, as else the tuning
    would teach the expert to leave its answer where grading does not look. Empty if there is none.
    Without a gold answer it stays without the sentence.
    """
    text = CALCULATOR.sub("", problem.solution).strip()
    if text and problem.answer is not None and BOX + "{" not in text:
        text += "\n" + rf"The answer is \boxed{{{problem.answer}}}."
    return text


def trajectory_id(problem_id: str, k: int) -> str:
    """The id of a problem's k-th trajectory: the problem's own for the first, else `<id>#<k>`."""
    return f"{problem_id}#{k}" if k else problem_id


def problem_of(trajectory_id: str) -> str:
    """The id of a trajectory's problem; the inverse of `trajectory_id`."""
    return re.sub(r"#[0-9]+$", "", trajectory_id)


def set_of(problem_id: str) -> str:
    """The benchmark, or the source, that a problem is of: the first part of its id."""
    return problem_id.partition("/")[0]


def is_writable(text: str) -> bool:
    r"""Whether UTF-8 can hold a text; not half a surrogate pair, which JSON may have ("\ud83d")."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_problems(problems: list[Problem], path: Path) -> None:
    """Write problems as JSONL, one object per line, in order."""
    with path.open("w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")


def read_problems(path: Path) -> list[Problem]:
    """Read what `write` wrote. Raises ProblemsError that names the line."""
    names = {field.name for field in fields(Problem)}
    try:
        rows = list(user_files.read_jsonl(path))
    except FileNotFoundError:
        raise ProblemsError(f"{path}: {ABSENT}") from None
    for number, row in rows:
        texts = [value for name, value in row.items() if (name, value) != ("answer", None)]
        are_texts = {type(value) for value in texts} == {str} and all(map(is_writable, texts))
        if row.keys() != names or not are_texts:
            raise ProblemsError(
                f"{path}:{number}: must have the texts {', '.join(sorted(names))}, got "
                f"{shown(row)}; prepare the problems again"
            )
    counts = Counter(row["id"] for _, row in rows)
    for number, row in rows:
        if counts[row["id"]] > 1:
            raise ProblemsError(
                f"{path}:{number}: the id {shown(row['id'], 80)} appears twice; prepare the "
                "problems again"
            )
    return [Problem(**row) for _, row in rows]


def read_answered(path: Path, who: str) -> list[Problem]:
    """As `read_problems`, for what compares with gold answers. Raises ProblemsError without."""
    found = read_problems(path)
    missing = [problem.id for problem in found if problem.answer is None]
    if missing:
        raise ProblemsError(
            f"{path}: {len(missing)} of {len(found)} problems have no gold answer, the first is "
            f"{missing[0]}; {who} compares with it: prepare problems from a prepare.source that "
            "has answers"
        )
    return found
