"""Sources of problems, each named in one string.

`microworld` (the embedded world), `hub` (the benchmarks on the hub, as hub.py pins them), one hub
data set with its commit (`openai/gsm8k@<commit>`), a JSONL or Parquet file, or a directory in the
layout of the Qwen2.5-Math toolkit (`DIR/<set>/<split>.jsonl`; `DIR/<set>` itself will do). Rows
hold `question` and `answer` (GSM8K's answers carry the final number after `####`), or are in the
own layout of the benchmark that the set is named after (benchmarks.py).

A gold answer is read out of a worked solution (golds.py); a problem without one is refused.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lightreasoner import untrusted
from lightreasoner.data import golds, hub, microworld, user_files
from lightreasoner.data.benchmarks import BENCHMARKS, Benchmark
from lightreasoner.data.problems import Problem, is_writable
from lightreasoner.errors import ProblemsError
from lightreasoner.qwen_math.answers import gold
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.untrusted import listed, shown

MICROWORLD = "microworld"
FILE_SUFFIXES = (".jsonl", ".parquet")
LONGEST = 200_000
"""Characters of a question, an answer or a solution."""

MOST_FILES = 10_000
"""In a directory of problem sets; all of them are part of a result's key."""

LISTS = ("choices", "final_answer")
"""Fields of benchmarks that hold lists."""
HOW_READ = {
    "given": "as given",
    "marker": f"behind {golds.MARKER}",
    "box": "in a box",
    "label": "behind `the answer is` or the like",
    "list": "in a list as text",
    "last number": "the last number of a solution",
}
USUAL = {"given", "marker", "box"}
LOG = logging.getLogger(__name__)


Tally = Counter[str]
"""How gold answers were read (golds.py), counted."""


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


def from_row(
    row: dict[str, Any], problem_id: str, where: str, tally: Tally | None = None
) -> Problem:
    """Read one `{question, answer}` row; `where` names the file and line in errors."""
    _require(("question", "answer"), row, where)
    _refuse_other_kinds(("question", "answer", "solution"), row, where)
    question, answer = str(row["question"]).strip(), str(row["answer"])
    try:
        found = golds.parse_gold(answer, question)
    except ValueError as error:
        raise ProblemsError(f"{where}: {error}") from error
    solution = "" if _is_blank(row.get("solution")) else str(row["solution"]).strip()
    problem = Problem(problem_id, question, found.answer, found.working or solution)
    return _checked(problem, "", where, found.how, tally)


def from_benchmark(
    benchmark: Benchmark,
    row: dict[str, Any],
    problem_id: str,
    where: str,
    tally: Tally | None = None,
) -> Problem:
    """Read one row in a benchmark's own layout; `where` as in `from_row`."""
    _require(benchmark.fields, row, where)
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
    """Count a problem, but refuse one that UTF-8 cannot hold, and one without a gold answer: no
    letter or digit, and normalised it is empty.

    Letters count because the toolkit leaves nothing of good answers either: math500 has an `east`,
    which is among its unit words.
    """
    for name in ("question", "answer", "solution"):
        if not is_writable(getattr(problem, name)):
            raise ProblemsError(
                f"{where}: {name} has half a surrogate pair (such as \\ud83d alone); fix the text"
            )
    is_word = any(character.isalnum() for character in problem.answer)
    if not is_word and not gold(problem.answer, benchmark):
        raise ProblemsError(f"{where}: {golds.refusal(problem.answer, 'it is empty')}")
    if tally is not None:
        tally[how] += 1
    return problem


def _require(fields: tuple[str, ...], row: dict[str, Any], where: str) -> None:
    missing = [field for field in fields if _is_blank(row.get(field))]
    if missing:
        raise ProblemsError(
            f"{where}: {' and '.join(missing)} missing or empty; each row needs "
            f"{', '.join(fields)}, this one has {shown(list(row), 400)}"
        )
    for field in (*fields, "solution"):
        if len(str(row.get(field))) > LONGEST:
            raise ProblemsError(
                f"{where}: {field} has over {LONGEST:,} characters; leave the row out or shorten it"
            )


