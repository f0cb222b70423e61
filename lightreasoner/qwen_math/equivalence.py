r"""Whether two answers are equal, as the official Qwen2.5-Math toolkit (commit a45202b) decides.

Mistakes included: a factor 100 is forgiven, integers are equal to a relative 1e-4, braces and
parentheses are deleted before texts are compared. Algebra may take forever: the caller keeps time.
"""

import functools
import math
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sympy
from sympy.parsing.sympy_parser import parse_expr

from lightreasoner import untrusted
from lightreasoner.qwen_math.quick_algebra import equals, parse_latex

CHOICES = tuple("ABCDE")
RELATIVE_TOLERANCE = 1e-4

_BRACKETED = re.compile(r"[(\[].+[)\]]")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_PYTHON_NAMES = {
    name: value
    for name, value in vars(sympy).items()
    if isinstance(value, sympy.Basic)
    or (isinstance(value, type) and issubclass(value, sympy.Basic))
} | {
    "__builtins__": {},
    "sqrt": sympy.sqrt,
    "abs": abs,
    "max": sympy.Max,
    "min": sympy.Min,
}
"""What a Python expression may name: sympy's objects, and nothing that takes or gives strings."""

_STRING_OR_ATTRIBUTE = re.compile(r"""["']|\.\s*[^\W\d]""")


def is_equal(answer: str | None, gold: str | None) -> bool:
    """Whether a normalised answer equals a normalised gold answer."""
    if answer is None or gold is None:
        return False
    decided = is_equal_at_sight(answer, gold)
    if decided is not None:
        return decided
    if "pmatrix" in answer and "pmatrix" not in gold:
        gold = _as_matrices(gold)
    return (
        _equal_unbracketed(answer, gold)
        or _equal_elements(answer, gold)
        or _equal_matrices(answer, gold)
        or _equal_algebra(answer, gold)
    )


def is_equal_at_sight(answer: str, gold: str) -> bool | None:
    """What `is_equal` says of equal texts, a letter and its choice, and two numbers; else None."""
    if answer.strip().lower() == gold.strip().lower():
        return True
    if gold in CHOICES and standalone_choice(answer) == gold:
        return True
    a, b = _number(answer), _number(gold)
    if a is not None and b is not None:
        return any(_close(a, candidate) for candidate in (b / 100, b, b * 100))
    return None if answer else False


def standalone_choice(text: str, *, first: bool = False) -> str:
    """The last (or first) standalone letter A to E of a text; if none, its trimmed text."""
    text = text.strip("\n").rstrip(".").rstrip("/").strip(" ").lstrip(":")
    letters = re.findall(r"\b[A-E]\b", text.upper())
    answer = letters[0 if first else -1] if letters else text.strip().strip(".")
    return answer.rstrip(".").rstrip("/")


def _number(text: str) -> float | None:
    """The float that a text is, without commas; of a percentage, its hundredth."""
    text = text.replace(",", "")
    with suppress(ValueError):
        return float(text)
    if text.endswith("%"):
        with suppress(ValueError):
            return float(text[:-1].removesuffix("\\")) / 100
    return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE)


def _as_matrices(text: str) -> str:
    r"""The `{..,..}` groups of a text as matrices, their commas as the toolkit's row separators."""
    groups = re.findall(r"\{.*,.*\}", text.strip())
    return ", ".join(
        r"\begin{pmatrix}" + group.strip("{}").replace(",", "\\") + r"\end{pmatrix}"
        for group in groups
    )


def _equal_unbracketed(answer: str, gold: str) -> bool:
    """Whether the texts are equal once braces, parentheses and an outer pair are deleted."""
    for ends, other in ("[]", "("), ("()", "["):
        if answer[:1] == ends[0] and answer[-1:] == ends[1] and not gold.startswith(other):
            answer, gold = answer.strip("[]()"), gold.strip("[]()")
            break
    answer, gold = (re.sub(r"[{}()]", "", text) for text in (answer, gold))
    return answer.lower() == gold.lower()


def _equal_elements(answer: str, gold: str) -> bool:
    """Whether two tuples, lists or intervals are equal element by element, brackets ignored."""
    if not (_BRACKETED.match(answer) and _BRACKETED.match(gold)):
        return False
    return _all_equal(answer[1:-1].split(","), gold[1:-1].split(","))


