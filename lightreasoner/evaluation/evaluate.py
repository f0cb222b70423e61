"""Evaluate: a model's responses to sets of problems, each with two verdicts (grading.py).

One greedy response per problem by default, or `n` drawn at a temperature. The problems are drawn by
the section's seed alone, so that every model of a comparison answers the same ones. All sets are
read and fitted to the model's context before its weights are loaded. Questions of like length make
a shard, which is answered by itself, so that a restart repeats at most the one that was under way.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lightreasoner import statistics
from lightreasoner.data import demos, sources
from lightreasoner.data.problems import BOX, Problem, trajectory_id
from lightreasoner.data.reading import Reading
from lightreasoner.grading.grade import grade
from lightreasoner.grading.types import OUTCOMES, Answer, Grade
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.drawing import draw_seed
from lightreasoner.inference.engine import Completion, Engine, Response
from lightreasoner.inference.worker_pool import crew
from lightreasoner.serving import vllm_engine
from lightreasoner.serving.identity import identity
from lightreasoner.serving.vllm_endpoint import Asked
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from lightreasoner.storage.shards import Shards

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from transformers import PreTrainedTokenizerBase

    from lightreasoner.config import Evaluate
    from lightreasoner.inference.worker_pool import Crew
    from lightreasoner.progress import Watcher

log = logging.getLogger(__name__)

LIMIT = "evaluate.max_new_tokens"
RESPONSES = pa.schema({"text": pa.string(), "tokens": pa.int32(), "finish_reason": pa.string()})


@dataclass(frozen=True)
class Question:
    """A problem of a set, as it is asked for the k-th time, after the examples `demos`."""

    problem_set: str
    problem: Problem
    k: int
    prompt: str
    tokens: int
    demos: tuple[str, ...]


def write(
    inputs: Inputs,
    config: "Evaluate",
    work: Workspace,
    watcher: "Watcher",
    engine: Engine | None = None,
) -> None:
    """Write `scores.parquet`, one row per response in the sets' order, and `summary.json`.

    The inputs are a tuned `model` or the `expert` as it came. `engine` answers in place of this
    process. Raises ProblemsError for a source that cannot be read or a prompt that leaves no room
    in the context, ModelError for the model, EndpointError for an engine that is a server.
    """
    model = inputs.get("model") or inputs["expert"]
    tokenizer = loading.load_tokenizer(model.path)
    asked = read_questions(config, tokenizer, loading.context_length(model.path))
    order = sorted(range(len(asked)), key=lambda row: (asked[row].tokens, row))
    in_line = [asked[row] for row in order]
    name = engine.name if engine else identity(work.compute)
    with _crew(engine, model, tokenizer, in_line, config, work, watcher) as respondents:
        shards = Shards(work.scratch, RESPONSES, len(asked), respondents.size)
        pieces = shards.compute(
            respondents.pieces, lambda done: watcher.progress(done, len(asked), "responses")
        )
        responses = _in_order(pieces, order)
    _warn_of_equal_draws(config, responses)
    answers = [
        Answer(each.text, question.problem, question.problem_set, prompts.begun(question.prompt))
        for question, each in zip(asked, responses, strict=True)
    ]
    grades = grade(answers, lambda done, total: watcher.progress(done, total, "answers graded"))
    shown = {question.problem_set: list(question.demos) for question in asked}
    named = {} if config.shots is None else {"demos": shown}
    kept = {**conditions(config), **named, "engine": name}
    _write(_rows(asked, responses, grades), kept, work.out)


def read_questions(
    config: "Evaluate", tokenizer: "PreTrainedTokenizerBase", context: int
) -> list[Question]:
    """Every question, in the sets' order, rendered in the style and fitted to the context."""
    asked, reading = [], Reading(columns=config.columns)
    for name in dict.fromkeys(config.problem_sets):
        found = sources.draw_problems(
            config.source, name, "test", config.n_problems, config.seed, reading=reading
        )
        questions = [each.question for each in found]
        shown = demos.of(config.source, name, config.shots, config.seed, questions, reading)
        texts = prompts.render_prompts(questions, config.style, tokenizer, list(shown.values()))
        lengths = [len(prompts.tokenize(text, config.style, tokenizer)) for text in texts]
        prompts.check_room(found, lengths, config.max_new_tokens, context, LIMIT)
        asked += [
            Question(name, problem, k, text, tokens, tuple(shown))
            for problem, text, tokens in zip(found, texts, lengths, strict=True)
            for k in range(config.n)
        ]
    return asked


