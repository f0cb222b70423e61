"""Sample sets as the authors' JSONL (jsonl.py), and back.

Text does not show where its tokens end. token_boundaries.py recovers that and reports where it
cannot; such rows are left out of an import, counted, and listed in `excluded.csv` beside the
tables.
"""

import logging
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lightreasoner.authors import jsonl
from lightreasoner.authors.jsonl import Line
from lightreasoner.authors.token_boundaries import recover
from lightreasoner.data import problems
from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference import loading, prompts
from lightreasoner.storage import artifacts, aside, outputs, tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightreasoner.config import PromptStyle

log = logging.getLogger(__name__)


def export_file(samples_dir: Path, problems_dir: Path, expert_dir: Path, out: Path) -> int:
    """Write a sample set as the authors' JSONL, whole or not at all; returns how many rows.

    The questions come from `problems_dir`. Warns if a problem's samples come from several
    trajectories, which the format cannot distinguish. Raises ProblemsError for a problem that is
    not there, ArtifactError for a sample without a KL, which their format requires.
    """
    tokenizer = loading.load_tokenizer(expert_dir)
    samples, trajectories = tables.read_sample_set(samples_dir)
    written = {row["problem_id"]: row["completion_ids"] for row in trajectories.to_pylist()}
    read = problems.read_problems(problems_dir / "problems.jsonl")
    questions = {problem.id: problem.question for problem in read}
    lines = []
    for number, row in enumerate(samples.to_pylist(), start=1):
        id_, step = row["problem_id"], row["step"]
        question = questions.get(problems.problem_of(id_))
        if question is None:
            raise ProblemsError(
                f"{problems_dir}: no problem {printable(id_)}; give the problems that the samples "
                "come from"
            )
        if row["kl"] is None:
            raise ArtifactError(
                f"{samples_dir}: the samples of {printable(id_)} have no KL, which the authors' "
                "format needs; export a set that select made"
            )
        prefix = tokenizer.decode(written[id_][:step])
        label = row["token_ids"], row["weights"], row["kl"]
        lines.append(Line(number, question, step, prefix, *label))
    _warn_of_several(samples["problem_id"].to_pylist())
    artifacts.write_text(out, "".join(jsonl.write_line(line, tokenizer) for line in lines))
    return len(lines)


def _warn_of_several(trajectory_ids: list[str]) -> None:
    counts = Counter(problems.problem_of(id_) for id_ in dict.fromkeys(trajectory_ids))
    several = [problem for problem, n in counts.items() if n > 1]
    if several:
        log.warning(
            "samples export: %d of %d problems have samples of several trajectories, the first is "
            "%s; the authors' format identifies a sample only by its question, so no import, not "
            "even `samples import`, can distinguish them",
            len(several),
            len(counts),
            several[0],
        )


EXACT = 1e-6  # how far float32 weights are off 1


@dataclass(frozen=True)
class Excluded:
    """A row that was not imported, and why."""

    line: int
    problem_id: str
    step: int
    reason: str


@dataclass(frozen=True)
class Imported:
    """The result of an import: the file's rows, the samples made from them, and the rows left
    out."""

    rows: int
    samples: int
    excluded: list[Excluded]


def import_file(
    path: Path, expert_dir: Path, style: "PromptStyle", problems_dir: Path | None, out: Path
) -> Imported:
    """Write one of the authors' files as a sample set that `finetune` can train on, a new
    directory.

    `style` is the prompt that the expert saw. Problem ids are those of `problems_dir`; without it
    `authors/<n>`, in the file's order. Raises ArtifactError for a malformed file, if no row is
    left or if `out` holds any file, ProblemsError for a question that is not among the problems.
    """
    outputs.check_new(out)
    tokenizer = loading.load_tokenizer(expert_dir)
    lines = jsonl.read_samples(path, tokenizer)
    ids = _problem_ids(lines, problems_dir, path)
    context = loading.context_length(expert_dir)
    trajectories, excluded = _trajectories(lines, ids, style, tokenizer, context)
    gone = {row.line for row in excluded}
    samples = [
        (ids[line.question], line.step, line.token_ids, _normalised(line.weights), line.kl)
        for line in lines
        if line.number not in gone
    ]
    if not samples:
        raise ArtifactError(
            f"{path}: none of {len(lines)} rows can be imported; the first, line "
            f"{excluded[0].line}: {excluded[0].reason}"
        )
    result = Imported(len(lines), len(samples), excluded)
    _write_set(samples, trajectories, result, _provenance(path, expert_dir, style, result), out)
    return result


