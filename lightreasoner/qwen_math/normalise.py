r"""An answer's normal form, as the official Qwen2.5-Math toolkit (commit a45202b) writes it.

The rules are the toolkit's own, mistakes included: unit words of one letter are deleted from
formulas ("s/2" becomes "/2"), and so is every "and". The order matters, and normalising twice is
not the same as once.
"""

import re

from lightreasoner.qwen_math.number_words import number_from_words

_UNIT_WORDS = (
    "east,degree,mph,kmph,ft,m sqaure, m east,sq m,deg,mile,q .,monkey,prime,ratio,profit of rs,rd,"
    "o,gm,p . m,lb,tile,per,dm,lt,gain,ab,way,west,a .,b .,c .,d .,e .,f .,g .,h .,t,a,h,no change,"
    "men,soldier,pie,bc,excess,st,inches,noon,percent,by,gal,kmh,c,acre,rise,a . m,th,π r 2,sq,"
    "mark,l,toy,coin,sq . m,gallon,° f,profit,minw,yr,women,feet,am,pm,hr,cu cm,square,v â € ™,are,"
    "rupee,rounds,cubic,cc,mtr,s,ohm,number,kmph,day,hour,minute,min,second,man,woman,sec,cube,mt,"
    "sq inch,mp,∏ cm ³,hectare,more,sec,unit,cu . m,cm 2,rs .,rs,kg,g,month,km,m,cm,mm,apple,liter,"
    "loss,yard,pure,year,increase,decrease,d,less,Surface,litre,pi sq m,s .,metre,meter,inch"
)
"""The toolkit's list, in its order. Each is used as a pattern: its dots match any character."""

UNIT_WORDS = tuple(_UNIT_WORDS.split(","))

_UNITS = [
    (unit.partition(".")[0], re.compile(rf"(^|\W){unit}($|\W)"))
    for unit in [*UNIT_WORDS, *(f"{word}s" for word in UNIT_WORDS)]
]
"""Each with what a text must hold for it to match, which is quick to look for."""

_LAYOUT = {
    r"\begin{bmatrix}": r"\begin{pmatrix}",
    r"\end{bmatrix}": r"\end{pmatrix}",
    r"\end{array}": r"\end{pmatrix}",
    "tfrac": "frac",
    "dfrac": "frac",
    r"\neq": r"\ne",
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\left": "",
    r"\right": "",
    r"\{": "{",
    r"\}": "}",
}
_MARKS = (r"^{\circ}", r"^\circ", r"\$", "$", r"\(", r"\)")
_ASSIGNMENTS = tuple(f"{x}{sign}" for sign in ("=", r"\in", r"\to") for x in "xyz")


def normalise(answer: str, *, keep_units: bool = False) -> str:
    """The normal form of an answer, or of a gold answer; "" if nothing remains."""
    text = _layout(answer)
    kept = text.partition(r"\text{")[0] if text.endswith("}") else text
    text = kept.strip() or text
    if not keep_units:
        text = _without_units(text)
    for mark in _MARKS:
        text = text.replace(mark, "")
    text = _number_words(text)
    text = _symbols(_closed(r"\\text\{(.*?)\}", r"\1", text))
    text = re.sub(r"(?<!\d)(\d+)\.0*([^\d])", r"\1\2", text)
    text = re.sub(r"(?<!\d)(\d+)\.0*$", r"\1", text)
    if not text:
        return text
    if text.startswith("."):
        text = "0" + text
    left, *right = text.split("=")
    if len(right) == 1 and len(left) <= 2:
        text = right[0]
    return _arguments(text)


def _closed(pattern: str, replacement: str, text: str) -> str:
    """`re.sub` with a pattern that ends in a brace: behind the last one nothing is looked for."""
    head, brace, tail = text.rpartition("}")
    return re.sub(pattern, replacement, head + brace) + tail


def _layout(text: str) -> str:
    """One spelling for each command that the toolkit knows by several."""
    text = text.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    text = _closed(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    for old, new in _LAYOUT.items():
        text = text.replace(old, new)
    return text


def _without_units(text: str) -> str:
    """Delete the unit words, in two passes, unless nothing would remain."""
    for _ in range(2):
        for literal, unit in _UNITS:
            if literal in text:
                text = unit.sub(r"\1\2", text) or text
    return text


def _number_words(text: str) -> str:
    """The number that the text spells out, in digits; else the text."""
    try:
        return str(number_from_words(text))
    except ValueError:
        return text


def _symbols(text: str) -> str:
    """Delete assignments, percent signs and fonts; infinity and the imaginary unit by one name."""
    for assignment in _ASSIGNMENTS:
        text = text.replace(assignment, "")
    text = text.replace(r"\emptyset", "{}").replace(r"(-\infty,\infty)", r"\mathbb{R}")
    text = text.replace(r"\%", "").replace("%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    text = text.replace("infinity", r"\infty")
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    text = text.replace("and", "").replace(r"\mathbf", "")
    text = _closed(r"\\mbox{.*?}", "", text)
    if "i" not in text:
        text = text.replace("j", "i")
    return text


def _arguments(text: str) -> str:
    r"""Brace the arguments of `\sqrt` and `\frac`, drop spaces, write a single a/b as `\frac`."""
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    head, *pieces = text.split(r"\frac")
    if all(piece.startswith("{") or len(piece) > 1 for piece in pieces):
        text = head + "".join(rf"\frac{_braced(piece)}" for piece in pieces)
    above, *below = text.split("/")
    if len(below) == 1 and _divisible(above) and _divisible(below[0]):
        text = rf"\frac{{{above}}}{{{below[0]}}}"
    return text


def _braced(piece: str) -> str:
    r"""What follows a `\frac`, its one-character arguments in braces."""
    if piece.startswith("{"):
        return piece
    above, below = piece[0], piece[1:]
    return f"{{{above}}}" + (below if below.startswith("{") else f"{{{below[0]}}}{below[1:]}")


def _divisible(text: str) -> bool:
    """Whether a side of a/b is an integer, as Python prints it, or holds a root."""
    return "sqrt" in text or re.fullmatch(r"-?[1-9][0-9]*|0", text) is not None
