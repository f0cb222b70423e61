"""Sources of problems, each named in one string.

`microworld` (the embedded world), a hub data set with its commit (`openai/gsm8k@<commit>`), a JSONL
or Parquet file, or a directory in the layout of the Qwen2.5-Math toolkit
(`DIR/<set>/<split>.jsonl`; `DIR/<set>` itself will do). Rows of a file hold `question` and
`answer`; GSM8K's answers carry the final number after `####`. In a directory, the benchmarks of
benchmarks.py may be in their own layouts.
"""

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightreasoner import artifacts
from lightreasoner.artifacts import Artifact
from lightreasoner.benchmarks import BENCHMARKS, Benchmark
from lightreasoner.errors import ProblemsError
from lightreasoner.problems import Demo, Problem

FILE_SUFFIXES = (".jsonl", ".parquet")


def from_row(row: dict[str, Any], problem_id: str, where: str) -> Problem:
    """Read one `{question, answer}` row; `where` names the file and line in errors."""
    _require(("question", "answer"), row, where)
    answer = str(row["answer"])
    solution, marker, final = answer.rpartition("####")
    if marker:
        return Problem(problem_id, str(row["question"]), final.strip(), solution.strip())
    solution = "" if _is_blank(row.get("solution")) else str(row["solution"])
    return Problem(problem_id, str(row["question"]), answer.strip(), solution.strip())


def from_benchmark(
    benchmark: Benchmark, row: dict[str, Any], problem_id: str, where: str
) -> Problem:
    """Read one row in a benchmark's own layout; `where` as in `from_row`."""
    _require(benchmark.fields, row, where)
    solution = str(row[benchmark.solution]) if benchmark.solution else ""
    try:
        return Problem(problem_id, benchmark.question(row), benchmark.gold(row), solution)
    except ValueError as error:
        raise ProblemsError(f"{where}: {error}") from error


def _require(fields: tuple[str, ...], row: dict[str, Any], where: str) -> None:
    missing = [field for field in fields if _is_blank(row.get(field))]
    if missing:
        raise ProblemsError(
            f"{where}: {' and '.join(missing)} missing or empty; each row needs "
            f"{', '.join(fields)}, this one has {list(row)}"
        )


def _is_blank(value: Any) -> bool:
    """Nothing to read: null, not a number, or no text. The number 0 is an answer."""
    return value is None or value != value or not str(value).strip()


def read_file(path: Path, name: str, benchmark: Benchmark | None = None) -> list[Problem]:
    """All problems of a JSONL or Parquet file; ids are `<name>/<row, five digits>`.

    Rows are `{question, answer}`, or in the layout of `benchmark` where they are.
    """
    rows = _rows(path)
    if not rows:
        raise ProblemsError(f"{path}: no problems in the file; give at least one row")
    read_row: Callable[[dict[str, Any], str, str], Problem] = from_row
    if benchmark and benchmark.is_layout_of(row for _, row in rows):
        read_row = functools.partial(from_benchmark, benchmark)
    return [
        read_row(row, f"{name}/{index:05d}", f"{path}:{line}")
        for index, (line, row) in enumerate(rows)
    ]


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a file, each with its line."""
    return list(_read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path))


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
    for number, row in enumerate(frame.to_dict("records"), start=1):
        yield number, {name: _as_list(value) for name, value in row.items()}


def _as_list(value: Any) -> Any:
    """What pandas reads as an array is a list, as it is in JSONL."""
    return value.tolist() if isinstance(value, np.ndarray) else value


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
            if split == "test":
                demos(source, set_name)


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
        file = _file_of(path, set_name, split)
        return read_file(file, f"{set_name}/{split}", BENCHMARKS.get(set_name))
    return _read_hub(source, set_name, split)


def _file_of(directory: Path, set_name: str, split: str) -> Path:
    """A set's file in a directory of sets, or in one that is the set itself."""
    folders = [directory / set_name]
    folders += [directory] if directory.resolve().name == set_name else []
    for file in (folder / f"{split}{suffix}" for suffix in FILE_SUFFIXES for folder in folders):
        if file.is_file():
            return file
    found = {
        f.parent.name for suffix in FILE_SUFFIXES for f in directory.glob(f"*/{split}{suffix}")
    }
    raise ProblemsError(
        f"{directory}: holds no {set_name}/{split}.jsonl (or .parquet), and is no directory "
        f"{set_name} that holds {split}.jsonl itself; check the set's name, there is "
        f"{', '.join(sorted(found)) or 'none'}"
    )


def demos(source: str, set_name: str) -> list[Demo]:
    """The demos that precede each question of a set; none unless the toolkit reads the set so.

    They stand in `demos.json` beside `test.jsonl`: pairs of question and answer, of which as many
    count as the benchmark has shots.
    """
    benchmark = BENCHMARKS.get(set_name)
    if benchmark is None or not benchmark.shots or not Path(source).is_dir():
        return []
    file = _file_of(Path(source), set_name, "test")
    if not benchmark.is_layout_of(row for _, row in _rows(file)):
        return []
    return _read_demos(file.with_name("demos.json"), benchmark.shots)


def _read_demos(path: Path, shots: int) -> list[Demo]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProblemsError(
            f"{path}: no such file, and {path.parent.name} is {shots}-shot; put its {shots} demos "
            "there, as JSON: [[question, answer], ...]"
        ) from None
    except ValueError as error:
        raise ProblemsError(f"{path}: not valid JSON in UTF-8 ({error})") from error
    are_pairs = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in pairs
    )
    if not are_pairs or len(pairs) < shots:
        raise ProblemsError(f"{path}: must hold {shots} demos, as [[question, answer], ...]")
    return [(question, answer) for question, answer in pairs[:shots]]


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
