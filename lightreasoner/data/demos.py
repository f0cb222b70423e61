"""Worked examples that precede each question of a set, for few-shot prompts: where they come from.

Where the number of `shots` is not set, a set has those that the toolkit shows (`own`), or none.
Else the first of these that there is gives so many:

1. `demos.json` beside the set's test file, pairs of question and answer: the place for any others;
2. what the toolkit shows;
3. the set's train split, or that of the set in LENT; problems drawn by the seed. In the micro-world
   it is `pretrain`, from which neither tuning nor evaluation draws.

None of them is an evaluated question.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

from lightreasoner import untrusted
from lightreasoner.data import hub, microworld, saved, sources
from lightreasoner.data.benchmarks import BENCHMARKS, Benchmark
from lightreasoner.data.problems import Demo, Problem, is_writable, solution_text
from lightreasoner.data.reading import EVALUATED, Reading
from lightreasoner.errors import ProblemsError

LENT: Mapping[str, str] = {
    "svamp": "gsm8k", "asdiv": "gsm8k",
    "math500": "math", "minerva_math": "math", "olympiadbench": "math",
}  # fmt: skip
"""Sets without a train split, and whose problems stand in; to svamp and asdiv the toolkit, too,
shows gsm8k's examples (`load_prompt` of its utils.py)."""

FILE = "demos.json"
LOG = logging.getLogger(__name__)


def check(
    source: str,
    set_names: Sequence[str],
    shots: int | None,
    seed: int,
    reading: Reading = EVALUATED,
) -> None:
    """Refuse a source that cannot give a set's examples, before anything expensive runs.

    Of the hub, names and splits are checked; the rest is left to the stage that downloads.
    """
    for name in set_names:
        if source == sources.MICROWORLD or sources.is_local(source):
            of(source, name, shots, seed, (), reading)
        elif shots and not _is_few_shot(name):
            _train_set(source, name)


def of(
    source: str,
    set_name: str,
    shots: int | None,
    seed: int,
    evaluated: Collection[str],
    reading: Reading = EVALUATED,
) -> dict[str, Demo]:
    """The examples by their ids, none of which asks one of the `evaluated` questions.

    Raises ProblemsError where there are fewer than `shots`.
    """
    if shots is None:
        return _named(set_name, own(source, set_name))
    if shots == 0:
        return {}
    asked = set(map(_spoken, evaluated))
    found = [
        (name, demo)
        for name, demo in _candidates(source, set_name, shots, seed, asked, reading).items()
        if _spoken(demo[0]) not in asked
    ]
    if len(found) < shots:
        raise ProblemsError(
            f"{source}: {set_name} has {len(found)} worked examples that are not evaluated, "
            f"{shots} are wanted; lower evaluate.shots, or put more into {FILE} beside its test "
            "file, as [[question, answer], ...]"
        )
    return dict(found[:shots])


def _candidates(
    source: str, set_name: str, shots: int, seed: int, asked: Collection[str], reading: Reading
) -> dict[str, Demo]:
    if source == sources.MICROWORLD:
        drawn = microworld.draw(cast("microworld.SetName", set_name), "pretrain", shots, seed)
        return dict(map(_worked, drawn))
    path = Path(source)
    is_folder = untrusted.is_directory(path) and not saved.is_saved(path)
    if sources.is_local(source) and is_folder:
        beside = sources.file_of(path, set_name, "test").with_name(FILE)
        if untrusted.exists(beside):
            return _named(set_name, _read(beside, shots))
    if shown := own(source, set_name):
        return _named(set_name, shown)
    lent = _train_set(source, set_name)
    train = sources.draw_problems(source, lent, "train", None, seed, reading=reading)
    fitting = [each for each in train if each.solution and _spoken(each.question) not in asked]
    return dict(map(_worked, sources.sample(fitting, min(shots, len(fitting)), seed, source)))