def _crew(
    engine: Engine | None,
    model: Artifact,
    tokenizer: "PreTrainedTokenizerBase",
    asked: list[Question],
    config: "Evaluate",
    work: Workspace,
    watcher: "Watcher",
) -> "AbstractContextManager[Crew]":
    """Who answers `asked`, which stand in the order of their length."""
    compute = work.compute
    if engine is not None:
        make = partial(_Respondent, partial(_itself, engine), asked, config.seed)
        return crew(make, compute.model_copy(update={"workers": 1}))
    from lightreasoner.inference import transformers_engine

    if compute.engine == "transformers":
        tokens = round(np.mean([question.tokens for question in asked]))
        answering = partial(
            transformers_engine.InProcess, model, tokenizer, config, compute, tokens,
            len(asked),
        )  # fmt: skip
        return crew(partial(_Respondent, answering, asked, config.seed), compute)
    wanted = Asked(
        [prompts.tokenize(each.prompt, config.style, tokenizer) for each in asked],
        [_seed(config.seed, each) for each in asked],
        loading.stop_ids(model.path, tokenizer),
        config.max_new_tokens,
        config.temperature,
        prompts.STOP_WORDS.get(config.style, ()),
        transformers_engine.stop_word_ends(config.style, tokenizer),
    )

    def table(_: range, completions: list[Completion]) -> pa.Table:
        return _table(
            [transformers_engine.response_of(each, config.style, tokenizer) for each in completions]
        )

    return vllm_engine.crew(model, wanted, table, work, watcher)


def _itself(engine: Engine) -> Engine:
    return engine


def _seed(seed: int, question: Question) -> int:
    return draw_seed(seed, trajectory_id(question.problem.id, question.k))


def _table(responses: list[Response]) -> pa.Table:
    return pa.Table.from_pylist([asdict(response) for response in responses], RESPONSES)


class _Respondent:
    """An engine, answering ranges of the questions `asked`."""

    def __init__(self, engine: Callable[[], Engine], asked: list[Question], seed: int):
        self.engine, self.asked, self.seed = engine(), asked, seed
        self.size = self.engine.batch_size

    def __call__(self, indices: range) -> pa.Table:
        """The rows of RESPONSES, asked together."""
        asked = self.asked[indices.start : indices.stop]
        seeds = [_seed(self.seed, each) for each in asked]
        return _table(self.engine.respond([each.prompt for each in asked], seeds))


def _in_order(pieces: Iterable[pa.Table], order: list[int]) -> list[Response]:
    """The responses by question, of pieces that hold question `order[i]` in row i.

    Not as one table: a column of text holds 2 GiB, and `take` makes one array of it.
    """
    answered = (Response(**row) for piece in pieces for row in piece.to_pylist())
    by_question = dict(zip(order, answered, strict=True))
    return [by_question[place] for place in range(len(order))]


def _warn_of_equal_draws(config: "Evaluate", responses: list[Response]) -> None:
    texts = np.array([each.text for each in responses], dtype=object).reshape(-1, config.n)
    if config.n > 1 and (texts == texts[:, :1]).all():
        log.warning(
            "all %d responses to every problem are equal: the engine seems to ignore the "
            "temperature of %s",
            config.n,
            config.temperature,
        )


def _rows(asked: list[Question], responses: list[Response], grades: list[Grade]) -> pd.DataFrame:
    """The columns of scores.parquet."""
    return pd.DataFrame(
        {
            "problem_set": [row.problem_set for row in asked],
            "problem_id": [row.problem.id for row in asked],
            "k": [row.k for row in asked],
            "question": [row.problem.question for row in asked],
            "prompt": [row.prompt for row in asked],
            "response": [each.text for each in responses],
            "gold": [row.problem.gold for row in asked],
            "extracted": [each.extracted for each in grades],
            "strict": [each.strict for each in grades],
            "pred": [each.pred for each in grades],
            "qwen": [each.qwen for each in grades],
            "tokens": [each.tokens for each in responses],
            "finish_reason": [each.finish_reason for each in responses],
        }
    )


