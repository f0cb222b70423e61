"""The benchmarks on the Hugging Face hub: what the source `hub` stands for, each set pinned.

Each row is in the layout that benchmarks.py reads. Where the toolkit's `data_loader.py` (commit
a45202b) says how it made its file from the hub, the same is done here: svamp is both splits one
after the other, asdiv leaves out answers of several parts, mmlu_stem keeps 18 subjects. Rows come
in the repository's order, which for mmlu_stem is another one than in the toolkit's file.

Files are read by `datasets`; no code of a repository is run.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightreasoner.data import user_files
from lightreasoner.data.user_files import Row
from lightreasoner.errors import ProblemsError
from lightreasoner.untrusted import exists, shown

SOURCE = "hub"
PATIENCE = 5.0
"""Seconds in which the hub has to answer."""

STEM_SUBJECTS = frozenset(
    {
        "abstract_algebra",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    }
)
DEMO_SUBJECTS = tuple(
    f"high_school_{subject}"
    for subject in ("mathematics", "biology", "physics", "chemistry", "computer_science")
)
"""The fields of the toolkit's five demos, in its order; each gives its first question of `dev`."""


def _all(row: Row) -> bool:
    return True


@dataclass(frozen=True)
class HubSet:
    """A set of problems on the hub.

    `splits` maps our splits to expressions of `datasets`; the rows of all `configurations` follow
    one another. `file` names the one file of the test split where the repository holds many sets.
    """

    repository: str
    revision: str
    splits: Mapping[str, str] = field(default_factory=lambda: {"test": "test"})
    configurations: tuple[str | None, ...] = (None,)
    file: str | None = None
    keep: Callable[[Row], bool] = _all