def _train_set(source: str, set_name: str) -> str:
    """The set whose train split gives the examples. Raises ProblemsError."""
    for name in (set_name, LENT.get(set_name, set_name)):
        if sources.has_split(source, name, "train"):
            return name
    raise ProblemsError(
        f"{source}: has no train split of {set_name}, which evaluate.shots needs; give a directory "
        f"with {FILE}, as [[question, answer], ...], beside the set's test file, or set it to null"
    )


def _worked(problem: Problem) -> tuple[str, Demo]:
    """A problem as an example, which answers in a box as the prompts ask for it."""
    return problem.id, (problem.question, solution_text(problem))


def _named(set_name: str, demos: Sequence[Demo]) -> dict[str, Demo]:
    return {f"{set_name}/demos/{place:05d}": demo for place, demo in enumerate(demos)}


def _spoken(question: str) -> str:
    """A question whatever its spaces and capitals."""
    return " ".join(question.split()).casefold()


def own(source: str, set_name: str) -> list[Demo]:
    """The demos that precede each question of a set; none unless the toolkit reads the set so.

    They stand in `demos.json` beside `test.jsonl`: pairs of question and answer, of which as many
    count as the benchmark has shots. Without that file, or on the hub, the hub's `dev` split gives
    them. It has no worked answers, so that the prompt is then another one than the toolkit's.
    """
    path = Path(source)
    if not _is_few_shot(set_name) or source == sources.MICROWORLD or saved.is_saved(path):
        return []
    benchmark = BENCHMARKS[set_name]
    if not sources.is_local(source):
        found = hub.find(source, set_name)
        in_layout = benchmark.is_layout_of(hub.read_split(found, "test"))
        return _hub_demos(benchmark, found) if in_layout else []
    file = sources.file_of(path, set_name, "test") if path.is_dir() else path
    if not benchmark.is_layout_of(row for _, row in sources.rows_of_file(file)):
        return []
    if path.is_file():  # whose digest says nothing of a file beside it
        raise ProblemsError(
            f"{path}: {set_name} is {benchmark.shots}-shot; give the directory that holds it, with "
            f"its {FILE}"
        )
    return _demos_beside(file, benchmark)


def _is_few_shot(set_name: str) -> bool:
    """Whether the toolkit shows examples before the set's questions."""
    return set_name in BENCHMARKS and BENCHMARKS[set_name].shots > 0


def _demos_beside(file: Path, benchmark: Benchmark) -> list[Demo]:
    """The demos in demos.json beside a file of problems, else those of the hub."""
    path = file.with_name(FILE)
    if untrusted.exists(path):
        return _read(path, benchmark.shots)[: benchmark.shots]
    try:
        found = _hub_demos(benchmark, hub.SETS[benchmark.name])
    except ProblemsError as error:
        raise ProblemsError(
            f"{path}: no such file, and {benchmark.name} is {benchmark.shots}-shot; put its "
            f"{benchmark.shots} demos there, as JSON: [[question, answer], ...] (the hub's dev "
            f"split was no help: {error})"
        ) from error
    LOG.warning(
        "%s: no such file; the demos come from the hub's dev split, not from the toolkit", path
    )
    return found


def _hub_demos(benchmark: Benchmark, found: hub.HubSet) -> list[Demo]:
    """Questions of the dev split, each answered in the form of the toolkit's last sentence."""
    return [
        (question, f"The answer is ({letter.answer}).")
        for question, letter in map(benchmark.question_and_gold, hub.demo_rows(found))
    ]


def _read(path: Path, shots: int) -> list[Demo]:
    """All demos of a file, at least so many."""
    pairs = untrusted.read_json(path, ProblemsError, untrusted.SETTINGS_BYTES)
    are_pairs = isinstance(pairs, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(part, str) and is_writable(part) for part in pair)
        for pair in pairs
    )
    if not are_pairs or len(pairs) < shots:
        raise ProblemsError(f"{path}: must hold {shots} demos, as [[question, answer], ...]")
    return [(question, answer) for question, answer in pairs]
