"""Sources of problems, each named in one string.

`microworld` (the embedded world), a hub data set with its commit (`openai/gsm8k@<commit>`), a JSONL
or Parquet file, or a directory in the layout of the Qwen2.5-Math toolkit
(`DIR/<set>/<split>.jsonl`; `DIR/<set>` itself will do). Rows of a file hold `question` and
`answer`; GSM8K's answers carry the final number after `####`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lightreasoner import artifacts
from lightreasoner.artifacts import Artifact
from lightreasoner.errors import ProblemsError
from lightreasoner.problems import Problem

FILE_SUFFIXES = (".jsonl", ".parquet")


def from_row(row: dict[str, Any], problem_id: str, where: str) -> Problem:
    """Read one `{question, answer}` row; `where` names the file and line in errors."""
    missing = [key for key in ("question", "answer") if _is_blank(row.get(key))]
    if missing:
        raise ProblemsError(
            f"{where}: {' and '.join(missing)} missing or empty; "
            'each row needs {"question": ..., "answer": ...}'
        )
    answer = str(row["answer"])
    solution, marker, final = answer.rpartition("####")
    if marker:
        return Problem(problem_id, str(row["question"]), final.strip(), solution.strip())
    solution = "" if _is_blank(row.get("solution")) else str(row["solution"])
    return Problem(problem_id, str(row["question"]), answer.strip(), solution.strip())


def _is_blank(value: Any) -> bool:
    """Nothing to read: null, not a number, or no text. The number 0 is an answer."""
    return value is None or value != value or not str(value).strip()


def read_file(path: Path, name: str) -> list[Problem]:
    """All problems of a JSONL or Parquet file; ids are `<name>/<row, five digits>`."""
    rows = _read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path)
    problems = [
        from_row(row, f"{name}/{index:05d}", f"{path}:{line}")
        for index, (line, row) in enumerate(rows)
    ]
    if not problems:
        raise ProblemsError(f"{path}: no problems in the file; give at least one row")
    return problems


def _read_jsonl(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ProblemsError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ProblemsError(
                f"{path}:{number}: not valid JSON ({error.msg}); each line needs one JSON object"
            ) from error
        if not isinstance(row, dict):
            raise ProblemsError(
                f"{path}:{number}: a {type(row).__name__}, not an object; "
                'each line needs {"question": ..., "answer": ...}'
            )
        yield number, row


def _read_parquet(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ProblemsError(f"{path}: not a readable Parquet file ({error})") from error
    missing = {"question", "answer"} - set(frame.columns)
    if missing:
        raise ProblemsError(
            f"{path}: no column {' or '.join(sorted(missing))}; it has {list(frame.columns)}"
        )
    yield from enumerate(frame.to_dict("records"), start=1)


def read(source: str, set_name: str, split: str, n: int | None, seed: int) -> list[Problem]:
    """`n` problems of one set and split (all if None), drawn without replacement by `seed`.

    `source` is as in the module's docstring; a file holds one set, so that there `set_name` only
    names the ids. The draw keeps the source's order.
    """
    if source == "microworld":
        return _draw_microworld(set_name, split, n, seed)
    return sample(_read_all(source, set_name, split), n, seed, source)


def check(source: str, set_names: Sequence[str], split: str, n: int | None) -> None:
    """Refuse a source that cannot give `n` problems of each set, before anything expensive runs.

    A hub data set is left to the stage that downloads it.
    """
    repeated = sorted({name for name in set_names if set_names.count(name) > 1})
    if repeated:
        raise ProblemsError(f"{source}: sets {repeated} are named more than once; name each once")
    holds_many = source == "microworld" or Path(source).is_dir()
    if len(set_names) > 1 and not holds_many:
        raise ProblemsError(
            f"{source}: holds one set, {len(set_names)} are named ({', '.join(set_names)}); name "
            "one, or give a directory of sets"
        )
    for set_name in set_names:
        if source == "microworld":
            _draw_microworld(set_name, split, n, seed=0)
        elif Path(source).exists() or Path(source).suffix in FILE_SUFFIXES:
            sample(_read_all(source, set_name, split), n, 0, source)


def _draw_microworld(set_name: Any, split: str, n: int | None, seed: int) -> list[Problem]:
    from lightreasoner.microworld import world

    if n is None:
        raise ProblemsError("microworld draws any number of problems; set how many (n >= 1)")
    return world.draw(set_name, "sample" if split == "train" else "evaluate", n, seed)


def resolve(source: str) -> Artifact:
    """The identity of a source: a file's or directory's digest, else the source's own name."""
    path = Path(source)
    if path.exists():
        return artifacts.of(path)
    if path.suffix in FILE_SUFFIXES:
        raise ProblemsError(f"{path}: no such file; check the path in params.yaml")
    if source != "microworld" and not artifacts.is_pinned(source):
        raise ProblemsError(
            f"problem source {source!r} is neither a file, a directory, microworld nor a hub data "
            "set owner/name@commit (40 hexadecimal digits); give one of these"
        )
    return Artifact(path, source)


def _read_all(source: str, set_name: str, split: str) -> list[Problem]:
    path = Path(source)
    if path.is_file():
        if path.suffix not in FILE_SUFFIXES:
            raise ProblemsError(f"{path}: a problems file must end in .jsonl or .parquet")
        return read_file(path, set_name)
    if path.is_dir():
        folders = [path / set_name, *([path] if path.resolve().name == set_name else [])]
        for file in (folder / f"{split}{suffix}" for suffix in FILE_SUFFIXES for folder in folders):
            if file.is_file():
                return read_file(file, f"{set_name}/{split}")
        raise ProblemsError(
            f"{path}: holds no {set_name}/{split}.jsonl (or .parquet), and is no directory "
            f"{set_name} that holds {split}.jsonl itself; check the set's name"
        )
    return _read_hub(source, set_name, split)


def _read_hub(source: str, set_name: str, split: str) -> list[Problem]:
    """A hub data set `owner/name@commit`, through `datasets` (no remote code)."""
    import datasets

    name, _, revision = source.partition("@")

    try:
        rows = datasets.load_dataset(
            name, "main" if name == "openai/gsm8k" else None, split=split, revision=revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        detail = (str(error) or "no detail").splitlines()[0]
        raise ProblemsError(
            f"hub data set {source!r}, split {split!r}, cannot be loaded "
            f"({type(error).__name__}: {detail}); check the network or give a local file"
        ) from error
    return [
        from_row(dict(row), f"{set_name}/{split}/{index:05d}", f"{source}, row {index}")
        for index, row in enumerate(rows)
    ]


def sample(problems: list[Problem], n: int | None, seed: int, source: str) -> list[Problem]:
    """`n` of the problems without replacement, in their own order; all of them if n is None."""
    if n is None:
        return problems
    if n > len(problems):
        raise ProblemsError(
            f"{source}: {n} problems wanted, {len(problems)} there; lower n or give more problems"
        )
    rows = pd.Series(range(len(problems))).sample(n=n, random_state=seed).sort_values()
    return [problems[row] for row in rows]