# Columns as the repositories' cards or public code that reads them show them; each commit is named
# by the hub's own pages or by public evaluation code (lighteval for math_tasks).
SETS: dict[str, HubSet] = {
    # question, answer (the worked solution, then #### and the number)
    "gsm8k": HubSet(
        "openai/gsm8k",
        "740312add88f781978c0658806c59bc2815b9866",
        {"train": "train", "test": "test"},
        ("main",),
    ),
    # problem, level, type, solution; 5,000 rows of test in seven configurations
    "math": HubSet(
        "EleutherAI/hendrycks_math",
        "21a5633873b6a120296cce3e2df9d5550074f4a3",
        {"train": "train", "test": "test"},
        (
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        ),
    ),
    # problem, solution, answer, subject, level, unique_id
    "math500": HubSet("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
    # ID, Body, Question, Equation, Answer (text), Type, question_concat; 700 and 300 rows
    "svamp": HubSet(
        "ChilleD/SVAMP", "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef", {"test": "train+test"}
    ),
    # body, question, solution_type, answer, formula; 2,305 rows of which 2,215 stay
    "asdiv": HubSet(
        "EleutherAI/asdiv",
        "8f95807222d87b4c688c3c22a6ba2801e1fa03e2",
        {"test": "validation"},
        keep=lambda row: ";" not in row["answer"],
    ),
    # problem, solution, type, idx: by its size the toolkit's file
    "minerva_math": HubSet(
        "svc-huggingface/minerva-math", "aec85355cf57a4337f73d1bb03233288cb0344df"
    ),
    # by its size the toolkit's file, of 675 rows (OE_TO_maths_en_COMP of Hothan/OlympiadBench has
    # 674): id, subfield, context, question, solution, final_answer
    "olympiadbench": HubSet(
        "HuggingFaceTB/math_tasks",
        "3d34f1076f279000b9315583dcdacfd288898283",
        file="data/olympiadbench/test.jsonl",
    ),
    # question, subject, choices, answer (the index of a choice); dev has five rows a subject
    "mmlu_stem": HubSet(
        "cais/mmlu",
        "c30699e8356da336a370243923dbaf21066bb9fe",
        {"test": "test", "dev": "dev"},
        ("all",),
        keep=lambda row: row["subject"] in STEM_SUBJECTS,
    ),
}


def find(source: str, set_name: str) -> HubSet:
    """The set that `hub`, or `owner/name@commit`, means by a name; nothing is fetched.

    A repository of the table is read as there, at the commit given; any other by its splits' names.
    """
    if source == SOURCE:
        if set_name not in SETS:
            raise ProblemsError(
                f"hub has no set {shown(set_name)}, only {', '.join(SETS)}; for any other give "
                "owner/name@commit as the source"
            )
        return SETS[set_name]
    repository, _, revision = source.partition("@")
    names = [name for name, known in SETS.items() if known.repository == repository]
    if not names:
        return HubSet(repository, revision, {name: name for name in ("train", "test", "dev")})
    if set_name not in names:
        raise ProblemsError(
            f"{source}: read as the set {names[0]}, got the name {shown(set_name)}; name it "
            f"{names[0]}"
        )
    return replace(SETS[set_name], revision=revision)


def check(source: str, set_name: str, split: str) -> None:
    """Refuse a name or a split that the source cannot have, and a folder in the repository's place;
    nothing is fetched."""
    found = find(source, set_name)
    _expression(found, split)
    _refuse_namesake(found)


def read_split(found: HubSet, split: str) -> list[Row]:
    """The rows of a set's split, in the repository's order. Raises ProblemsError."""
    expression = _expression(found, split)
    _refuse_namesake(found)
    loaded = [_load(found, name, expression) for name in found.configurations]
    return [row for part in loaded for row in part if found.keep(row)]


def demo_rows(found: HubSet) -> list[Row]:
    """The rows of a set's `dev` split that serve as demos: the first of each of DEMO_SUBJECTS."""
    by_subject: dict[Any, Row] = {}
    for row in read_split(found, "dev"):
        by_subject.setdefault(row.get("subject"), row)
    missing = [subject for subject in DEMO_SUBJECTS if subject not in by_subject]
    if missing:
        raise ProblemsError(
            f"{found.repository}@{found.revision}: its dev split, for the demos, has no row of "
            f"subject {missing[0]}; give a directory with demos.json"
        )
    return [by_subject[subject] for subject in DEMO_SUBJECTS]


@functools.cache
def identity() -> str:
    """What identifies the source `hub`, in 36 characters: a digest of all that is pinned."""
    pins = {
        name: [
            known.repository,
            known.revision,
            known.configurations,
            known.file,
            dict(known.splits),
        ]
        for name, known in SETS.items()
    }
    return "hub:" + hashlib.md5(json.dumps(pins, sort_keys=True).encode()).hexdigest()


def _expression(found: HubSet, split: str) -> str:
    if split not in found.splits:
        raise ProblemsError(
            f"{found.repository}: has no {split} split, only {' and '.join(found.splits)}; name "
            "another set or give a local file"
        )
    return found.splits[split]


def _refuse_namesake(found: HubSet) -> None:
    """`datasets` would read a folder of the repository's name in the current one, at any commit."""
    path = Path(found.repository)
    if not path.is_absolute() and exists(path):
        raise ProblemsError(
            f"hub data set {found.repository}@{found.revision}: {path} lies in the current folder "
            "and would be read in its place; rename it, run elsewhere, or give it as the source"
        )


def _load(found: HubSet, configuration: str | None, expression: str) -> list[Row]:
    import datasets

    try:
        with _without_waiting(found.repository):
            loaded = datasets.load_dataset(
                found.repository,
                configuration,
                split=expression,
                revision=found.revision,
                data_files={"test": found.file} if found.file else None,
            )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        detail = (str(error) or "no detail").splitlines()[0]
        raise ProblemsError(
            f"hub data set {found.repository}@{found.revision}, split {expression!r}, cannot be "
            f"loaded ({type(error).__name__}: {detail}); check the network or give a local file"
        ) from error
    return user_files.rows_of(loaded.with_format("arrow")[:])


@contextlib.contextmanager
def _without_waiting(repository: str) -> Iterator[None]:
    """Where the hub does not answer, look at what was fetched before, and no further.

    Its clients would try again for half a minute, with every file.
    """
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    is_away = not any(before) and not Path(repository).is_dir() and not _answers(constants.ENDPOINT)
    try:
        for place in places if is_away else ():
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _answers(url: str) -> bool:
    """Whether a server says anything at all, as its clients would ask it (proxies and all)."""
    import httpx2
    from huggingface_hub import get_session

    try:
        get_session().head(url, timeout=PATIENCE)
    except httpx2.HTTPError:
        return False
    return True
