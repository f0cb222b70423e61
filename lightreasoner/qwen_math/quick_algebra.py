r"""Two steps of the official verdict's algebra, quicker than sympy's own and with the same outcome.

Most of the time of a comparison goes into reading LaTeX with full look-ahead, and into simplifying
the difference of two expressions that are far apart. Neither needs to be.
"""

from math import prod
from typing import Any

import sympy
from antlr4 import CommonTokenStream, InputStream
from antlr4.atn.PredictionMode import PredictionMode
from mpmath import iv
from sympy.core.function import AppliedUndef
from sympy.parsing import latex
from sympy.parsing.latex import _parse_latex_antlr as sympy_parser

from lightreasoner import untrusted

_FUNCTIONS = {
    sympy.Abs: abs,
    sympy.exp: iv.exp,
    sympy.sin: iv.sin,
    sympy.cos: iv.cos,
    sympy.tan: iv.tan,
}
_CONSTANTS = {sympy.pi: iv.pi, sympy.E: iv.e}
_LARGEST = 10**6
"""The largest exponent or argument of a function: beyond it a value may take long to compute."""


def parse_latex(text: str) -> Any:
    """What sympy's `parse_latex` gives for a text, or the error that it raises.

    antlr first predicts from the grammar alone (SLL), which is many times as quick as with the
    whole context (LL). Its contract (`antlr4.atn.PredictionMode`): SLL ends either with the tree
    of LL or with a syntax error, and a syntax error is an exception here; only then LL is asked.
    """
    with untrusted.SuppressErrors():
        latex.check_matrix_delimiters(text)
        return sympy_parser.convert_relation(_relation(text.strip()))
    return latex.parse_latex(text)


def _relation(text: str) -> Any:
    """The syntax tree of a text's longest valid prefix, as `parse_latex` takes it, but by SLL."""
    listener = sympy_parser.MathErrorListener(text)
    lexer = sympy_parser.LaTeXLexer(InputStream(text))
    parser = sympy_parser.LaTeXParser(CommonTokenStream(lexer))
    for recogniser in lexer, parser:
        recogniser.removeErrorListeners()
        recogniser.addErrorListener(listener)
    parser._interp.predictionMode = PredictionMode.SLL
    return parser.math().relation()


def equals(a: Any, b: Any) -> bool:
    """Whether `a.equals(b)` for two sympy expressions; None is no.

    sympy simplifies the difference, and then evaluates what is left. Where the expressions are
    known to differ at each of three points, the difference is no form of 0, and sympy is not
    asked. The points have positive coordinates in three orders: there sympy's rules for roots,
    powers and logarithms hold whatever they assume of the variables.
    """
    return not differ(a, b) and bool(a.equals(b))


def differ(a: Any, b: Any) -> bool:
    """Whether two expressions provably have different real values at all points.

    By interval arithmetic, so that rounding is accounted for. False where it does not tell: for
    values that are not real, functions other than elementary ones, sums, integrals.
    """
    with untrusted.SuppressErrors():  # mpmath's and our own refusals: nothing is known then
        return all(_differ_at(a, b, point) for point in _points(_variables(a) | _variables(b)))
    return False


def _variables(expression: Any) -> set[Any]:
    """Symbols, and unknown functions where they are applied: u(t) may have any value."""
    return expression.free_symbols | expression.atoms(AppliedUndef)


def _points(variables: set[Any]) -> list[dict[Any, Any]]:
    """Positive fractions for the variables, at each point in another order; one point for none.

    Raises ValueError if u(t) and u(2t) are among them: they may be the same for all that is known.
    """
    names = [variable.func for variable in variables if variable.args]
    if len(set(names)) < len(names):
        raise ValueError("an unknown function is applied to several arguments")
    ordered = sorted(variables, key=str)
    return [
        {variable: iv.mpf((k * step + 5) % 97 + 20) / 41 for k, variable in enumerate(ordered, 1)}
        for step in ((7, 60, 90) if variables else (0,))
    ]


def _differ_at(a: Any, b: Any, point: dict[Any, Any]) -> bool:
    x, y = _interval(a, point), _interval(b, point)
    return bool(x.b < y.a or y.b < x.a)


def _interval(node: Any, point: dict[Any, Any]) -> Any:
    """An interval that holds the value of an expression. Raises ValueError or KeyError if it has no
    real one, or may have none."""
    if node in point:
        return point[node]
    if node in _CONSTANTS:
        return _CONSTANTS[node]
    if node.is_Rational:
        return iv.mpf(node.p) / node.q
    if node.is_Float:
        return _around(node)
    values = [_interval(child, point) for child in node.args]
    if node.is_Add:
        return sum(values, iv.mpf(0))
    if node.is_Mul:
        return prod(values, start=iv.mpf(1))
    if node.is_Pow:
        return _power(*values, is_integer=node.exp.is_Integer)
    if node.func is sympy.log:
        return _logarithm(*values)
    (argument,) = values
    if abs(argument).b > _LARGEST:
        raise ValueError(f"no value of {node.func} is computed here")
    return _FUNCTIONS[node.func](argument)


def _around(number: Any) -> Any:
    """A float and what `simplify` may take it for: it looks for short fractions within 1e-15."""
    value, margin = iv.mpf(str(number)), iv.mpf([-1, 1])
    return value + margin * (abs(value) * 1e-12 + 1e-13)


def _logarithm(number: Any, base: Any = iv.e) -> Any:
    if number.a <= 0 or base.a <= 0:
        raise ValueError("no logarithm of this is computed here")
    return iv.log(number) / iv.log(base)


def _power(base: Any, exponent: Any, *, is_integer: bool) -> Any:
    if abs(exponent).b > _LARGEST or (base.a <= 0 and not is_integer):
        raise ValueError("no power of these is computed here")
    return base**exponent
