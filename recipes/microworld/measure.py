"""Greedy accuracy of a model on the micro-world's problems."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from lightreasoner.data.problems import Problem, set_of
from lightreasoner.grading import grade, types
from lightreasoner.inference.decode import decode
from lightreasoner.statistics import wilson_interval
from recipes.microworld.corpus import END, END_OF_TEXT, prompt

# The world's longest solution takes 53 tokens.
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` problems."""

    correct: int
    n: int

    def __str__(self) -> str:
        low, high = wilson_interval(self.correct, self.n)
        share = 100 * self.correct / self.n
        return f"{share:.1f}% [{100 * low:.0f}, {100 * high:.0f}], n = {self.n}"


def answer(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem]
) -> list[list[int]]:
    """Greedy answers as token ids, the end token included, in the problems' order."""
    prompts = [tokenizer(prompt(problem.question))["input_ids"] for problem in problems]
    vocabulary = tokenizer.get_vocab()
    ends = {vocabulary[END], vocabulary[END_OF_TEXT]}
    return [found.ids for found in decode(model, prompts, ends, MAX_NEW_TOKENS)]


def accuracy(
    tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], answers: list[list[int]]
) -> Accuracy:
    """Correct by the strict verdict."""
    grades = grade.grade(
        [
            types.Answer(str(tokenizer.decode(ids)), problem, set_of(problem.id))
            for problem, ids in zip(problems, answers, strict=True)
        ]
    )
    return Accuracy(sum(each.strict == "correct" for each in grades), len(problems))
