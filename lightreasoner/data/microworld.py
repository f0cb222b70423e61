"""The micro-world's problems: short arithmetic word problems with worked solutions.

Questions come from reasoning-gym's `gsm_symbolic` generators (templates made from GSM8K problems,
after Mirzadeh et al., arXiv 2410.05229), called by template number. Items with a number above
`MAX_NUMBER`, a decimal or a percent sign are rejected. A solution is rewritten as bare equations,
one operation per line, and ends in "The answer is \\boxed{n}.":

    13-10=3
    13+3=16
    The answer is \\boxed{16}.

Sets:

    tuned      templates that LightReasoner samples from and is evaluated on
    transfer   templates that the models meet in pre-training only
    chain_sum  sums of three terms, in pre-training only

A question belongs to exactly one split, by the sha256 of its text; so no seed can leak a question
from one split to another. Its numbers can come again under other names: with numbers this small,
97% of the `evaluate` solutions of `tuned`, all of `transfer` and none of `chain_sum` occur among
the pre-training problems of the default recipe.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from random import Random
from types import ModuleType
from typing import Literal, get_args

from lightreasoner.data.problems import Problem
from lightreasoner.errors import ProblemsError
from lightreasoner.untrusted import shown

SetName = Literal["tuned", "transfer", "chain_sum"]
Split = Literal["pretrain", "sample", "evaluate"]

TEMPLATES: dict[str, tuple[int, ...]] = {"tuned": (43, 10, 48, 72, 31), "transfer": (16, 62)}
MAX_NUMBER = 50
SURE = 2000
"""So many problems exist in every set and split; a test draws them."""

MOST = 20_000
"""Problems that are drawn; more would take minutes, and few sets and splits have them."""

# The text's sha256 modulo 10 -> split.
_SPLIT_OF_RESIDUE: tuple[Split, ...] = ("pretrain",) * 6 + ("sample",) * 2 + ("evaluate",) * 2

_NUMBER = re.compile(r"\d+")
_DECIMAL_OR_PERCENT = re.compile(r"%|\d[.,]\d")
_AROUND_OPERATOR = re.compile(r"\s*([-+*/=])\s*")
_EQUATION = re.compile(r"(\d+(?:[-+*/]\d+)+)=(\d+)")
_OPERATION = re.compile(r"([-+*/])(\d+)")


def draw(set_name: SetName, split: Split, n: int, seed: int) -> list[Problem]:
    """`n` problems with distinct questions, each template equally likely.

    Content and order depend on the arguments alone. Raises ProblemsError for unknown arguments,
    and when a bounded number of attempts does not give `n` distinct problems.
    """
    _check_arguments(set_name, split, n)
    found: dict[str, Problem] = {}
    rng = Random(f"{set_name}/{split}/{seed}")
    for problem in islice(stream(set_name, split, rng), 5 * n + 1000):
        if len(found) == n:
            break
        found.setdefault(problem.question, problem)
    if len(found) < n:
        raise ProblemsError(
            f"microworld {set_name}/{split}: found {len(found)} distinct problems, {n} wanted; "
            "ask for fewer"
        )
    return list(found.values())


def check(set_name: SetName, split: Split, n: int) -> None:
    """Raise ProblemsError where `draw` would, for any seed; up to SURE problems need no check."""
    _check_arguments(set_name, split, n)
    if n > SURE:
        draw(set_name, split, n, seed=0)


def _check_arguments(set_name: SetName, split: Split, n: int) -> None:
    if set_name not in get_args(SetName):
        raise ProblemsError(f"unknown set {shown(set_name)}: use one of {get_args(SetName)}")
    if split not in get_args(Split):
        raise ProblemsError(f"unknown split {shown(split)}: use one of {get_args(Split)}")
    if n < 0:
        raise ProblemsError(f"cannot draw {n} problems: n must be >= 0")
    if n > MOST:
        raise ProblemsError(f"microworld draws at most {MOST:,} problems, {n:,} wanted; lower n")


def split_of(question: str) -> Split:
    """The one split that a question's text belongs to."""
    return _SPLIT_OF_RESIDUE[int(_sha256(question), 16) % len(_SPLIT_OF_RESIDUE)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stream(set_name: SetName, split: Split, rng: Random) -> Iterator[Problem]:
    """Endless problems of one split; questions may come again."""
    while True:
        template = None if set_name == "chain_sum" else rng.choice(TEMPLATES[set_name])
        while True:
            item = _chain_sum(rng) if template is None else _from_template(template, rng)
            if item is not None and split_of(item[0]) == split:
                break
        question, steps = item
        answer = steps[-1].partition("=")[2]
        solution = "\n".join([*steps, f"The answer is \\boxed{{{answer}}}."])
        name = f"microworld/{set_name}/{split}/{_sha256(question)[:10]}"
        yield Problem(name, question, answer, solution)


def _chain_sum(rng: Random) -> tuple[str, list[str]] | None:
    """Question and equations of a sum of three terms, or None if a number is too large."""
    a, b, c = (rng.randint(1, 30) for _ in range(3))
    if a + b + c > MAX_NUMBER:
        return None
    return f"What is {a} + {b} + {c}?", [f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}"]


def _from_template(template: int, rng: Random) -> tuple[str, list[str]] | None:
    """Question and equations of one generated item, or None if the item is refused."""
    lower, upper = _generators()
    item = getattr(lower if template < 50 else upper, f"generate_{template}")(rng, 1.0)
    question, worked = item["question"], item["metadata"]["answer_cot"]
    steps = equations(worked)
    text = "\n".join([question, *steps])
    if _DECIMAL_OR_PERCENT.search(text) or any(
        int(number) > MAX_NUMBER for number in _NUMBER.findall(text)
    ):
        return None
    if not steps or steps[-1].partition("=")[2] != str(item["answer"]):
        return None
    return question, steps


@cache
def _generators() -> tuple[ModuleType, ModuleType]:
    """reasoning-gym's two modules of templates; their import takes about a second."""
    from reasoning_gym.arithmetic.gsm_symbolic import generators_00_49, generators_50_99

    return generators_00_49, generators_50_99


def equations(worked: str) -> list[str]:
    """The equations of a worked solution, one operation each; [] if one of them is wrong.

    "She ate a total of 3 + 11 + 15 = 29 slices." -> ["3+11=14", "14+15=29"]
    """
    bare = re.sub(r"[$£€]", "", worked).replace(" x ", "*")
    found: list[str] = []
    for expression, result in _EQUATION.findall(_AROUND_OPERATOR.sub(r"\1", bare)):
        steps = _one_operation_each(expression)
        if not steps or steps[-1].partition("=")[2] != result:
            return []
        found += steps
    return found


def _one_operation_each(expression: str) -> list[str]:
    """ "34-8-16" -> ["34-8=26", "26-16=10"], from the left; [] if a division leaves a remainder."""
    first = _NUMBER.match(expression)
    assert first is not None
    value, steps = int(first[0]), []
    for operator, operand in _OPERATION.findall(expression):
        result = apply(value, operator, int(operand))
        if result is None:
            return []
        steps.append(f"{value}{operator}{operand}={result}")
        value = result
    return steps


def apply(a: int, operator: str, b: int) -> int | None:
    """a operator b for one of + - * /; None if a division leaves a remainder."""
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    return a // b if b and a % b == 0 else None