def _normalised(weights: list[float]) -> list[float]:
    """Weights that sum to 1; those computed in bfloat16 do only approximately."""
    total = math.fsum(weights)
    return weights if abs(total - 1) <= EXACT else [weight / total for weight in weights]


def _trajectories(
    lines: list[Line],
    ids: dict[str, str],
    style: "PromptStyle",
    tokenizer: "PreTrainedTokenizerBase",
    context: int,
) -> tuple[list[tuple[Any, ...]], list[Excluded]]:
    """The rows of `trajectories.parquet`, and the lines that are left out, in the file's order."""
    by_question: dict[str, list[Line]] = {}
    for line in lines:
        by_question.setdefault(line.question, []).append(line)
    trajectories, excluded = [], []
    encoded = prompts.encode_prompts(list(by_question), style, tokenizer)
    for (question, rows), prompt_ids in zip(by_question.items(), encoded, strict=True):
        completion_ids, left_out = _trajectory(rows, tokenizer, context - len(prompt_ids))
        excluded += [
            Excluded(line.number, ids[question], line.step, reason) for line, reason in left_out
        ]
        if len(left_out) < len(rows):
            trajectories.append((ids[question], prompt_ids, completion_ids, "imported"))
    return trajectories, sorted(excluded, key=lambda row: row.line)


def _problem_ids(lines: list[Line], problems_dir: Path | None, path: Path) -> dict[str, str]:
    """The id of every question, in the order of the lines."""
    questions = list(dict.fromkeys(line.question for line in lines))
    if problems_dir is None:
        return {question: f"authors/{index:05d}" for index, question in enumerate(questions)}
    read = problems.read_problems(problems_dir / "problems.jsonl")
    known = {problem.question: problem.id for problem in reversed(read)}
    for line in lines:
        if line.question not in known:
            raise ProblemsError(
                f"{path}:{line.number}: the question {line.question[:40]!r} is not in "
                f"{problems_dir}; give the problems that the samples come from, or none"
            )
    return {question: known[question] for question in questions}


def _trajectory(
    rows: list[Line], tokenizer: "PreTrainedTokenizerBase", room: int
) -> tuple[list[int], list[tuple[Line, str]]]:
    """The completion's ids up to the last row that is kept, and the other rows, with the
    reasons."""
    ids, faults = recover([(row.step, row.prefix) for row in rows], tokenizer)
    left_out, steps = [], set()
    for row, fault in zip(rows, faults, strict=True):
        if row.step in steps:
            fault = fault or "an earlier line has the same question and step"
        elif row.step > room:
            fault = fault or "prompt and prefix exceed the model's context"
        if fault:
            left_out.append((row, fault))
        else:
            steps.add(row.step)
    return ids[: max(steps, default=0)], left_out


def _provenance(
    path: Path, expert_dir: Path, style: "PromptStyle", result: Imported
) -> dict[str, Any]:
    return {
        "import": {
            "file_md5": artifacts.digest(path),
            "tokenizer": artifacts.digest(expert_dir / "tokenizer.json"),
            "style": style,
            "rows": result.rows,
            "samples": result.samples,
            "excluded": len(result.excluded),
        }
    }


def _write_set(
    samples: list[tuple[Any, ...]],
    trajectories: list[tuple[Any, ...]],
    result: Imported,
    provenance: dict[str, Any],
    out: Path,
) -> None:
    """Write the tables and the list of excluded rows, and put the directory in place whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside.beside(out) as work:
        for name, schema, rows in (
            ("samples", tables.SAMPLES, samples),
            ("trajectories", tables.TRAJECTORIES, trajectories),
        ):
            frame = pd.DataFrame(rows, columns=schema.names)
            tables.write_table(frame, schema, work / f"{name}.parquet", provenance)
        names = list(Excluded.__dataclass_fields__)
        listed = pd.DataFrame([asdict(row) for row in result.excluded], columns=names)
        listed.to_csv(work / "excluded.csv", index=False)
        artifacts.place(Artifact(work, ""), out)
