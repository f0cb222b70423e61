r"""Whether two LaTeX expressions are equal for all values of their variables.

Both are read by latex2sympy (math-verify's parser), which refuses a text that it cannot read to its
end; here it keeps the case of letters and a symbol's subscripts. Equality is decided by evaluating
both at fixed rational points to 40 digits, not by simplification: the cost is bounded, and sympy's
`simplify` may never end. Model text is never run as Python.
"""

import math
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.function import AppliedUndef

from lightreasoner.strict import forms

MAX_CHARS = 400
"""Longer texts are not read as algebra."""
MAX_POWER = 10_000
"""The largest literal exponent of a tower of powers."""
MAX_POWERS = 10**6
"""The largest product of all literal exponents: that of ((a^b)^c)^d is b c d."""
MAX_NESTING = 30
DIGITS = 40
TOLERANCE = sympy.Float(10) ** -30
"""Relative to the larger value; two different expressions of this length do not come so close."""

ZERO = sympy.Float(10) ** -60
"""What cancels to less than this is 0; physical constants are far above it."""

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|det"
)
_PLAIN_FUNCTION = re.compile(rf"(?<![a-zA-Z\\])({_FUNCTIONS}|pi|sqrt)(?![a-z])")
_GREEK_OR_LETTER = (
    r"(?:\\(?:dot|ddot|hat|bar|vec|tilde|mathcal)\s*(?:\{\s*\\?[a-zA-Z]+\s*\}|\\?[a-zA-Z])"
    r"|\\(?:[vV]ar)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho"
    r"|sigma|tau|upsilon|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|hbar)"
    r"(?![a-zA-Z])|\\?(?<![a-zA-Z])[a-zA-Z])"
)
_DECORATED = re.compile(
    rf"(?P<name>{_GREEK_OR_LETTER})\s*_\s*(?P<below>\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}}|[a-zA-Z0-9])"
    r"|\\(?:dot|ddot|hat|bar|vec|tilde|mathcal)\s*(?:\{\s*\\?[a-zA-Z]+\s*\}|\\?[a-zA-Z](?![a-zA-Z]))"
)
_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{4,}")
_COMMAND = re.compile(r"\\(?:variable|begin|end)\{\w+\}|\\[a-zA-Z]+")
_LONG_OR_SPLIT_NUMBER = re.compile(r"[0-9]{60}|(?<![_0-9])[0-9]+\s+[0-9]")
_EXPONENT = re.compile(r"\^\s*\{?\s*[+-]?\s*([0-9]+)")
_TOWER = re.compile(r"([0-9]+)\s*\^\s*\{?\s*([0-9]+)\s*\^\s*\{?\s*([0-9]+)")
_NESTED_POWERS = re.compile(r"\^\s*\{?[^{}^+\s]*\s*\^\s*\{?[^{}^+\s]*\s*\^")
_LARGE_FACTORIAL = re.compile(r"(?:[0-9]{4,}|\([^()a-zA-Z]*\)|!)\s*!|\\binom\s*\{[^}]*[0-9]{5}")
_ITERATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
"""What is compared as it is written: its value may take minutes."""
_POINTS = tuple(
    tuple(Fraction(sign * ((7 * k + 10 * n + 2) % 29 + 1), 17) for k in range(24))
    for n, sign in enumerate((1, 1, 1, -1, -1))
)
"""Distinct values a point; each variable is below 1 at one of them, where no power hides a sum."""
MAX_DIGITS = 5_000


