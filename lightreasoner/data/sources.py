"""Sources of problems, each named in one string.

`microworld` (the embedded world), `hub` (the benchmarks on the hub, as hub.py pins them), one hub
data set with its commit (`openai/gsm8k@<commit>`), a file (user_files.py), a folder that `datasets`
saved (saved.py), or a directory in the layout of the Qwen2.5-Math toolkit
(`DIR/<set>/<split>.jsonl`; `DIR/<set>` itself will do). What their rows hold: reading.py.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from lightreasoner import untrusted
from lightreasoner.data import golds, hub, microworld, saved
from lightreasoner.data.benchmarks import BENCHMARKS
from lightreasoner.data.problems import Problem
from lightreasoner.data.reading import EVALUATED, Reading, Rows, Tally, problems_of_rows
from lightreasoner.data.user_files import FILES, Row
from lightreasoner.errors import ProblemsError
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.untrusted import listed, shown

MICROWORLD = "microworld"

MOST_FILES = 10_000
"""In a directory of problem sets; all of them are part of a result's key."""

HOW_READ = {
    "given": "as given",
    "marker": f"behind {golds.MARKER}",
    "box": "in a box",
    "label": "behind `the answer is` or the like",
    "list": "in a list as text",
    "last number": "the last number of a solution",
    "none": "missing (needed by evaluation and by the methods sft and gold alone)",
}
USUAL = {"given", "marker", "box"}
LOG = logging.getLogger(__name__)


def draw_problems(
    source: str,
    set_name: str,
    split: str,
    n: int | None,
    seed: int,
    tally: Tally | None = None,
    reading: Reading = EVALUATED,
) -> list[Problem]:
    """`n` problems of one set and split (all if None), drawn without replacement by `seed`.

    `source` is as in the module's docstring; a file holds one set, so that there `set_name` only
    names the ids. The draw keeps the source's order. `tally` gets how the set's gold answers, all
    of them, were read, which is logged where any was read in an unusual way.
    """
    if source == MICROWORLD:
        return microworld.draw(*_of_world(set_name, split, n), seed)
    tally = Counter() if tally is None else tally
    found = _read_all(source, set_name, split, tally, reading)
    if tally.keys() - USUAL:
        LOG.info("%s, %s: gold answers: %s", source, set_name, tally_text(tally))
    return sample(found, n, seed, source)


def tally_text(tally: Tally) -> str:
    """How gold answers were read, the commonest first."""
    return ", ".join(f"{count} {HOW_READ[how]}" for how, count in tally.most_common())


def check(
    source: str,
    set_names: Sequence[str],
    split: str,
    n: int | None,
    reading: Reading = EVALUATED,
) -> None:
    """Refuse a source that cannot give `n` problems of each set, before anything expensive runs.

    Of the hub, names and splits are checked; the rest is left to the stage that downloads.
    """
    repeated = sorted({name for name in set_names if set_names.count(name) > 1})
    if repeated:
        raise ProblemsError(f"{source}: sets {repeated} are named more than once; name each once")
    is_directory = untrusted.is_directory(Path(source)) and not saved.is_saved(Path(source))
    holds_many = source in (MICROWORLD, hub.SOURCE) or is_directory
    if len(set_names) > 1 and not holds_many:
        raise ProblemsError(
            f"{source}: holds one set, {len(set_names)} are named ({listed(set_names)}); name "
            "one, or give a directory of sets"
        )
    for set_name in set_names:
        if source == MICROWORLD and set_name not in get_args(microworld.SetName):
            raise ProblemsError(
                f"{reading.section}.source microworld has no set {shown(set_name)}, only "
                f"{', '.join(get_args(microworld.SetName))}; name one of these, or set "
                f"{reading.section}.source to hub, or to a file or folder that holds the set"
            )
        if source == MICROWORLD:
            microworld.check(*_of_world(set_name, split, n))
        elif not is_local(source):
            hub.check(source, set_name, split)
        else:
            sample(_read_all(source, set_name, split, Counter(), reading), n, 0, source)


def _of_world(set_name: Any, split: str, n: int | None) -> tuple[Any, microworld.Split, int]:
    """Set, split and number in the world's terms."""
    if n is None:
        raise ProblemsError(
            "microworld generates any number of problems; say how many (n_problems or --limit)"
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
        kept = artifacts.BOOKKEEPING
        if untrusted.is_directory(path) and len(artifacts.files_under(path, kept)) > MOST_FILES:
            raise ProblemsError(
                f"{path}: holds over {MOST_FILES:,} files, all of which would be part of a "
                "result's key; give a directory that holds problem sets alone"
            )
        return artifacts.given(path)
    if path.suffix in FILES:
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
    return not is_named and (untrusted.exists(path) or path.suffix in FILES)


def _read_all(
    source: str, set_name: str, split: str, tally: Tally, reading: Reading
) -> list[Problem]:
    path, name = Path(source), f"{set_name}/{split}"
    rows: Rows
    if not is_local(source):
        found = enumerate(hub.read_split(hub.find(source, set_name), split))
        rows = [(f"{source}, row {index}", row) for index, row in found]
    elif saved.is_saved(path):
        rows = [(f"{path}, row {number}", row) for number, row in saved.read(path, split)]
    elif untrusted.is_directory(path):
        path = file_of(path, set_name, split)
        rows = _rows_of_file(path)
    else:
        rows, name = _rows_of_file(path), set_name
    if not rows:
        raise ProblemsError(f"{path}: no problems in it; give at least one row")
    return problems_of_rows(rows, name, BENCHMARKS.get(set_name), tally, reading)


def _rows_of_file(path: Path) -> Rows:
    return [(f"{path}:{line}", row) for line, row in rows_of_file(path)]


def rows_of_file(path: Path) -> list[tuple[int, Row]]:
    """The rows of a file, each with its line. Raises ProblemsError."""
    if path.suffix not in FILES:
        raise ProblemsError(f"{path}: a problems file must end in {', '.join(FILES)}")
    try:
        return list(FILES[path.suffix](path))
    except FileNotFoundError:
        raise ProblemsError(f"{path}: no such file; check the path") from None


def has_split(source: str, set_name: str, split: str) -> bool:
    """Whether a folder or a source on the hub has a split of a set; nothing is fetched."""
    path = Path(source)
    try:
        if not is_local(source):
            return split in hub.find(source, set_name).splits
        if saved.is_saved(path):
            return split in saved.splits(path)
        return untrusted.is_directory(path) and file_of(path, set_name, split).is_file()
    except ProblemsError:
        return False


def file_of(directory: Path, set_name: str, split: str) -> Path:
    """A set's file in a directory of sets, or in one that is the set itself."""
    folders = [directory / set_name]
    folders += [directory] if directory.resolve().name == set_name else []
    for file in (folder / f"{split}{suffix}" for suffix in FILES for folder in folders):
        if untrusted.exists(file):
            return file
    sets = {file.parent.name for file in directory.glob(f"*/{split}.*") if file.suffix in FILES}
    members = sorted(each.name for each in directory.glob("*"))
    held = f"the sets {listed(sorted(sets))}" if sets else listed(members)
    raise ProblemsError(
        f"{directory}: has no {set_name}/{split}.jsonl (or {', '.join(list(FILES)[1:])}), is not "
        f"itself a directory {set_name} with {split}.jsonl, nor a data set of save_to_disk; check "
        f"the set's name, or give a file; it holds {held or 'nothing'}"
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
