"""Rows of a source as problems: in which columns question and answer are, and what is refused.

A row has `question`, `answer` and maybe `solution`, which may have other names; or `messages`, of
which the user's turn is the question and the assistant's the answer; or it is in the own layout of
the benchmark that its set is named after (benchmarks.py).

A gold answer is read out of a worked solution (golds.py). Only evaluation, grading and the
baselines need one.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightreasoner.data import golds
from lightreasoner.data.benchmarks import BENCHMARKS, Benchmark
from lightreasoner.data.problems import Problem, is_writable
from lightreasoner.data.user_files import Row
from lightreasoner.errors import ProblemsError
from lightreasoner.qwen_math.answers import gold
from lightreasoner.untrusted import listed, shown

LONGEST = 200_000
"""Characters of a question, an answer or a solution."""

PLAIN = ("question", "answer", "solution")
LISTS = ("choices", "final_answer")
"""Fields of benchmarks that hold lists."""

EVALUATION = "evaluation compares with it: give answers, or another evaluate.source"
TUNING = "finetune.evaluate_every compares with it: give answers, or set it to 0"
BASELINES = "the methods sft and gold compare with it: give answers, or leave both out (--methods)"

Tally = Counter[str]
"""How gold answers were read (golds.py), counted; `none` is a problem without one."""

Rows = Sequence[tuple[str, Row]]
"""Rows, each with its place (file and line), for errors."""


@dataclass(frozen=True)
class Reading:
    """How a source's rows are read.

    `section` of the parameters names the source, if one does; `columns` are those of the fields
    `question`, `answer`, `solution` or `messages` (None: not to be read); `needs` is what needs
    answers, empty if nothing does.
    """

    section: str = "evaluate"
    columns: Mapping[Any, str | None] = field(default_factory=dict)
    needs: str = EVALUATION


EVALUATED = Reading()
GRADED = Reading("", needs="grading compares with it")


def problem_of_row(
    benchmark: str, row: dict[str, Any], where: str, tally: Tally | None = None
) -> Problem:
    """Read one record of a benchmark: in its own layout, or as `{question, answer}`.

    `where` names the record in errors and becomes the problem's id. The name may be any; only those
    of benchmarks.py have layouts of their own. Raises ProblemsError.
    """
    if not isinstance(row, dict):
        raise ProblemsError(f"{where}: a record must be an object, got {shown(row, 80)}")
    layout = BENCHMARKS.get(benchmark)
    if layout and layout.is_layout_of([row]):
        return from_benchmark(layout, row, where, where, tally)
    return from_row(row, where, where, tally)


def problems_of_rows(
    rows: Rows, name: str, benchmark: Benchmark | None, tally: Tally | None, reading: Reading
) -> list[Problem]:
    """The problems of a set, ids `<name>/<row, five digits>`; one layout holds for all rows.

    Rows are in the layout of `benchmark` where they are, else plain. Raises ProblemsError.
    """
    rows = _with_plain_names(rows, reading)
    ids = [f"{name}/{index:05d}" for index in range(len(rows))]
    if benchmark and benchmark.is_layout_of(row for _, row in rows):
        return [
            from_benchmark(benchmark, row, id_, where, tally)
            for id_, (where, row) in zip(ids, rows, strict=True)
        ]
    return [
        from_row(row, id_, where, tally, reading)
        for id_, (where, row) in zip(ids, rows, strict=True)
    ]


def _with_plain_names(rows: Rows, reading: Reading) -> Rows:
    """Rows whose columns have other names, or that are conversations, as PLAIN; others as they
    are."""
    columns, found = reading.columns, dict.fromkeys(name for _, row in rows for name in row)
    for field_, name in columns.items():
        if name is not None and name not in found:
            raise ProblemsError(
                f"{reading.section}.columns: {field_} is read from {shown(name, 60)}, which no row "
                f"of {reading.section}.source has; its columns are {listed(found)}"
            )
    is_talk = "messages" in found and "question" not in found and not any(columns.values())
    talk = columns.get("messages", "messages" if is_talk else None)
    if talk is not None:
        left_out = {field_ for field_, name in columns.items() if name is None}
        turns = [(where, _turns(row.get(talk), talk, where)) for where, row in rows]
        return [(at, {key: row[key] for key in row if key not in left_out}) for at, row in turns]
    if not columns:
        return rows
    taken = set(columns.values())
    named = {each: columns.get(each, None if each in taken else each) for each in PLAIN}
    return [(at, {to: row[it] for to, it in named.items() if it in row}) for at, row in rows]


def _turns(messages: Any, name: str, where: str) -> Row:
    """A conversation's question and, if it has one, answer; what a system says is not read."""
    turns = messages if isinstance(messages, list) else []
    roles = [each.get("role") if isinstance(each, dict) else each for each in turns]
    if roles[:1] == ["system"]:
        turns, roles = turns[1:], roles[1:]
    if roles not in (["user"], ["user", "assistant"]):
        raise ProblemsError(
            f"{where}: {name} must be one turn of the user and at most one of the assistant, "
            '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], got '
            f"{shown(roles if turns else messages, 80)}"
        )
    return {name: turn.get("content") for name, turn in zip(PLAIN, turns, strict=False)}


