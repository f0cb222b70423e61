r"""The baselines' sample sets: whole solutions, every token a one-hot sample (appendix F.4).

`keep` is rejection sampling: the expert's own solutions whose final answer is the gold answer.
`gold` is ground-truth supervision: the solutions that people wrote. Both are written as `select`
writes its samples, so that `finetune` and `merge` read them alike; `kl` is null, for no amateur is
asked.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.data import problems
from lightreasoner.data.problems import Problem, problem_of, set_of, solution_text
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.grading.grade import grade
from lightreasoner.grading.types import Answer, Outcome
from lightreasoner.inference import loading, prompts
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from lightreasoner.storage.fingerprint import running_code

if TYPE_CHECKING:
    from lightreasoner.progress import Watcher

FAULTS = ("without a solution", "wrong", "too long")
NAMED = 3  # problems of each fault, in the log

log = logging.getLogger(__name__)


def keep(inputs: Inputs, config: None, work: Workspace, watcher: "Watcher") -> None:
    """Write the sample set of the trajectories that end by themselves with the gold answer.

    The verdict is the strict one. Of a problem's identical ones the first is kept. Raises
    SelectionError if none is kept, ArtifactError for a trajectory of another problem, ProblemsError
    for a problem without a gold answer.
    """
    problems_dir, trajectories = inputs["problems"].path, inputs["trajectories"]
    read = problems.read_answered(problems_dir / "problems.jsonl", "keep (rejection sampling)")
    by_id = {problem.id: problem for problem in read}
    rows = _read(trajectories)
    style = tables.provenance(trajectories.path / "trajectories.parquet").get("style", "")
    tokenizer = loading.load_tokenizer(inputs["expert"].path)
    found = [_problem(row, by_id, problems_dir) for row in rows]
    verdicts = judge(rows, found, style, tokenizer)
    correct = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict == "correct"]
    kept = _distinct(correct)
    counts = {
        "kept": len(kept),
        "duplicate": len(correct) - len(kept),
        **{name: verdicts.count(name) for name in ("wrong", "unparsed", "timeout", "truncated")},
    }
    if not kept:
        raise SelectionError(
            f"none of {len(rows)} generated solutions is correct and complete: {_listed(counts)}; "
            "generate more of them (n with a temperature, n_problems) or longer ones "
            "(max_new_tokens)"
        )
    _write(kept, "keep", counts, trajectories, work.out)
    watcher.progress(1, 1, "sample sets")


def judge(
    rows: Sequence[dict[str, Any]], found: Sequence[Problem], style: str, tokenizer: Any
) -> list[str]:
    """What each trajectory of a problem is: an outcome of the strict verdict, or truncated.

    It is truncated if the token limit ended it or if it goes on after its answer (a style's stop
    word): neither shows how a solution ends.
    """
    texts = [_complete(row, style, tokenizer) for row in rows]
    pairs = zip(texts, found, strict=True)
    answers = [_answer(text, problem) for text, problem in pairs if text is not None]
    grades = iter(grade(answers))
    return ["truncated" if text is None else next(grades).strict for text in texts]


def _complete(row: dict[str, Any], style: str, tokenizer: Any) -> str | None:
    """A trajectory's text; None if it is truncated."""
    stopped = row["finish_reason"] == "stop"
    text, cut = prompts.response(row["completion_ids"], stopped, style, tokenizer)
    return None if cut or not stopped else text


def _answer(text: str, problem: Problem) -> Answer:
    return Answer(text, problem, set_of(problem.id))


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first of each problem's identical completions, in order."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        first.setdefault((problem_of(row["problem_id"]), *row["completion_ids"]), row)
    return list(first.values())


def gold(inputs: Inputs, config: None, work: Workspace, watcher: "Watcher") -> None:
    """Write the sample set of the problems' own solutions, after their trajectories' prompts.

    A solution ends with the token that ends the expert's own responses. One that is missing, that
    does not grade as correct or that exceeds the expert's context is counted and left out. Raises
    SelectionError if none is left, ArtifactError for a problem without a trajectory, ProblemsError
    for one without a gold answer.
    """
    expert, trajectories = inputs["expert"].path, inputs["trajectories"]
    path = inputs["problems"].path / "problems.jsonl"
    read = problems.read_answered(path, "gold (SFT, ground truth)")
    tokenizer = loading.load_tokenizer(expert)
    end = loading.end_id(expert, tokenizer)
    context = loading.context_length(expert)
    rows = _solutions(read, _read(trajectories), tokenizer, end)
    faults = _faults(read, rows, context)
    kept = [row for row, fault in zip(rows, faults, strict=True) if fault is None]
    counts = {"kept": len(kept), **{fault: faults.count(fault) for fault in FAULTS}}
    _name([problem.id for problem in read], faults)
    if not kept:
        raise SelectionError(
            f"none of {len(read)} problems has a solution to learn: {_listed(counts)}; give "
            "problems with solutions (GSM8K's answers have theirs before ####)"
        )
    _write(kept, "gold", counts, trajectories, work.out)
    watcher.progress(1, 1, "sample sets")


