r"""Whether two LaTeX expressions are equal for all values of their variables.

Both are read by latex2sympy (parsing.py). Equality is decided by evaluating both at fixed rational
points to 40 digits, not by simplification: the cost is bounded, and sympy's `simplify` may never
end.
"""

from fractions import Fraction
from typing import Any

import sympy
from sympy.core.function import AppliedUndef

from lightreasoner.grading.strict.parsing import Symbols, parse, quietly

DIGITS = 40
TOLERANCE = sympy.Float(10) ** -30
"""Relative to the larger value; two different expressions of this length do not come so close."""

ZERO = sympy.Float(10) ** -60
"""What cancels to less than this is 0; physical constants are far above it."""

_ITERATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
"""What is compared as it is written: its value may take minutes."""
_POINTS = tuple(
    tuple(Fraction(sign * ((7 * k + 10 * n + 2) % 29 + 1), 17) for k in range(24))
    for n, sign in enumerate((1, 1, 1, -1, -1))
)
"""Distinct values per point; each variable is below 1 at one of them, where no power hides a
sum."""
_WIDE_POINTS = tuple(
    tuple(Fraction(sign * ((389 * k + 571 * n) % 997 + 2)) for k in range(24))
    for n, sign in enumerate((1, 1, 1, -1, -1))
)
"""Integers from 2 to 998 and their negatives, for functions that have branches."""
_BRANCHED = (sympy.floor, sympy.ceiling, sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.Mod)
WIDE = 2
"""Only the wide points have larger values."""
MAX_DIGITS = 5_000


def is_equal(answer: str, gold: str, positive: bool = False) -> bool:
    """Whether two cleaned expressions without relations are equal; unreadable ones are not.

    `positive`: all variables are, as physical quantities mostly are.
    """
    symbols = Symbols()
    a, b = (_explicit(parse(text, symbols)) for text in (answer, gold))
    if a is None or b is None:
        return False
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        return is_same(a, b, positive)
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


def _explicit(parsed: Any) -> Any:
    """A product of a number and a matrix as the matrix that it is."""
    return quietly(parsed.doit) if isinstance(parsed, sympy.MatrixExpr) else parsed


FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def value(text: str) -> Any:
    """The value of a constant expression as a 40-digit sympy number; None if it has none."""
    expression = parse(text, Symbols())
    if not isinstance(expression, sympy.Expr):
        return None
    expression = quietly(lambda: _prepare(expression))
    if expression is None or expression.free_symbols or expression.has(*_ITERATED):
        return None
    number = quietly(lambda: expression.evalf(DIGITS))
    return number if _is_finite(number) and number.is_real else None


def _prepare(expression: Any) -> Any:
    """The expression with exact numbers; i is the unit, unknown functions are variables."""
    expression = (
        sympy.nsimplify(expression, rational=True) if expression.has(sympy.Float) else expression
    )
    unknown = expression.atoms(AppliedUndef, sympy.Derivative)
    names = {term: sympy.Symbol(f"u_{term}") for term in unknown}
    expression = expression.xreplace(names).xreplace({sympy.Symbol("i"): sympy.I})
    return expression.replace(sympy.Mod, sympy.Mod)  # the parser leaves it unevaluated


def is_same(a: Any, b: Any, positive: bool = False) -> bool:
    """Whether two expressions agree wherever they are evaluated and defined."""
    if a == b:
        return True
    a, b = quietly(lambda: _prepare(a)), quietly(lambda: _prepare(b))
    if a is None or b is None:
        return False
    if a.has(*_ITERATED) or b.has(*_ITERATED):
        return False
    points = [point for point in _points(a, b) if not (positive and _is_negative(point))]
    one_has_abs = a.has(sympy.Abs) != b.has(sympy.Abs)
    verdicts = [_agree_at(a, b, point, one_has_abs) for point in points]
    return True in verdicts and False not in verdicts


def _agree_at(a: Any, b: Any, point: dict[Any, Any], one_has_abs: bool) -> bool | None:
    """Whether two expressions are equal at a point; None where that says nothing of them.

    A logarithm or root of a negative number may take another branch; ln x is not ln |x|, though.
    """
    may_branch = any(number < 0 or number > WIDE for number in point.values())
    x, y = (_at(expression, point) for expression in (a, b))
    if x is None or y is None:
        return None if (x is None and y is None) or may_branch else False
    if _is_close(x, y, constant=not point):
        return True
    is_real = bool(x.is_real and y.is_real)
    return (
        None
        if may_branch and not is_real and not (one_has_abs and x.is_real != y.is_real)
        else False
    )


def _constant_ratio(a: Any, b: Any) -> Any:
    """The one number that a / b is at all points; None if there is none."""
    a, b = quietly(lambda: _prepare(a)), quietly(lambda: _prepare(b))
    if a is None or b is None or not a.free_symbols or a.free_symbols != b.free_symbols:
        return None
    ratio = None
    for point in _points(a, b):
        x, y = (_at(expression, point) for expression in (a, b))
        if x is None or y is None or not x.is_real or not y.is_real:
            continue
        if abs(y) < ZERO:
            if abs(x) < ZERO:
                continue
            return None
        if ratio is not None and not _is_close(x / y, ratio):
            return None
        ratio = x / y
    return ratio


def _points(a: Any, b: Any) -> list[dict[Any, Any]]:
    """Values for the variables: at three points positive, at two negative; of functions with
    branches also at large integers.
    """
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return [{}]
    if len(symbols) > len(_POINTS[0]):
        return []
    values = _POINTS + (_WIDE_POINTS if _has_branches(a) or _has_branches(b) else ())
    return [
        {s: sympy.Rational(v) for s, v in zip(symbols, point, strict=False)} for point in values
    ]


def _has_branches(expression: Any) -> bool:
    """Whether an expression may be another formula elsewhere, as |x| and \\sqrt{(x-3)^2} are."""
    roots = (power for power in expression.atoms(sympy.Pow) if power.exp.is_Rational)
    return expression.has(*_BRANCHED) or any(not power.exp.is_Integer for power in roots)


def _is_negative(point: dict[Any, Any]) -> bool:
    return any(number < 0 for number in point.values())


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    """The value at a point to 40 digits, or to 40 decimals if it is a large constant."""
    if point:
        number = quietly(lambda: expression.evalf(DIGITS, subs=point))
    else:
        number = quietly(lambda: expression.evalf(DIGITS))
        if _is_finite(number) and abs(number) > 1 / TOLERANCE:
            digits = int(sympy.log(abs(number), 10).evalf()) + DIGITS
            number = quietly(lambda: expression.evalf(min(digits, MAX_DIGITS)))
    return number if _is_finite(number) else None


def _is_finite(number: Any) -> bool:
    """Whether this is a finite number, not what sympy left as it was, such as cot 0."""
    if number is None or not number.is_number or number.has(sympy.Function):
        return False
    return bool(quietly(lambda: number.is_finite))


def _is_close(x: Any, y: Any, constant: bool = False) -> bool:
    """Whether two values are equal; large constants to 30 decimals, as 2^{1009} is not one more."""
    scale = max(abs(x), abs(y))
    if constant and scale > 1 / TOLERANCE:
        return bool(abs(x - y) <= TOLERANCE)
    return bool(abs(x - y) <= max(TOLERANCE * scale, ZERO))