class Symbols:
    """One name for each decorated symbol (`x_{0}`, `\\dot{x}`), for all texts that are compared."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def encode(self, text: str) -> str:
        """The text, its decorated symbols named so that latex2sympy reads each as one."""
        return _DECORATED.sub(self._name, text)

    def _name(self, match: re.Match[str]) -> str:
        key = re.sub(r"[{}\s]|\\text(?![a-z])", "", match.group())
        name = self.names.setdefault(key, f"v{len(self.names)}")
        return rf" \variable{{{name}}}"


def is_equal(answer: str, gold: str) -> bool:
    """Whether two cleaned expressions without relations are equal; unreadable ones are not."""
    symbols = Symbols()
    a, b = parse(answer, symbols), parse(gold, symbols)
    if a is None or b is None:
        return False
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        return is_same(a, b)
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        return a.shape == b.shape and all(map(is_same, a, b))
    return bool(a == b)


def is_same_relation(answer: tuple[str, str, str], gold: tuple[str, str, str]) -> bool:
    """Whether two relations (left, sign, right) hold for the same values: lhs - rhs in proportion.

    The factor must be constant; for an inequality its sign tells which way the relation points.
    """
    symbols = Symbols()
    sides = [parse(side, symbols) for side in (answer[0], answer[2], gold[0], gold[2])]
    if any(not isinstance(side, sympy.Expr) for side in sides):
        return False
    a, b = sides[0] - sides[1], sides[2] - sides[3]
    ratio = _constant_ratio(a, b)
    if ratio is None or ratio == 0:
        return False
    if answer[1] == gold[1] and answer[1] in ("=", r"\ne"):
        return True
    sign = answer[1] if ratio > 0 else FLIPPED.get(answer[1])
    return sign == gold[1]


FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def parse(text: str, symbols: Symbols) -> Any:
    """The sympy object that a whole text reads as; None if it does not, or is absurdly large."""
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text.replace(r"\text{ }", " "))
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = symbols.encode(text.replace("**", "^"))
    if len(text) > MAX_CHARS or r"\text" in text or not is_modest(text):
        return None
    text = re.sub(r"(?<![\\a-zA-Z{])\*", r"\\cdot ", text)
    return _quietly(
        lambda: latex2sympy(
            text, is_real=None, normalization_config=None, conversion_config=_CONVERSION
        )
    )


def is_modest(text: str) -> bool:
    """Whether a text is symbols, not words, and has no literal with absurdly many digits."""
    if _WORD.search(_COMMAND.sub(" ", text)) or forms.depth(text) > MAX_NESTING:
        return False
    if _LONG_OR_SPLIT_NUMBER.search(text) or _LARGE_FACTORIAL.search(text):
        return False
    # 9^{9^9} has 369 million digits
    towers = [(int(b[:9]), int(c[:9])) for _, b, c in _TOWER.findall(text)]
    if _NESTED_POWERS.search(text) or any(c > 20 or b**c > MAX_POWER for b, c in towers):
        return False
    return math.prod(max(1, int(power[:9])) for power in _EXPONENT.findall(text)) <= MAX_POWERS


def value(text: str) -> Any:
    """The value of a constant expression as a 40-digit sympy number; None if it has none."""
    expression = parse(text, Symbols())
    if not isinstance(expression, sympy.Expr):
        return None
    expression = _quietly(lambda: _prepare(expression))
    if expression is None or expression.free_symbols or expression.has(*_ITERATED):
        return None
    number = _quietly(lambda: expression.evalf(DIGITS))
    return number if _is_finite(number) and number.is_real else None


def _quietly(compute: Callable[[], Any]) -> Any:
    """A result, or None where the parser or sympy raises, in whatever way: the text is unreadable.

    latex2sympy raises bare `Exception`, and sympy whatever its internals meet.
    """
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        return compute()
    return None


def _prepare(expression: Any) -> Any:
    """The expression with exact numbers; i is the unit, unknown functions are variables."""
    expression = (
        sympy.nsimplify(expression, rational=True) if expression.has(sympy.Float) else expression
    )
    unknown = expression.atoms(AppliedUndef, sympy.Derivative)
    names = {term: sympy.Symbol(f"u_{term}") for term in unknown}
    return expression.xreplace(names).xreplace({sympy.Symbol("i"): sympy.I})


def is_same(a: Any, b: Any) -> bool:
    """Whether two expressions agree wherever they are evaluated and defined."""
    if a == b:
        return True
    a, b = _quietly(lambda: _prepare(a)), _quietly(lambda: _prepare(b))
    if a is None or b is None:
        return False
    if a.has(*_ITERATED) or b.has(*_ITERATED):
        return False
    agreed = 0
    for point in _points(a, b):
        x, y = (_at(expression, point) for expression in (a, b))
        if x is None or y is None:
            if (x is None) != (y is None) and not _is_negative(point):
                return False
            continue
        if not _is_close(x, y, constant=not point):
            # a logarithm or root of a negative number takes another branch
            if _is_negative(point) and not (x.is_real and y.is_real):
                continue
            return False
        agreed += 1
    return agreed > 0


def _constant_ratio(a: Any, b: Any) -> Any:
    """The one number that a / b is at all points; None if there is none."""
    a, b = _quietly(lambda: _prepare(a)), _quietly(lambda: _prepare(b))
    if a is None or b is None or not a.free_symbols or a.free_symbols != b.free_symbols:
        return None
    ratio = None
    for point in _points(a, b):
        x, y = (_at(expression, point) for expression in (a, b))
        if x is None or y is None or not y or not x.is_real or not y.is_real:
            continue
        if ratio is not None and not _is_close(x / y, ratio):
            return None
        ratio = x / y
    return ratio


def _points(a: Any, b: Any) -> list[dict[Any, Any]]:
    """Values for the variables of two expressions: at three points positive, at two negative."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return [{}]
    if len(symbols) > len(_POINTS[0]):
        return []
    return [
        {s: sympy.Rational(v) for s, v in zip(symbols, point, strict=False)} for point in _POINTS
    ]


def _is_negative(point: dict[Any, Any]) -> bool:
    return any(number < 0 for number in point.values())


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    """The value at a point to 40 digits, or to 40 decimals if it is a large constant."""
    if point:
        number = _quietly(lambda: expression.evalf(DIGITS, subs=point))
    else:
        number = _quietly(lambda: expression.evalf(DIGITS))
        if _is_finite(number) and abs(number) > 1 / TOLERANCE:
            digits = int(sympy.log(abs(number), 10).evalf()) + DIGITS
            number = _quietly(lambda: expression.evalf(min(digits, MAX_DIGITS)))
    return number if _is_finite(number) else None


def _is_finite(number: Any) -> bool:
    return number is not None and bool(number.is_number) and bool(number.is_finite)


def _is_close(x: Any, y: Any, constant: bool = False) -> bool:
    """Whether two values are equal; large constants to 30 decimals, as 2^{1009} is not one more."""
    scale = max(abs(x), abs(y))
    if constant and scale > 1 / TOLERANCE:
        return bool(abs(x - y) <= TOLERANCE)
    return bool(abs(x - y) <= max(TOLERANCE * scale, ZERO))
