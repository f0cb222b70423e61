import pytest

from lightreasoner.qwen_math.normalise import normalise

NORMAL_FORMS = [
    # nothing to do, nothing left
    ("10,000", "10,000"),
    ("", ""),
    (".", ""),
    # space at the ends, newlines, trailing dots, \!
    (" 16..\n", "16"),
    ("1\\!000", "1000"),
    ("1\n2", "12"),
    # one spelling for each command
    (r"\begin{array}{cc}1&2\end{array}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{bmatrix}1\end{bmatrix}", r"\begin{pmatrix}1\end{pmatrix}"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"x\neq 1", r"x\ne1"),
    (r"x\leq y\geq z", r"x\ley\gez"),
    (r"\left(1,2\right]", "(1,2]"),
    (r"\{1,2\}", "{1,2}"),
    # text at the end goes if something remains; text elsewhere is unwrapped
    (r"36\text{ marbles}", "36"),
    (r"\text{Monday}", "Monday"),
    (r"\text{one}5\text{ two}", "one5two"),
    # unit words, between characters that are no word characters; their dots are any character
    ("7 miles", "7"),
    ("5 sq m", "5"),
    ("m", "m"),
    ("36 marbles", "36marbles"),
    ("s/2", "/2"),
    ("5 q 1", "5"),
    ("5 M", "5M"),
    # degrees and dollars
    (r"60^\circ", "60"),
    (r"60^{\circ}", "60"),
    (r"\$5", "5"),
    (r"$5$", "5"),
    (r"\(5\)", "5"),
    # numbers in words
    ("twenty-one", "21"),
    ("the point (3,4)", "0"),
    # assignments, anywhere
    ("x=5", "5"),
    (r"x\in[1,2]", "[1,2]"),
    (r"x\to3", "3"),
    (r"max=5", "ma5"),
    # sets
    (r"\emptyset", "{}"),
    (r"(-\infty,\infty)", r"\mathbb{R}"),
    # percent signs, leading zeros
    ("50%", "50"),
    (r"50\%", "50"),
    ("k .5", "k0.5"),
    ("{.5}", "{0.5}"),
    (".5", "0.5"),
    # infinity, "and", fonts, boxes
    ("-infinity", r"-\infty"),
    ("inf", r"\infty"),
    ("2 and 3", "23"),
    (r"\mathbf{v}", "{v}"),
    (r"3\mbox{ cm}", "3"),
    # the imaginary unit
    ("3j", "3i"),
    ("3j+i", "3j+i"),
    # zeros after the point
    ("5.0", "5"),
    ("5.00x", "5x"),
    ("5.03", "5.03"),
    ("5.0,6.000", "5,6"),
    # a short left side of the only equals sign
    ("kk=5", "5"),
    ("kkk=5", "kkk=5"),
    ("k=l=5", "k==5"),
    # arguments of roots and fractions
    (r"\sqrt2", r"\sqrt{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\frac1{72}", r"\frac{1}{72}"),
    (r"\frac{1}2", r"\frac{1}2"),
    (r"\frac1", r"\frac1"),
    (r"\frac12+\frac1", r"\frac12+\frac1"),
    ("1 + 2", "1+2"),
    # a single a/b of integers or roots
    ("3/4", r"\frac{3}{4}"),
    ("-3/4", r"\frac{-3}{4}"),
    (r"\sqrt3/2", r"\frac{\sqrt{3}}{2}"),
    ("03/4", "03/4"),
    ("k/4", "k/4"),
    ("1/2/3", "1/2/3"),
]


@pytest.mark.parametrize(("answer", "normal"), NORMAL_FORMS)
def test_normal_form(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


def test_units_are_kept_where_asked() -> None:
    assert normalise("5 m", keep_units=True) == "5m"


def test_the_second_time_may_do_more() -> None:
    once = normalise(r"\sqrt x3")
    assert (once, normalise(once)) == (r"\sqrtx3", r"\sqrt{x3}")