def _refuse_other_kinds(fields: Iterable[str], row: dict[str, Any], where: str) -> None:
    """Refuse what Python could only print, such as a list or an infinity."""
    for field in fields:
        value = row.get(field)
        values = value if field in LISTS and isinstance(value, list) else [value]
        for each in () if _is_blank(value) else values:
            if type(each) not in (str, int, float):  # True is an int, too
                raise ProblemsError(
                    f"{where}: {field} must be text or a number, got {shown(each, 80)}"
                )
            if isinstance(each, float) and not math.isfinite(each):
                raise ProblemsError(f"{where}: {field} must be a finite number, got {each!r}")


def _is_blank(value: Any) -> bool:
    """Nothing to read: null, not a number, or no text. The number 0 is an answer."""
    return value is None or value != value or not str(value).strip()


def read_file(
    path: Path, name: str, benchmark: Benchmark | None = None, tally: Tally | None = None
) -> list[Problem]:
    """All problems of a JSONL or Parquet file; ids are `<name>/<row, five digits>`.

    Rows are `{question, answer}`, or in the layout of `benchmark` where they are.
    """
    rows = rows_of_file(path)
    if not rows:
        raise ProblemsError(f"{path}: no problems in the file; give at least one row")
    return _problems([(f"{path}:{line}", row) for line, row in rows], name, benchmark, tally)


def _problems(
    rows: Sequence[tuple[str, dict[str, Any]]],
    name: str,
    benchmark: Benchmark | None,
    tally: Tally | None,
) -> list[Problem]:
    """Read rows, each with its place for errors; one layout holds for all of them."""
    ids = [f"{name}/{index:05d}" for index in range(len(rows))]
    if benchmark and benchmark.is_layout_of(row for _, row in rows):
        return [
            from_benchmark(benchmark, row, id_, where, tally)
            for id_, (where, row) in zip(ids, rows, strict=True)
        ]
    return [from_row(row, id_, where, tally) for id_, (where, row) in zip(ids, rows, strict=True)]


