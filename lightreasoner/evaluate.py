"""Evaluate: a model's greedy pass@1 on sets of problems, with 95% intervals.

The problems are drawn by the section's seed alone, so that every model of a comparison answers the
same ones. All sets are read and fitted to the model's context before its weights are loaded.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lightreasoner import models, prompts, sources, tables
from lightreasoner.decode import Completion, decode
from lightreasoner.grading import grade
from lightreasoner.problems import Problem
from lightreasoner.statistics import wilson_interval

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightreasoner.config import Compute, Evaluate
    from lightreasoner.progress import Watcher


def write_scores(
    model_dir: Path, config: "Evaluate", compute: "Compute", out: Path, watcher: "Watcher"
) -> None:
    """Write `scores.parquet`, one row a problem in the sets' order, and `summary.json`.

    `compute` names the device and dtype, neither of them `auto`. Raises ProblemsError for a source
    that cannot be read or a prompt that leaves no room in the context, ModelError for the model.
    """
    tokenizer = models.load_tokenizer(model_dir)
    drawn, prompt_ids = _read(config, tokenizer, models.context_length(model_dir))
    completions = decode(
        models.load_model(model_dir, compute.device, compute.dtype),
        prompt_ids,
        models.stop_ids(model_dir, tokenizer),
        config.max_new_tokens,
        batch_size=compute.batch_size,
        on_done=lambda done, total: watcher.progress(done, total, "problems"),
    )
    rows = [
        _row(name, problem, completion, config.style, tokenizer)
        for (name, problem), completion in zip(drawn, completions, strict=True)
    ]
    _write(pd.DataFrame(rows), config, out)


def summarise(scores: pd.DataFrame) -> dict[str, Any]:
    """What one set's rows amount to; accuracy and ci95 (Wilson) are fractions in [0, 1].

    `truncated` answers ran to max_new_tokens, `no_answer` ones boxed nothing; neither is correct
    by itself, and both stay in `n`.
    """
    n = len(scores)
    correct = int((scores["verdict"] == "correct").sum())
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci95": list(wilson_interval(correct, n)),
        "truncated": int((scores["finish_reason"] == "length").sum()),
        "no_answer": int((scores["verdict"] == "unparsed").sum()),
    }


def _read(
    config: "Evaluate", tokenizer: "PreTrainedTokenizerBase", context: int
) -> tuple[list[tuple[str, Problem]], list[list[int]]]:
    """Every problem with its set, in the sets' order, and their prompts with their sets' demos."""
    drawn: list[tuple[str, Problem]] = []
    prompt_ids: list[list[int]] = []
    for name in dict.fromkeys(config.problem_sets):
        found = sources.read(config.source, name, "test", config.n_problems, config.seed)
        drawn += [(name, problem) for problem in found]
        prompt_ids += prompts.encode_all(
            found,
            config.style,
            tokenizer,
            config.max_new_tokens,
            context,
            "evaluate.max_new_tokens",
            sources.demos(config.source, name),
        )
    return drawn, prompt_ids


def _row(
    problem_set: str,
    problem: Problem,
    completion: Completion,
    style: str,
    tokenizer: "PreTrainedTokenizerBase",
) -> dict[str, Any]:
    """One row of scores.parquet: the response without the token or the word that ended it."""
    stopped = completion.finish_reason == "stop"
    response, cut = prompts.response(completion.ids, stopped, style, tokenizer)
    graded = grade(response, problem.answer)
    return {
        "problem_set": problem_set,
        "problem_id": problem.id,
        "question": problem.question,
        "response": response,
        "extracted": graded.answer,
        "gold": problem.answer,
        "verdict": graded.verdict,
        "tokens": len(completion.ids),
        "finish_reason": "stop" if stopped or cut else "length",
    }


def _write(scores: pd.DataFrame, config: "Evaluate", out: Path) -> None:
    conditions = config.model_dump(mode="json", include={"style", "max_new_tokens", "seed"})
    tables.write(scores, tables.SCORES, out / "scores.parquet", conditions)
    summary = {name: summarise(rows) for name, rows in scores.groupby("problem_set", sort=False)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
