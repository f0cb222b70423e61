"""Rows to train on: a sample set's trajectories or prefixes with the labels at their positions.

A sample set is checked here before any model is loaded. What is held out is held out by problem,
so that no trajectory is in both parts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner.data.problems import Problem, problem_of, solution_text
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.inference import vocabulary
from lightreasoner.inference.prompts import continuation
from lightreasoner.storage import artifacts, tables, values

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainingRow:
    """A sequence and the samples trained on it: a label (ids, weights) at each of `positions`."""

    problem_id: str
    input_ids: list[int]
    positions: list[int]
    labels: list[tuple[list[int], list[float]]]


def read_rows(samples_dir: Path, batching: str) -> list[TrainingRow]:
    """The sample set as rows: one per sample (`sample`), or one per trajectory (any other
    batching).

    The label of step t stands where t is predicted: position len(prompt) + t - 1.
    """
    samples, trajectories = tables.read_sample_set(samples_dir)
    by_id = {row["problem_id"]: row for row in trajectories.to_pylist()}
    rows = []
    for problem_id, group in samples.to_pandas().groupby("problem_id", sort=False):
        trajectory = by_id[str(problem_id)]
        ids = trajectory["prompt_ids"] + trajectory["completion_ids"]
        first = len(trajectory["prompt_ids"]) - 1
        labels = [
            (tokens.tolist(), weights.tolist())
            for tokens, weights in zip(group["token_ids"], group["weights"], strict=True)
        ]
        positions = [first + int(step) for step in group["step"]]
        row = TrainingRow(str(problem_id), ids[: max(positions) + 1], positions, labels)
        rows += split_row(row) if batching == "sample" else [row]
    return rows


def split_row(row: TrainingRow) -> list[TrainingRow]:
    """One row per sample: the prefix alone, its label at the last position."""
    return [
        TrainingRow(row.problem_id, row.input_ids[: position + 1], [position], [label])
        for position, label in zip(row.positions, row.labels, strict=True)
    ]


def join_rows(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """One row for the rows of one trajectory: the longest's ids with the labels of all.

    Under causal attention a position does not see what follows it, so the labels keep their sense.
    """
    together: dict[str, list[TrainingRow]] = {}
    for row in rows:
        together.setdefault(row.problem_id, []).append(row)
    return [
        TrainingRow(
            name,
            max((row.input_ids for row in same), key=len),
            [position for row in same for position in row.positions],
            [label for row in same for label in row.labels],
        )
        for name, same in together.items()
    ]


def hold_out(
    rows: list[TrainingRow], share: float, seed: int
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """The rows to train on, and those of a share of the problems, drawn by `seed`.

    At least one problem of two or more is held out unless the share is 0.
    """
    names = list(dict.fromkeys(problem_of(row.problem_id) for row in rows))
    n = min(len(names) - 1, max(1, round(share * len(names)))) if share else 0
    drawn = set(random.Random(seed).sample(names, n))
    kept = [row for row in rows if problem_of(row.problem_id) not in drawn]
    return kept, [row for row in rows if problem_of(row.problem_id) in drawn]


def gold_rows(
    problems: Sequence[Problem],
    held_out: Sequence[TrainingRow],
    samples_dir: Path,
    tokenizer: "PreTrainedTokenizerBase",
) -> list[TrainingRow]:
    """The held-out problems' own solutions, one-hot at every token after the trajectory's prompt.

    Problems without a solution, or that are not among `problems`, have no row.
    """
    solutions = {problem.id: text for problem in problems if (text := solution_text(problem))}
    return [
        one_hot_row(name, ids, continuation(solutions[name], ids, tokenizer))
        for name, ids in prompts_of(samples_dir, held_out).items()
        if name in solutions
    ]


def prompts_of(samples_dir: Path, rows: Sequence[TrainingRow]) -> dict[str, list[int]]:
    """The token ids of the prompt of each of these rows' problems, in the trajectories' order."""
    wanted = {problem_of(row.problem_id) for row in rows}
    prompts: dict[str, list[int]] = {}
    for trajectory in tables.read_sample_set(samples_dir)[1].to_pylist():
        if (name := problem_of(trajectory["problem_id"])) in wanted:
            prompts.setdefault(name, trajectory["prompt_ids"])
    return prompts


def step_rows(samples_dir: Path, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """All steps of the trajectories of these rows' problems: the rows' labels at their positions,
    and labels of no token where the rows have none."""
    wanted = {problem_of(row.problem_id) for row in rows}
    labels = {
        (row.problem_id, position): label
        for row in rows
        for position, label in zip(row.positions, row.labels, strict=True)
    }
    whole = [
        one_hot_row(each["problem_id"], each["prompt_ids"], each["completion_ids"])
        for each in tables.read_sample_set(samples_dir)[1].to_pylist()
        if problem_of(each["problem_id"]) in wanted and each["completion_ids"]
    ]
    return [
        replace(row, labels=[labels.get((row.problem_id, at), ([], [])) for at in row.positions])
        for row in whole
    ]


def one_hot_row(problem_id: str, prompt_ids: list[int], completion_ids: list[int]) -> TrainingRow:
    """A row whose every completion token is the label of its own step."""
    first = len(prompt_ids) - 1
    return TrainingRow(
        problem_id,
        prompt_ids + completion_ids[:-1],
        list(range(first, first + len(completion_ids))),
        [([token], [1.0]) for token in completion_ids],
    )


def check_samples(samples_dir: Path, expert_dir: Path) -> None:
    """Refuse a sample set that this expert cannot be tuned on; loads no model.

    Raises SelectionError for an empty set, ArtifactError for one that is malformed (values.py), of
    another tokenizer or with ids outside the expert's vocabulary.
    """
    samples, trajectories = tables.read_sample_set(samples_dir)
    if not len(samples):
        raise SelectionError(f"{samples_dir}: has no samples; lower select.beta and select again")
    _check_tokenizer(samples_dir, expert_dir)
    size = vocabulary.vocabulary_size(expert_dir)
    for name, table in (("samples", samples), ("trajectories", trajectories)):
        values.check_ids(samples_dir / f"{name}.parquet", table, size, "expert")


def origin(samples_dir: Path) -> dict[str, Any]:
    """What a sample set's trajectories say of how they were written; empty if nothing."""
    said = tables.provenance(samples_dir / "trajectories.parquet")
    found: dict[str, Any] = said.get("generate") or said.get("import") or said
    return found


def _check_tokenizer(samples_dir: Path, expert_dir: Path) -> None:
    """Compare digests of tokenizer.json; a set without provenance names none and passes."""
    theirs = origin(samples_dir).get("tokenizer")
    ours = artifacts.digest(expert_dir / "tokenizer.json")
    if theirs not in (None, ours):
        raise ArtifactError(
            f"{samples_dir}: its token ids are of the tokenizer {theirs}, the expert's is {ours}; "
            "give samples made with this expert"
        )
