"""Tables of scores that may be set side by side: the same problems, conditions and prompts.

A difference between two models says something about the models only where nothing else differs.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import tables

KEYS = ["problem_set", "problem_id", "k", "question", "gold"]
"""The columns in which two rows for the same problem must agree."""

PROMPT = ("style", "shots")
"""The conditions that the prompts follow from."""

REMEDY = "evaluate both models with the same parameters"


@dataclass(frozen=True)
class Scores:
    """The rows of a scores.parquet, and the conditions (style, token limit, seed) it names."""

    path: Path
    rows: pd.DataFrame
    conditions: dict[str, Any]


def read_scores(directory: Path) -> Scores:
    """Read a directory's scores.parquet. Raises ArtifactError."""
    path = directory / "scores.parquet"
    return Scores(path, tables.read_table(path, tables.SCORES).to_pandas(), tables.provenance(path))


def check_comparable(first: Scores, second: Scores, free: Collection[str] = ()) -> None:
    """Raise ArtifactError unless problems, questions, golds and conditions are the same, and under
    one style with as many demos the prompts.

    `free` names conditions that may differ; the engine always may, as it is no condition of theirs.
    """
    here, there = (
        set(scores.rows[KEYS].itertuples(index=False, name=None)) for scores in (first, second)
    )
    differing = sorted(here ^ there)
    if differing:
        raise ArtifactError(
            f"{first.path} and {second.path} are not of the same problems: {len(differing)} rows "
            f"differ, the first is {differing[0][1]} of {differing[0][0]}; {REMEDY}"
        )
    conditions = [
        {name: value for name, value in scores.conditions.items() if name not in {"engine", *free}}
        for scores in (first, second)
    ]
    if conditions[0] != conditions[1]:
        raise ArtifactError(
            f"{first.path} and {second.path} were made under different conditions "
            f"({conditions[0]} and {conditions[1]}); {REMEDY}"
        )
    if all(first.conditions.get(name) == second.conditions.get(name) for name in PROMPT):
        check_prompts(first, second)


def check_prompts(first: Scores, second: Scores) -> None:
    """Raise ArtifactError unless both tables' prompts to the same problems are the same, to the
    byte: demos and chat templates may differ under one style.
    """
    both = first.rows.merge(second.rows, on=KEYS, suffixes=("_first", "_second"))
    other = both[both["prompt_first"] != both["prompt_second"]]
    if len(other):
        raise ArtifactError(
            f"{first.path} and {second.path} have different prompts for {len(other)} problems, "
            f"the first is {other['problem_id'].iloc[0]}; {REMEDY}"
        )