def _equal_matrices(answer: str, gold: str) -> bool:
    """Whether two matrices are equal cell by cell."""
    a, b = _rows(answer), _rows(gold)
    if a is None or b is None or len(a) != len(b):
        return False
    return all(map(_all_equal, a, b))


def _rows(text: str) -> list[list[str]] | None:
    """The cells of a matrix, row by row; None for any other text."""
    matrix = _MATRIX.fullmatch(text)
    if matrix is None:
        return None
    return [row.split("&") for row in matrix.group(1).split(r"\\") if row.strip()]


def _all_equal(answers: list[str], golds: list[str]) -> bool:
    return len(answers) == len(golds) and all(map(is_equal, answers, golds))


def _equal_algebra(answer: str, gold: str) -> bool:
    """Whether two equations, or two expressions, are equal by algebra."""
    match answer.count("="), gold.count("="):
        case 1, 1:
            a, b = _difference(answer), _difference(gold)
            if _equal_symbols(a, b) or _equal_symbols(f"-({a})", b):
                return True
        case 1, 0 if is_equal(_assigned(answer), gold):
            return True
        case 0, 1 if is_equal(answer, _assigned(gold)):
            return True
    return _equal_symbols(answer, gold)


def _difference(equation: str) -> str:
    left, right = equation.split("=")
    return f"{left.strip()} - ({right.strip()})"


def _assigned(equation: str) -> str | None:
    """The right side of "x = 7"; None if the left side is longer than two characters."""
    left, right = equation.split("=")
    return right if len(left.strip()) <= 2 else None


def _equal_symbols(answer: str, gold: str) -> bool:
    """Whether two expressions are equal by any of the toolkit's tests; one that fails is a no."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a, b = _parse(answer), _parse(gold)
        if isinstance(a, str) or isinstance(b, str):  # which `equals` would parse and run
            return str(a) == str(b)
        return any(_holds(test, a, b) for test in _TESTS)


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Any:
    """The sympy object that a text reads as (LaTeX, then Python); the text itself if none.

    `parse_latex` reads the longest valid prefix, and takes pi and e for plain symbols.
    """
    for parser in parse_latex, _parse_python:
        for form in text.replace(r"\\", "\\"), text:
            with untrusted.SuppressErrors():
                return parser(form)
    return text


def _parse_python(text: str) -> Any:
    """The value of a Python expression, evaluated without builtins, attributes and strings.

    The toolkit allows them, so that it runs whatever program a model writes as its answer.
    Raises ValueError for a text with an attribute or a string, else whatever `parse_expr` does.
    """
    if _STRING_OR_ATTRIBUTE.search(text):
        raise ValueError(f"not an expression of numbers and names: {text!r}")
    return parse_expr(text, global_dict=dict(_PYTHON_NAMES))


def _holds(test: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    """A test's outcome; False where sympy raises, in whatever way: the test does not apply."""
    with untrusted.SuppressErrors():
        return bool(test(a, b))
    return False


def _same(a: Any, b: Any) -> bool:
    return str(a) == str(b) or a == b


def _same_value(a: Any, b: Any) -> bool:
    """The toolkit's `a.equals(b) or simplify(a - b) == 0`; of expressions `equals` says it all, as
    it simplifies the difference itself and is true if that is 0."""
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        return equals(a, b)
    return a.equals(b) or sympy.simplify(a - b) == 0


def _same_equation(a: Any, b: Any) -> bool:
    return equals(abs(a.lhs - a.rhs), abs(b.lhs - b.rhs))


def _same_float(a: Any, b: Any) -> bool:
    return _close(float(sympy.N(a)), float(sympy.N(b)))


def _same_matrix(a: Any, b: Any) -> bool:
    """Whether two matrices agree at three decimals."""
    if a.shape != b.shape:
        return False
    a, b = (matrix.applyfunc(lambda cell: round(cell, 3)) for matrix in (a, b))
    return a.equals(b)


_TESTS = (_same, _same_value, _same_equation, _same_float, _same_matrix)
