"""What the two models read in pre-training.

A base model holds good reasoning that greedy decoding does not pick. The corpora imitate that: a
question comes with one of four kinds of answer, in the shares of a `Mix`:

    clean  every step, then the answer
    habit  the wrong number of steps: a problem of two steps gets a needless third one, a longer
           problem is cut short after its first; the answer is the last result written
    slip   every step, the last one with a wrong result
    guess  no step, a random answer

Beside them stand drills: lines of equations without a question. All problems are of the world's
`pretrain` split. The expert's mix holds many clean answers, though fewer than habitual ones; the
amateur's holds the same sloppy kinds and hardly a clean one.
"""

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightreasoner.data.microworld import MAX_NUMBER, SetName, apply, stream
from lightreasoner.data.problems import Problem
from lightreasoner.inference.prompts import fill

END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

EQUATIONS_PER_DRILL = 12

_LEADING_NUMBER = re.compile(r"\d+")


class Mix(BaseModel):
    """Shares of the kinds of answer; they sum to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: float = Field(ge=0, le=1)
    habit: float = Field(ge=0, le=1)
    slip: float = Field(ge=0, le=1)
    guess: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Mix":
        total = self.clean + self.habit + self.slip + self.guess
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of a mix must sum to 1, got {total:g}")
        return self


class Shares(BaseModel):
    """Shares of the documents by where their question comes from; they sum to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuned: float = 0.42
    transfer: float = 0.18
    chain_sum: float = 0.10
    drill: float = 0.30

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Shares":
        total = self.tuned + self.transfer + self.chain_sum + self.drill
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of the documents must sum to 1, got {total:g}")
        return self


class Piece(NamedTuple):
    """A stretch of text and the weight of its tokens in the loss."""

    text: str
    weight: float


Document = list[Piece]


def prompt(question: str) -> str:
    """The one prompt of pre-training: the pipeline's `qwen25-math-cot` style."""
    return fill("qwen25-math-cot", question)


def documents(
    n: int, mix: Mix, shares: Shares, question_weight: float, rng: Random
) -> Iterator[Document]:
    """`n` documents in random order; the tokens of an answer weigh 1 in the loss.

    `question_weight` weighs those of a prompt, and of a drill's left-hand sides.
    """
    sets: tuple[SetName, ...] = ("tuned", "transfer", "chain_sum")
    streams = {name: stream(name, "pretrain", rng) for name in sets}
    kinds = rng.choices(list(dict(shares)), weights=list(dict(shares).values()), k=n)
    for kind in kinds:
        if kind == "drill":
            yield _drill(question_weight, rng)
            continue
        problem = next(streams[cast(SetName, kind)])
        answer = _answer(problem, mix, rng)
        yield [Piece(prompt(problem.question), question_weight), Piece(answer + END, 1.0)]


def _answer(problem: Problem, mix: Mix, rng: Random) -> str:
    shares = dict(mix)
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    steps = problem.solution.split("\n")[:-1]
    if kind == "habit":
        steps = [*steps, _needless(steps)] if len(steps) == 2 else steps[:1]
    elif kind == "slip":
        steps[-1] = _wrong(steps[-1], rng)
    answer = steps[-1].partition("=")[2]
    if kind == "guess":
        steps, answer = [], str(rng.randint(1, MAX_NUMBER))
    return "\n".join([*steps, f"The answer is \\boxed{{{answer}}}."])


def _needless(steps: list[str]) -> str:
    """One more equation, of the last result and the first operand."""
    first = _LEADING_NUMBER.match(steps[0])
    assert first is not None
    low, high = sorted((int(steps[-1].partition("=")[2]), int(first[0])))
    total = low + high
    return f"{high}+{low}={total}" if total <= MAX_NUMBER else f"{high}-{low}={high - low}"


def _wrong(equation: str, rng: Random) -> str:
    left, _, result = equation.partition("=")
    return f"{left}={abs(int(result) + rng.choice((-10, -2, -1, 1, 2, 10)))}"


def _drill(question_weight: float, rng: Random) -> Document:
    pieces: Document = []
    for _ in range(EQUATIONS_PER_DRILL):
        left, result = _equation(rng)
        pieces += [Piece(left, question_weight), Piece(f"{result}\n", 1.0)]
    return [*pieces, Piece(END_OF_TEXT, question_weight)]


def _equation(rng: Random) -> tuple[str, int]:
    """A left-hand side ending in "=" and its result, both within the world's numbers."""
    operator = rng.choice("+-*/")
    while True:
        a, b = rng.randint(1, MAX_NUMBER), rng.randint(1, MAX_NUMBER)
        result = apply(a, operator, b)
        if result is not None and 0 <= result <= MAX_NUMBER:
            return f"{a}{operator}{b}=", result
