r"""Whether a response's final answer equals the gold answer.

The answer is the content of the last `\boxed{...}`, nothing else: no box, no answer. Two answers
are equal as strings once layout is stripped, or as exact rational numbers. No tolerance, no
algebra, no units. Responses are written by models: every step is linear in their length, and
numbers are bounded before they are computed with.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Verdict = Literal["correct", "wrong", "unparsed"]

BOX = "\\boxed{"
MAX_NUMBER_CHARS = 200
"""Longer answers are compared as strings only."""

_LAYOUT = re.compile(r"\\!|\\?\$|\s")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = rf"[+-]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_RATIO = re.compile(rf"({_NUMBER})/({_NUMBER})")
_FRAC = re.compile(rf"([+-]?)\\[dt]?frac\{{({_NUMBER})\}}\{{({_NUMBER})\}}")


@dataclass(frozen=True)
class Grade:
    """A response's verdict, and the answer that it rests on (None where nothing was boxed)."""

    verdict: Verdict
    answer: str | None


def grade(response: str, gold: str) -> Grade:
    """Grade one response: correct, wrong, or unparsed where it boxes nothing."""
    answer = extract(response)
    if answer is None:
        return Grade("unparsed", None)
    return Grade("correct" if equal(answer, gold) else "wrong", answer)


def extract(response: str) -> str | None:
    r"""The content of the last `\boxed{...}`: up to its matching brace, else to the end.

    None if there is no box or the last one is blank.
    """
    start = response.rfind(BOX)
    if start < 0:
        return None
    content = response[start + len(BOX) :]
    depth = 1
    for match in re.finditer(r"[{}]", content):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            content = content[: match.start()]
            break
    return content.strip() or None


def equal(answer: str, gold: str) -> bool:
    """Whether two answers are the same string, layout aside, or the same rational number."""
    answer, gold = (_strip(text) for text in (answer, gold))
    if not answer or answer == gold:
        return bool(answer)
    value = _number(answer)
    return value is not None and value == _number(gold)


def _strip(text: str) -> str:
    return _LAYOUT.sub("", text).rstrip(".")


def _number(text: str) -> Fraction | None:
    r"""The exact value of a decimal, `a/b` or `\frac{a}{b}`; None if the text is none of these.

    The patterns admit at most three digits of exponent, so that a value has few digits too.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    sign = "+"
    if ratio := _FRAC.fullmatch(text):
        sign, above, below = ratio.groups()
    elif ratio := _RATIO.fullmatch(text):
        above, below = ratio.groups()
    else:
        above, below = text, "1"
    top, bottom = _decimal(above), _decimal(below)
    if top is None or not bottom:
        return None
    return (-top if sign == "-" else top) / bottom


def _decimal(text: str) -> Fraction | None:
    return Fraction(text.replace(",", "")) if re.fullmatch(_NUMBER, text) else None
