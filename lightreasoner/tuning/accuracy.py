"""Accuracy on held-out problems while the expert is tuned: a reading that uses their answers.

Off unless `finetune.evaluate_every` says how often. It is a curve to look at: it stops nothing and
keeps no adapter, and as it draws nothing, the adapter is the same to the byte without it. The
problems are validation's: of the training source and not tuned on. Each is asked once, greedily, by
the prompt of its trajectory.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightreasoner.data.problems import Problem, read_answered, set_of
from lightreasoner.errors import ProblemsError
from lightreasoner.grading.grade import grade
from lightreasoner.grading.types import Answer
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.decode import decode
from lightreasoner.inference.transformers_engine import response_of, stop_word_ends
from lightreasoner.tuning import ranks
from lightreasoner.tuning.rows import TrainingRow, origin, prompts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lightreasoner.config import Finetune
    from lightreasoner.storage.artifacts import Inputs

SETTING, LIMIT = "finetune.evaluate_every", "finetune.evaluate_max_new_tokens"
MOST = 64
"""Problems of a reading; the 95% interval of an accuracy on so many is up to 24 points wide."""


@dataclass(frozen=True)
class Accuracy:
    """Problems with the token ids of their prompts, and how responses to them are decoded;
    `batch_size` None is as many rows as fit."""

    asked: Sequence[tuple[Problem, list[int]]]
    tokenizer: "PreTrainedTokenizerBase"
    style: str
    stop_ids: set[int]
    max_new_tokens: int
    batch_size: int | None = None

    def measure(self, model: "PreTrainedModel") -> float:
        """The share of the problems that the model answers correctly by the strict verdict.

        Several ranks share the problems. Leaves the model in evaluation mode.
        """
        model.eval()
        right = torch.tensor(float(self._right(model)), device=model.device)
        return ranks.total(right).item() / len(self.asked)

    def _right(self, model: "PreTrainedModel") -> int:
        """How many of this rank's problems it answers correctly."""
        mine = ranks.share(self.asked)
        if not mine:
            return 0
        completions = decode(
            model,
            [ids for _, ids in mine],
            self.stop_ids,
            self.max_new_tokens,
            batch_size=self.batch_size,
            is_over=stop_word_ends(self.style, self.tokenizer),
        )
        answers = [
            Answer(
                response_of(completion, self.style, self.tokenizer).text,
                problem,
                set_of(problem.id),
                prompts.begun(self.tokenizer.decode(ids)),
            )
            for (problem, ids), completion in zip(mine, completions, strict=True)
        ]
        return sum(each.strict == "correct" for each in grade(answers))


def of(
    inputs: "Inputs",
    held_out: Sequence[TrainingRow],
    tokenizer: "PreTrainedTokenizerBase",
    config: "Finetune",
    batch_size: int | None,
) -> Accuracy:
    """What `finetune`'s inputs give to ask: the problems of the rows held out, at most MOST of
    them, drawn by the section's seed.

    Raises ProblemsError where a problem has no gold answer, where none is held out, and for a
    prompt that leaves no room in the expert's context.
    """
    expert, samples_dir = inputs["expert"].path, inputs["samples"].path
    read = read_answered(inputs["problems"].path / "problems.jsonl", SETTING)
    sent = prompts_of(samples_dir, held_out)
    found = [(problem, sent[problem.id]) for problem in read if problem.id in sent]
    if not found:
        raise ProblemsError(
            f"{SETTING} {config.evaluate_every}: none of the {len(read)} problems is among the "
            f"{len(sent)} held out of {samples_dir}; give the problems that its samples are of, or "
            "set it to 0"
        )
    asked = random.Random(config.seed).sample(found, min(MOST, len(found)))
    lengths, limit = [len(ids) for _, ids in asked], config.evaluate_max_new_tokens
    context = loading.context_length(expert)
    prompts.check_room([problem for problem, _ in asked], lengths, limit, context, LIMIT)
    style, stop_ids = origin(samples_dir).get("style", ""), loading.stop_ids(expert, tokenizer)
    return Accuracy(asked, tokenizer, style, stop_ids, limit, batch_size)
