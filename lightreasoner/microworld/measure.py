"""Greedy accuracy of a model on the micro-world's problems.

The pipeline's own evaluation is elsewhere; this one serves the recipe, which knows its prompt and
the form of its answers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from lightreasoner.microworld.corpus import prompt
from lightreasoner.problems import Problem

# The longest solution of the world is below 60 tokens.
MAX_NEW_TOKENS = 64

_BOXED = re.compile(r"\\boxed\{(\d+)\}")


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` problems."""

    correct: int
    n: int

    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        z, share = 1.96, self.correct / self.n
        scale = 1 + z * z / self.n
        centre = (share + z * z / (2 * self.n)) / scale
        half = z * sqrt(share * (1 - share) / self.n + z * z / (4 * self.n * self.n)) / scale
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval()
        share = 100 * self.correct / self.n
        return f"{share:.1f}% [{100 * low:.0f}, {100 * high:.0f}], n = {self.n}"


@torch.no_grad()
def answer(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    batch_size: int = 128,
) -> list[list[int]]:
    """Greedy answers as token ids, up to the end token, in the problems' order."""
    ids = [tokenizer(prompt(problem.question))["input_ids"] for problem in problems]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    answers: list[list[int]] = [[] for _ in ids]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _left_padded([ids[row] for row in rows], tokenizer.pad_token_id)
        longest = batch["input_ids"].shape[1]
        output = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        for row, tokens in zip(rows, output[:, longest:].tolist(), strict=True):
            end = next((i for i, t in enumerate(tokens) if t == tokenizer.eos_token_id), None)
            answers[row] = tokens if end is None else tokens[: end + 1]
    return answers


def _left_padded(ids: list[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, ids))
    pads = [longest - len(row) for row in ids]
    return {
        "input_ids": torch.tensor([[pad_id] * n + row for n, row in zip(pads, ids, strict=True)]),
        "attention_mask": torch.tensor([[0] * n + [1] * (longest - n) for n in pads]),
    }


def accuracy(
    tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], answers: list[list[int]]
) -> Accuracy:
    """Exact match of the last boxed number."""
    correct = 0
    for problem, tokens in zip(problems, answers, strict=True):
        boxed = _BOXED.findall(tokenizer.decode(tokens))
        correct += bool(boxed) and boxed[-1] == problem.answer
    return Accuracy(correct, len(problems))
