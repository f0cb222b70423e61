from pathlib import Path

import pytest
from sympy.parsing.sympy_parser import parse_expr

from lightreasoner.qwen_math.equivalence import is_equal, standalone_choice

EQUAL = [
    # the same text, up to case
    ("", ""),
    (" Monday", "monday"),
    ("N", "n"),
    # the letter of a choice: the last that stands alone
    ("(B)", "B"),
    ("isitAora,B", "B"),
    ("a", "A"),
    # numbers, within 1e-4 and up to a factor 100
    ("1e3", "1,000"),
    ("120006", "120000"),
    ("1800", "18"),
    ("0.18", "18"),
    ("50%", "0.5"),
    (r"50\%", "50"),
    # brackets of any kind, and none; braces and parentheses are deleted
    ("[4]", "4"),
    ("(3)", "[3]"),
    ("(1,2]", "[1,2)"),
    ("{1,2}", "1,2"),
    ("2x+1", "2(x+1)"),
    # element by element
    (r"(0.5,\frac{2}{4})", r"(\frac{1}{2},0.5)"),
    ("(1,2)", "(1.00001,2)"),
    # matrices, cell by cell
    (r"\begin{pmatrix}1.0&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    # equations: either way round, or only the right side
    ("x+y=3", "y+x=3"),
    ("3-x=y", "y=3-x"),
    ("x-y=3", "y-x=-3"),
    ("k=7", "7"),
    ("7", "k=7"),
    # algebra
    (r"\frac{1}{2}", "0.5"),
    ("x^2-1", "(x-1)(x+1)"),
    (r"\sin^2x+\cos^2x", "1"),
    ("10^{3}", "1000"),
    ("x>3", "x<3"),
    # only a valid prefix is read
    (r"2\sqrt{3},5", r"2\sqrt{3}"),
    # Python, where LaTeX does not do
    ("[sin(x),pi]", "[sin(x)*1,pi]"),
]

DIFFERENT = [
    (None, "1"),
    ("1", None),
    ("", "0"),
    ("", "A"),
    ("C", "AB"),
    ("Ais", "A"),
    ("120013", "120000"),
    ("f(x)=x+1", "x+1"),
    ("y=2x", "2y=4x"),
    ("1,2", "2,1"),
    ("(1,2,3)", "(1,2)"),
    (r"\pi", "3.14159"),
    (r"1\frac{1}{2}", "1.5"),
    (r"4.5\times10^{33}", "4.5e33"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}1\\3\end{pmatrix}", "{1,2}"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal(answer: str, gold: str) -> None:
    assert is_equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different(answer: str | None, gold: str | None) -> None:
    assert not is_equal(answer, gold)


@pytest.mark.parametrize(
    ("text", "first", "letter"),
    [
        ("\n: b, then C.", False, "C"),
        ("\n: b, then C.", True, "B"),
        ("A1 or F/.", False, "A1 or F"),
        ("None.", False, "None"),
    ],
)
def test_standalone_choice(text: str, first: bool, letter: str) -> None:
    assert standalone_choice(text, first=first) == letter


PROGRAM = 'open("ran", "w").close()'


@pytest.mark.parametrize(
    "text",
    [
        PROGRAM,
        f"[{PROGRAM}]",
        PROGRAM.replace('"', "'"),
        f"[1+2*{PROGRAM}",
        f"k={PROGRAM}",
        f"({PROGRAM},1)",
        "[breakpoint(),pi]",
        "[exec(chr(49)),pi]",
    ],
)
def test_an_answer_is_never_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sympy runs a text as Python, as the first lines show; as an answer it is only text."""
    monkeypatch.chdir(tmp_path)
    parse_expr(PROGRAM)
    (tmp_path / "ran").unlink()
    for gold in "x", "(1,2)", "[x,pi]", "0.5":
        assert not is_equal(text, gold)
        assert not is_equal(gold, text)
    assert not list(tmp_path.iterdir())