def from_row(
    row: Row,
    problem_id: str,
    where: str,
    tally: Tally | None = None,
    reading: Reading = GRADED,
) -> Problem:
    """Read one `{question, answer}` row; `where` names the file and line in errors."""
    _require(("question", "answer") if reading.needs else ("question",), row, where, reading)
    _refuse_other_kinds(PLAIN, row, where)
    question = str(row["question"]).strip()
    solution = "" if _is_blank(row.get("solution")) else str(row["solution"]).strip()
    if _is_blank(row.get("answer")):
        return _checked(Problem(problem_id, question, None, solution), "", where, "none", tally)
    try:
        found = golds.parse_gold(str(row["answer"]), question)
    except ValueError as error:
        none = f"{reading.section}.columns={{answer: null}}"
        rather = "" if reading.needs else f"; or read no answers, by {none}"
        raise ProblemsError(f"{where}: {error}{rather}") from error
    problem = Problem(problem_id, question, found.answer, found.working or solution)
    return _checked(problem, "", where, found.how, tally)


def from_benchmark(
    benchmark: Benchmark,
    row: Row,
    problem_id: str,
    where: str,
    tally: Tally | None = None,
) -> Problem:
    """Read one row in a benchmark's own layout; `where` as in `from_row`."""
    _require(benchmark.fields, row, where, GRADED)
    try:
        question, found = benchmark.question_and_gold(row)
    except ValueError as error:
        raise ProblemsError(f"{where}: {error}") from error
    _refuse_other_kinds(benchmark.fields, row, where)
    problem = Problem(problem_id, question, found.answer, found.working)
    return _checked(problem, benchmark.name, where, found.how, tally)


def _checked(
    problem: Problem, benchmark: str, where: str, how: str, tally: Tally | None
) -> Problem:
    """Count a problem, but refuse one that UTF-8 cannot hold, and one whose gold answer is none: no
    letter or digit, and normalised it is empty.

    Letters count because the toolkit leaves nothing of good answers either: math500 has an `east`,
    which is among its unit words.
    """
    for name in PLAIN:
        if not is_writable(getattr(problem, name) or ""):
            raise ProblemsError(
                f"{where}: {name} has half a surrogate pair (such as \\ud83d alone); fix the text"
            )
    answer = problem.answer
    if answer is not None and not any(map(str.isalnum, answer)) and not gold(answer, benchmark):
        raise ProblemsError(f"{where}: {golds.refusal(answer, 'it is empty')}")
    if tally is not None:
        tally[how] += 1
    return problem


def _require(fields: tuple[str, ...], row: Row, where: str, reading: Reading) -> None:
    missing = [field for field in fields if _is_blank(row.get(field))]
    if missing:
        remedies = [reading.needs] if missing == ["answer"] else []
        if reading.section:
            remedies.append(f"name its column in {reading.section}.columns if it has another")
        raise ProblemsError(
            f"{where}: {' and '.join(missing)} missing or empty; each row needs "
            f"{', '.join(fields)}, this one has {shown(list(row), 400)}"
            + "".join(f"; {remedy}" for remedy in remedies)
        )
    for field_ in dict.fromkeys((*fields, "answer", "solution")):
        if len(str(row.get(field_))) > LONGEST:
            raise ProblemsError(
                f"{where}: {field_} has over {LONGEST:,} characters; leave the row out or shorten "
                "it"
            )


def _refuse_other_kinds(fields: Iterable[str], row: Row, where: str) -> None:
    """Refuse what Python could only print, such as a list or an infinity."""
    for name in fields:
        value = row.get(name)
        values = value if name in LISTS and isinstance(value, list) else [value]
        for each in () if _is_blank(value) else values:
            if type(each) not in (str, int, float):  # True is an int, too
                raise ProblemsError(
                    f"{where}: {name} must be text or a number, got {shown(each, 80)}"
                )
            if isinstance(each, float) and not math.isfinite(each):
                raise ProblemsError(f"{where}: {name} must be a finite number, got {each!r}")


def _is_blank(value: Any) -> bool:
    """Nothing to read: null, not a number, or no text. The number 0 is an answer."""
    return value is None or value != value or not str(value).strip()