def _write(scores: pd.DataFrame, conditions: dict[str, Any], out: Path) -> None:
    tables.write_table(scores, tables.SCORES, out / "scores.parquet", conditions)
    summary = {name: summarise(rows) for name, rows in scores.groupby("problem_set", sort=False)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def conditions(config: "Evaluate") -> dict[str, Any]:
    """What a comparison of two models must have in common, but for the style of the prompt."""
    own = config.shots
    shots = {
        name: len(demos.own(config.source, name)) if own is None else own
        for name in config.problem_sets
    }
    kept = {"style", "max_new_tokens", "n", "temperature", "seed"}
    return {**config.model_dump(mode="json", include=kept), "shots": shots}


def summarise(scores: pd.DataFrame) -> dict[str, Any]:
    """What one set's rows amount to; accuracies and intervals (95%) are fractions in [0, 1].

    `accuracy` and what stands beside it are by the strict verdict, `qwen` holds the same by the
    toolkit's. `truncated` responses ran to max_new_tokens, `no_answer` ones give no answer,
    `no_box` ones hold no box; none of them leaves `n`, the count of responses.
    """
    return {
        "problems": scores["problem_id"].nunique(),
        "n": len(scores),
        **verdicts(scores, "strict"),
        "truncated": int((scores["finish_reason"] == "length").sum()),
        "no_answer": int(scores["extracted"].isna().sum()),
        "no_box": int((~scores["response"].str.contains(BOX, regex=False)).sum()),
        "tokens": int(scores["tokens"].sum()),
        "qwen": verdicts(scores, "qwen"),
    }


def verdicts(scores: pd.DataFrame, verdict: str) -> dict[str, Any]:
    """How many responses have which outcome by one of the verdicts, the accuracy, its interval.

    With several responses per problem, also `pass_at` for some k and `maj_at` for all of them.
    """
    correct = scores[verdict] == "correct"
    per_problem = correct.groupby(scores["problem_id"], sort=False).mean()
    found: dict[str, Any] = {
        **{str(outcome): int((scores[verdict] == outcome).sum()) for outcome in OUTCOMES},
        "accuracy": float(correct.mean()),
        "ci95": list(statistics.accuracy_interval(per_problem.to_numpy())),
    }
    return found if scores["k"].max() == 0 else {**found, **_of_several(scores, verdict)}


def _of_several(scores: pd.DataFrame, verdict: str) -> dict[str, Any]:
    """pass@k for k in powers of two and n, and maj@n, means over the problems."""
    correct = scores[verdict] == "correct"
    votes = pd.Series(_votes(scores, verdict), scores.index, dtype=object)
    groups = correct.groupby(scores["problem_id"], sort=False)
    n = int(groups.size().iloc[0])
    sums = groups.sum()
    ks = sorted({1, n} | {1 << power for power in range(n.bit_length()) if 1 << power <= n})
    majority = [
        statistics.maj_at_n(votes[rows.index].tolist(), rows.tolist()) for _, rows in groups
    ]
    return {
        "pass_at": {
            str(k): float(np.mean([statistics.pass_at_k(n, int(c), k) for c in sums])) for k in ks
        },
        "maj_at": {str(n): float(np.mean(majority))},
    }


def _votes(scores: pd.DataFrame, verdict: str) -> list[str | None]:
    """What each response votes for: the toolkit's normal form of its answer, None without one.

    All right answers are one. Wrong ones that are equal in another form than that still split their
    votes, so that maj@n is an upper bound where they do.
    """
    answers = scores[{"strict": "extracted", "qwen": "pred"}[verdict]]
    return [
        "the right answer" if is_right else (pred or answer) if answer else None
        for is_right, answer, pred in zip(
            scores[verdict] == "correct",
            answers.astype(object).where(answers.notna(), None),
            scores["pred"].astype(object).where(scores["pred"].notna(), None),
            strict=True,
        )
    ]