def _solutions(
    read: Sequence[Problem], trajectories: list[dict[str, Any]], tokenizer: Any, end: int
) -> list[dict[str, Any]]:
    """A trajectory per problem: its prompt as it was sent, then its own solution."""
    sent = {row["problem_id"]: row["prompt_ids"] for row in trajectories}
    missing = [problem.id for problem in read if problem.id not in sent]
    if missing:
        raise ArtifactError(
            f"{len(missing)} problems have no trajectory, the first is {missing[0]}; give the "
            "trajectories of these problems"
        )
    return [
        {
            "problem_id": problem.id,
            "prompt_ids": sent[problem.id],
            "completion_ids": [
                *prompts.continuation(solution_text(problem), sent[problem.id], tokenizer), end
            ],
            "finish_reason": "stop",
        }
        for problem in read
    ]  # fmt: skip


def _faults(
    read: Sequence[Problem], rows: Sequence[dict[str, Any]], context: int
) -> list[str | None]:
    """Why each problem's solution is not taught, one of FAULTS; None if it is."""
    texts = [solution_text(problem) for problem in read]
    grades = grade([_answer(text, problem) for text, problem in zip(texts, read, strict=True)])
    return [
        _fault(text, each.strict, len(row["prompt_ids"]) + len(row["completion_ids"]) > context)
        for text, each, row in zip(texts, grades, rows, strict=True)
    ]


def _fault(text: str, verdict: Outcome, too_long: bool) -> str | None:
    if not text:
        return "without a solution"
    if verdict != "correct":
        return "wrong"
    return "too long" if too_long else None


def one_hot(trajectories: pa.Table) -> pa.Table:
    """Samples (schema `tables.SAMPLES`) of every step, all weight on the token written there."""
    lengths = pc.list_value_length(trajectories["completion_ids"]).to_numpy()
    tokens = pa.concat_arrays(trajectories["completion_ids"].chunks).flatten()
    bounds = np.arange(len(tokens) + 1, dtype=np.int32)
    steps = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pa.table(
        [
            trajectories["problem_id"].take(np.repeat(np.arange(len(lengths)), lengths)),
            steps.astype(np.int32),
            pa.ListArray.from_arrays(bounds, tokens),
            pa.ListArray.from_arrays(bounds, np.ones(len(tokens), dtype=np.float32)),
            pa.nulls(len(tokens), pa.float32()),
        ],
        schema=tables.SAMPLES,
    )


def _write(
    rows: Sequence[dict[str, Any]],
    source: str,
    counts: dict[str, int],
    trajectories: Artifact,
    out: Path,
) -> None:
    provenance = {
        "source": source,
        "steps": "all",
        "label": "one_hot",
        "counts": counts,
        "trajectories_digest": trajectories.digest,
        "code": running_code("lightreasoner.sampling.whole_solutions"),
        "generate": tables.provenance(trajectories.path / "trajectories.parquet"),
    }
    log.info("%s: %s", source, _listed(counts))
    table = pa.Table.from_pylist(list(rows), tables.TRAJECTORIES)
    tables.write_table(one_hot(table), tables.SAMPLES, out / "samples.parquet", provenance)
    tables.write_table(table, tables.TRAJECTORIES, out / "trajectories.parquet", provenance)


def _read(trajectories: Artifact) -> list[dict[str, Any]]:
    path = trajectories.path / "trajectories.parquet"
    return tables.read_table(path, tables.TRAJECTORIES).to_pylist()


def _problem(row: dict[str, Any], by_id: dict[str, Problem], problems_dir: Path) -> Problem:
    problem = by_id.get(problem_of(row["problem_id"]))
    if problem is None:
        raise ArtifactError(
            f"{problems_dir}: no problem of trajectory {row['problem_id']}; give the problems "
            "that the trajectories are of"
        )
    return problem


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _name(ids: Sequence[str], faults: Sequence[str | None]) -> None:
    """Say which problems were left out, the first of each fault."""
    for fault in FAULTS:
        found = [id_ for id_, its in zip(ids, faults, strict=True) if its == fault]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            log.warning("gold: %s: %s%s", fault, ", ".join(found[:NAMED]), more)
