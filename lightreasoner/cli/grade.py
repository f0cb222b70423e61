"""`lightreasoner grade`: both verdicts on responses that are in a file already."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lightreasoner.cli.options import OverwriteFile
from lightreasoner.errors import ProblemsError
from lightreasoner.grading.types import OUTCOMES, Answer, Grade
from lightreasoner.storage import artifacts, outputs
from lightreasoner.untrusted import printable_line

FIELDS = {"benchmark": str, "record": dict, "response": str}
ADDED = ("gold", "pred", "qwen", "strict")


def grade(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="The responses.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Where the verdicts go.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one per core.")
    ] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Grade the responses in a file by both verdicts.

    They are the Qwen2.5-Math toolkit's verdict and the strict one.

    Each line of IN.jsonl is {"benchmark": ..., "record": ..., "response": ...}, the record being a
    row in the benchmark's own layout or {"question": ..., "answer": ...}. If the answer is a worked
    solution, the gold answer is read out of it; a line says how often. OUT.jsonl has the same lines
    with the toolkit's gold and pred and with both verdicts: correct, wrong, unparsed or timeout.
    Other fields are carried along.

    Example: lightreasoner grade responses.jsonl graded.jsonl
    """
    outputs.check_file(out, ADDED, overwrite)
    rows, answers = read_answers(source)
    from lightreasoner.grading import grade
    from lightreasoner.progress import TerminalBar

    with TerminalBar("grade") as bar:
        grades = grade.grade(
            answers, lambda done, total: bar.progress(done, total, "answers"), workers
        )
    lines = [
        {**row, **{name: getattr(each, name) for name in ADDED}}
        for row, each in zip(rows, grades, strict=True)
    ]
    artifacts.write_text(out, "".join(json.dumps(line) + "\n" for line in lines))
    for line in counts(answers, grades):
        typer.echo(printable_line(line))


def read_answers(path: Path) -> tuple[list[dict[str, Any]], list[Answer]]:
    """The rows of a file, and what is graded of them. Raises ProblemsError that names the line."""
    from lightreasoner.data import reading, sources, user_files

    rows, answers, tally = [], [], reading.Tally()
    for number, row in user_files.read_jsonl(path):
        where = f"{path}:{number}"
        _check(row, where)
        problem = reading.problem_of_row(row["benchmark"], row["record"], where, tally)
        rows.append(row)
        answers.append(Answer(row["response"], problem, row["benchmark"]))
    if not rows:
        raise ProblemsError(f"{path}: no responses in the file; give at least one row")
    sources.LOG.info("%s: gold answers: %s", path, sources.tally_text(tally))
    return rows, answers


def _check(row: dict[str, Any], where: str) -> None:
    for name, kind in FIELDS.items():
        if not isinstance(row.get(name), kind):
            found = type(row[name]).__name__ if name in row else "none"
            wanted = {str: "text", dict: "an object"}[kind]
            raise ProblemsError(
                f"{where}: {name} must be {wanted}, there is {found}; each line needs "
                '{"benchmark": ..., "record": ..., "response": ...}'
            )


def counts(answers: Sequence[Answer], grades: Sequence[Grade]) -> list[str]:
    """One line per benchmark and verdict: how many answers have which outcome."""
    found: dict[str, list[Grade]] = {}
    for answer, grade in zip(answers, grades, strict=True):
        found.setdefault(answer.benchmark, []).append(grade)
    return [
        f"{benchmark} {verdict}: n {len(of_it)}, "
        + ", ".join(f"{outcome} {tally[outcome]}" for outcome in OUTCOMES)
        for benchmark, of_it in found.items()
        for verdict in ("qwen", "strict")
        for tally in [Counter(getattr(grade, verdict) for grade in of_it)]
    ]
