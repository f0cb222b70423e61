"""The official verdict's algebra, quick and as sympy does it: the same outcome."""

import warnings
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.parsing import latex

from lightreasoner.qwen_math import equivalence, quick_algebra
from lightreasoner.qwen_math.quick_algebra import differ, equals, parse_latex

TEXTS = [
    r"\frac{1}{2}",
    r"\frac12x^2-3\sqrt{x}",
    r"(t+\frac{1}{2}\sin{2t})u(t)",
    r"\int_0^1x^2dx",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    r"x<\frac{1}{y}",
    "||a|-|b||c|",
    # only a prefix is read; the second needs the whole context
    r"2\sqrt{3},5",
    r"f\sin:a_{1}\rfloor:",
    # nothing is read
    r"\frac{1}{",
    r"\begin{pmatrix}1",
    "",
    "Ezra'class",
]

TOKENS = [
    *(*"xyfd23+-*/^_{}()|=<,!':&", "10", "1.5", "f(", "dx", "a_{1}", "x^2"),
    *(r"\frac", r"\frac{1}{2}", r"\sqrt", r"\sin", r"\cos^", r"\log_", r"\int", r"\sum_{n=1}^"),
    *(r"\lim_{x\to0}", r"\cdot", r"\pi", r"\le", r"\langle", r"\text{", r"\\"),
    *(r"\begin{pmatrix}", r"\end{pmatrix}"),
]


def read_by(parse: Any, text: str) -> str:
    """What a parser makes of a text, to the last unevaluated detail."""
    try:
        return sympy.srepr(parse(text))
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("text", TEXTS)
def test_latex_is_read_as_sympy_reads_it(text: str) -> None:
    assert read_by(parse_latex, text) == read_by(latex.parse_latex, text)


def test_some_latex_needs_the_whole_context() -> None:
    with pytest.raises(latex.LaTeXParsingError):
        quick_algebra._relation(r"f\sin:a_{1}\rfloor:")
    assert parse_latex(r"f\sin:a_{1}\rfloor:") == sympy.Symbol("f")


@settings(max_examples=100)
@given(st.lists(st.sampled_from(TOKENS), max_size=12))
def test_any_latex_is_read_as_sympy_reads_it(tokens: list[str]) -> None:
    text = "".join(tokens)
    assert read_by(parse_latex, text) == read_by(latex.parse_latex, text)


DIFFER = [
    ("x+1", "x+2"),
    ("x", "2"),
    (r"\frac{1}{3}", "0.333"),
    (r"2\sqrt{3}", r"3\sqrt{2}"),
    ("x^{2}y", "xy^{2}"),
    (r"\ln{x}", r"\log_{10}{x}"),
    (r"e^{-at}", r"e^{-bt}"),
    (r"(t+\frac{1}{2}\sin{2t})u(t)", r"(t-\frac{1}{2}\sin{2t})u(t)"),
    (r"6.6\cdot10^{-34}x", "0"),
    ("629", "629Thismatchestheconditions"),
]

UNSURE = [
    # equal, in another form
    ("x^2-1", "(x-1)(x+1)"),
    (r"\sin^2x+\cos^2x", "1"),
    (r"\sqrt{x^2}", "x"),
    (r"\ln{xy}", r"\ln{x}+\ln{y}"),
    # floats that sympy rounds: one half would do for the first
    ("0.1x+0.2x-0.3x", "0"),
    ("0.333333333333333", r"\frac{1}{3}"),
    ("0.00000000000000001x", "0"),
    # equal at one of the points only
    (r"\sqrt{(x-y)^2}", "x-y"),
    # not real, or not known
    (r"\sqrt{-x}", "2"),
    ("f(x)", "f(2x)"),
    (r"\int_0^1xdx", "3"),
    ("x!", "y!"),
    (r"\frac{1}{x-x}", "3"),
    (r"\ln{(x-x)}", "3"),
    # not computed
    ("9^{9^{9^9}}", "7"),
    (r"\sin(10^{99})", "7"),
    # no expressions
    ("x<1", "x<2"),
    ("x<1", "2"),
]


@pytest.mark.parametrize(("a", "b"), DIFFER)
def test_what_differs_is_known_to(a: str, b: str) -> None:
    assert differ(parse_latex(a), parse_latex(b))
    assert differ(parse_latex(b), parse_latex(a))


@pytest.mark.parametrize(("a", "b"), UNSURE)
def test_where_it_does_not_tell(a: str, b: str) -> None:
    assert not differ(parse_latex(a), parse_latex(b))
    assert not differ(parse_latex(b), parse_latex(a))


def test_a_difference_that_is_known_is_not_simplified(monkeypatch: pytest.MonkeyPatch) -> None:
    def simplify(*_: Any, **__: Any) -> None:
        raise AssertionError

    x = sympy.Symbol("x")
    monkeypatch.setattr(sympy.Expr, "equals", simplify)
    assert not equals(x + 1, x + 2)
    with pytest.raises(AssertionError):
        equals(x**2 - 1, (x - 1) * (x + 1))


def test_a_long_product_takes_a_moment() -> None:
    """Evaluating it by sympy doubles the time with each of its letters."""
    assert differ(parse_latex("ab" * 60), parse_latex("7"))


ATOMS = st.sampled_from(["x", "y", "2", "3", "0.5", "1.25", r"\pi", "i", "u(x)"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.builds(
        lambda form, a, b: form.replace("A", a).replace("B", b),
        st.sampled_from(
            ["A+B", "(A)(B)", r"\frac{A}{B}", "(A)^{2}", r"\sqrt{A}", "-(A)", r"\sin(A)", "|A|"]
        ),
        inner,
        inner,
    ),
    max_leaves=4,
)
PAIRS = st.one_of(
    st.tuples(EXPRESSIONS, EXPRESSIONS),
    st.builds(
        lambda form, a, b: tuple(side.replace("A", a).replace("B", b) for side in form),
        st.sampled_from(
            [
                ("A+B", "B+A"),
                ("(A)^2-(B)^2", "(A-B)(A+B)"),
                (r"\frac{A}{B}", r"\frac{2(A)}{2(B)}"),
                (r"\sqrt{(A)^2}", "A"),
                (r"\sqrt{A}\sqrt{B}", r"\sqrt{(A)(B)}"),
                ("A=B", "B=A"),
                ("y=A", "A"),
            ]
        ),
        EXPRESSIONS,
        EXPRESSIONS,
    ),
)


def toolkit_same_value(a: Any, b: Any) -> bool:
    return a.equals(b) or sympy.simplify(a - b) == 0


def slow_verdict(answer: str, gold: str) -> bool:
    """The verdict with nothing but sympy's own parser, `equals` and `simplify`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equivalence, "parse_latex", latex.parse_latex)
        patch.setattr(equivalence, "equals", lambda a, b: a.equals(b))
        tests = [
            toolkit_same_value if test is equivalence._same_value else test
            for test in equivalence._TESTS
        ]
        patch.setattr(equivalence, "_TESTS", tests)
        equivalence._parse.cache_clear()
        found = equivalence.is_equal(answer, gold)
        equivalence._parse.cache_clear()
        return found


@settings(max_examples=25)
@given(PAIRS)
def test_the_verdict_is_that_of_sympy_alone(pair: tuple[str, str]) -> None:
    """Of 500 pairs, tried once, all agreed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert equivalence.is_equal(*pair) == slow_verdict(*pair)