def rows_of_file(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a file, each with its line."""
    is_text = path.suffix == ".jsonl"
    try:
        return list(user_files.read_jsonl(path)) if is_text else user_files.read_parquet(path)
    except FileNotFoundError:
        raise ProblemsError(f"{path}: no such file; check the path") from None


def draw_problems(
    source: str, set_name: str, split: str, n: int | None, seed: int, tally: Tally | None = None
) -> list[Problem]:
    """`n` problems of one set and split (all if None), drawn without replacement by `seed`.

    `source` is as in the module's docstring; a file holds one set, so that there `set_name` only
    names the ids. The draw keeps the source's order. `tally` gets how the set's gold answers, all
    of them, were read, which is logged where any was read in an unusual way.
    """
    if source == MICROWORLD:
        return microworld.draw(*_of_world(set_name, split, n), seed)
    tally = Counter() if tally is None else tally
    found = _read_all(source, set_name, split, tally)
    if tally.keys() - USUAL:
        LOG.info("%s, %s: gold answers: %s", source, set_name, tally_text(tally))
    return sample(found, n, seed, source)


def tally_text(tally: Tally) -> str:
    """How gold answers were read, the commonest first."""
    return ", ".join(f"{count} {HOW_READ[how]}" for how, count in tally.most_common())


def check(source: str, set_names: Sequence[str], split: str, n: int | None) -> None:
    """Refuse a source that cannot give `n` problems of each set, before anything expensive runs.

    Of the hub, names and splits are checked; the rest is left to the stage that downloads.
    """
    repeated = sorted({name for name in set_names if set_names.count(name) > 1})
    if repeated:
        raise ProblemsError(f"{source}: sets {repeated} are named more than once; name each once")
    holds_many = source in (MICROWORLD, hub.SOURCE) or untrusted.is_directory(Path(source))
    if len(set_names) > 1 and not holds_many:
        raise ProblemsError(
            f"{source}: holds one set, {len(set_names)} are named ({listed(set_names)}); name "
            "one, or give a directory of sets"
        )
    for set_name in set_names:
        if source == MICROWORLD:
            microworld.check(*_of_world(set_name, split, n))
        elif not is_local(source):
            hub.check(source, set_name, split)
        else:
            sample(_read_all(source, set_name, split), n, 0, source)


def _of_world(set_name: Any, split: str, n: int | None) -> tuple[Any, microworld.Split, int]:
    """Set, split and number in the world's terms."""
    if n is None:
        raise ProblemsError(
            "microworld generates any number of problems; say how many (n or --limit)"
        )
    return set_name, "sample" if split == "train" else "evaluate", n


def resolve(source: str) -> Artifact:
    """The identity of a source: a file's or directory's digest, else the source's own name."""
    path = Path(source)
    if source == hub.SOURCE:
        return Artifact(path, hub.identity())
    if source == MICROWORLD:
        return Artifact(path, source)
    if untrusted.exists(path):
        if untrusted.is_directory(path) and len(artifacts.files_under(path)) > MOST_FILES:
            raise ProblemsError(
                f"{path}: holds over {MOST_FILES:,} files, all of which would be part of a "
                "result's key; give a directory that holds problem sets alone"
            )
        return artifacts.of(path)
    if path.suffix in FILE_SUFFIXES:
        raise ProblemsError(f"{path}: no such file; check the path in params.yaml")
    if not artifacts.is_pinned(source):
        raise ProblemsError(
            f"problem source {shown(source)} is neither a file, a directory, microworld, hub nor a "
            "hub data set owner/name@commit (40 hexadecimal digits); give one of these"
        )
    return Artifact(path, source)


def is_local(source: str) -> bool:
    """Whether a source is a path, there or not; `hub` and `microworld` never are."""
    path = Path(source)
    is_named = source in (hub.SOURCE, MICROWORLD)
    return not is_named and (untrusted.exists(path) or path.suffix in FILE_SUFFIXES)


def _read_all(source: str, set_name: str, split: str, tally: Tally | None = None) -> list[Problem]:
    benchmark = BENCHMARKS.get(set_name)
    if not is_local(source):
        rows = hub.read_split(hub.find(source, set_name), split)
        named_rows = [(f"{source}, row {index}", row) for index, row in enumerate(rows)]
        return _problems(named_rows, f"{set_name}/{split}", benchmark, tally)
    path = Path(source)
    if untrusted.is_directory(path):
        return read_file(file_of(path, set_name, split), f"{set_name}/{split}", benchmark, tally)
    if path.suffix not in FILE_SUFFIXES:
        raise ProblemsError(f"{path}: a problems file must end in .jsonl or .parquet")
    return read_file(path, set_name, benchmark, tally)


def has_split(source: str, set_name: str, split: str) -> bool:
    """Whether a directory or a source on the hub has a split of a set; nothing is fetched."""
    path = Path(source)
    try:
        if not is_local(source):
            return split in hub.find(source, set_name).splits
        return untrusted.is_directory(path) and file_of(path, set_name, split).is_file()
    except ProblemsError:
        return False


def file_of(directory: Path, set_name: str, split: str) -> Path:
    """A set's file in a directory of sets, or in one that is the set itself."""
    folders = [directory / set_name]
    folders += [directory] if directory.resolve().name == set_name else []
    for file in (folder / f"{split}{suffix}" for suffix in FILE_SUFFIXES for folder in folders):
        if untrusted.exists(file):
            return file
    found = {
        f.parent.name for suffix in FILE_SUFFIXES for f in directory.glob(f"*/{split}{suffix}")
    }
    raise ProblemsError(
        f"{directory}: has no {set_name}/{split}.jsonl (or .parquet), and is not itself a "
        f"directory {set_name} with {split}.jsonl; check the set's name, there is "
        f"{listed(sorted(found)) or 'none'}"
    )


def sample(problems: list[Problem], n: int | None, seed: int, source: str) -> list[Problem]:
    """`n` of the problems without replacement, in their own order; all of them if n is None."""
    if n is None:
        return problems
    if n > len(problems):
        raise ProblemsError(
            f"{source}: {n} problems wanted, only {len(problems)} there; "
            "lower n or give more problems"
        )
    rows = pd.Series(range(len(problems))).sample(n=n, random_state=seed).sort_values()
    return [problems[row] for row in rows]
