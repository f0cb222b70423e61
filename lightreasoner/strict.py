import re
from fractions import Fraction

from lightreasoner.problems import Problem

BOX = "\\boxed{"
MAX_NUMBER_CHARS = 200
"""Longer answers are compared as strings only."""

_LAYOUT = re.compile(r"\\!|\\?\$|\s")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = rf"[+-]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,3}})?"
_RATIO = re.compile(rf"({_NUMBER})/({_NUMBER})")
_FRAC = re.compile(rf"([+-]?)\\[dt]?frac\{{({_NUMBER})\}}\{{({_NUMBER})\}}")


def extract(response: str, problem: Problem, benchmark: str) -> str | None:
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


def is_correct(answer: str, problem: Problem, benchmark: str) -> bool:
    return equal(answer, problem.answer)


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
