r"""Sets of real numbers, however they are written, as the intervals that they are the union of.

`x<1 \text{ or } x>1`, `x \ne 1`, `\mathbb{R}\setminus\{1\}` and `\{x \mid x \ne 1\}` all are
`(-\infty,1)` and `(1,\infty)`.
"""

import re
from itertools import pairwise

from lightreasoner.grading.strict import algebra
from lightreasoner.grading.strict.forms import split_top, trim
from lightreasoner.grading.strict.shapes import RELATION, outer_brackets, relation_signs

MAX_POINTS = 10
"""A set may leave out this many points."""

UNION = re.compile(r"\\cup(?![a-zA-Z])")
MEMBER = re.compile(r"[a-zA-Z]\s*\\in(?![a-zA-Z])\s*")
_OR = re.compile(r"\\text\{\s*,?\s*or\s*,?\s*\}|\sor\s|\\(?:lor|vee)(?![a-zA-Z])|[,;]")
_AND = re.compile(r"\\text\{\s*and\s*\}|\sand\s|\\(?:land|wedge)(?![a-zA-Z])")
_ABSOLUTE = re.compile(
    r"\|\s*[a-z]\s*\|\s*(?P<sign><|>|\\le|\\ge)(?![a-zA-Z])\s*(?P<bound>[^<>=|]+)"
)
_COMMA = re.compile(r"[,;]|\\text\{\s*and\s*\}|\sand\s")
_REALS = r"(?:\\mathbb\{R\}|\(-\\infty,\s*\\infty\))"
_ALL_BUT = re.compile(
    rf"{_REALS}\s*(?:\\setminus|\\backslash|\\smallsetminus|-|\\)\s*\\\{{(?P<points>.*)\\\}}"
    r"|(?:\\text\{)?\s*all real(?:s| numbers| values)(?: of)?\s*(?:x\s*)?"
    r"(?:except|but)(?: for)?\s*\}?\s*(?:[a-z]\s*=\s*)?(?P<others>.*)"
    r"|[a-z]\s*\\ne(?![a-zA-Z])\s*(?P<unequal>.*)",
    re.IGNORECASE,
)
_BUILDER = re.compile(
    r"\\\{\s*[a-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z])|\||:)(.*)\\\}"
)


def same_set(answer: str, gold: str) -> tuple[list[str], list[str]] | None:
    """The intervals of two sets of which one is written otherwise than by intervals; else None."""
    if all(_is_plain(text) for text in (answer, gold)):
        return None
    pieces = intervals(answer)
    golds = intervals(gold) if pieces else None
    names = [_letters(text) for text in (answer, gold)]
    is_renamed = all(names) and set(names[0]) != set(names[1])
    return (pieces, golds) if pieces and golds and not is_renamed else None


def intervals(text: str) -> list[str] | None:
    """The intervals, such as `(1,2]`, whose union a cleaned text is; None for any other text."""
    text = trim(MEMBER.sub("", text, count=1) if MEMBER.match(text) else text)
    if builder := _BUILDER.fullmatch(text):
        text = trim(builder[1])
    if text == r"\mathbb{R}" or re.fullmatch("all real(?:s| numbers)", text):
        return [r"(-\infty,\infty)"]
    if all_but := _ALL_BUT.fullmatch(text):
        return _without(next(filter(None, all_but.groups()), ""))
    if absolute := _ABSOLUTE.fullmatch(text):
        return _around_zero(absolute["sign"], absolute["bound"])
    parts = [text] if outer_brackets(text) else split_top(text, UNION)
    if len(parts) == 1 and not outer_brackets(text):
        parts = split_top(text, _OR)
        if len(set(_letters(text))) > 1:
            return None
        if both := _between(split_top(text, _AND)):
            return both
    found = [interval for part in parts if (interval := _interval(trim(part)))]
    return found if len(found) == len(parts) else None


def _is_plain(text: str) -> bool:
    return all(outer_brackets(trim(part)) for part in split_top(text, UNION))


def _letters(text: str) -> list[str]:
    """The letters that are sides of inequalities."""
    sides = [trim(side) for part in split_top(text, _OR) for side in split_top(part, RELATION)]
    return [side for side in sides if re.fullmatch("[a-z]", side)]


def _between(parts: list[str]) -> list[str] | None:
    """`x > 2 and x < 5` as what both hold for, (2,5); None unless one bounds each side."""
    found = [interval for part in parts if (interval := _interval(trim(part)))]
    if not len(parts) == len(found) == 2:
        return None
    low, high = sorted(found, key=lambda interval: interval.startswith(r"(-\infty"))
    bounds = low.rpartition(",")[0], high.partition(",")[2]
    ends = algebra.value(bounds[0][1:]), algebra.value(bounds[1][:-1])
    is_range = None not in ends and ends[0] < ends[1]
    return [f"{bounds[0]},{bounds[1]}"] if is_range else None


def _around_zero(sign: str, bound: str) -> list[str] | None:
    """`|x| < 3` as (-3,3), `|x| \\ge 3` as what lies outside."""
    value = algebra.value(bound)
    if value is None or value <= 0:
        return None
    opener, closer = ("[", "]") if sign in (r"\le", r"\ge") else ("(", ")")
    if sign in ("<", r"\le"):
        return [f"{opener}-({bound}),{bound}{closer}"]
    return [rf"(-\infty,-({bound}){closer}", rf"{opener}{bound},\infty)"]


def _without(points: str) -> list[str] | None:
    """All real numbers but some points, which may be repeated as `x \\ne 2`."""
    texts = [
        trim(re.sub(r"^[a-z]\s*(?:\\ne(?![a-zA-Z])|=)", "", point.strip()))
        for point in split_top(points, _COMMA)
    ]
    values = [algebra.value(text) for text in texts]
    if len(texts) > MAX_POINTS or any(value is None for value in values):
        return None
    ordered = [
        text for _, text in sorted(zip(values, texts, strict=True), key=lambda pair: pair[0])
    ]
    ends = [r"-\infty", *ordered, r"\infty"]
    return [f"({low},{high})" for low, high in pairwise(ends)]


def _interval(text: str) -> str | None:
    """An inequality in one letter, or an interval, as an interval; None for any other text."""
    if outer_brackets(text):
        return text if len(split_top(text[1:-1], re.compile(","))) == 2 else None
    sides, signs = [trim(side) for side in split_top(text, RELATION)], relation_signs(text)
    if len(sides) == 3 and signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], [algebra.FLIPPED.get(sign, "") for sign in signs[::-1]]
    if len(sides) == 2 and re.fullmatch("[a-z]", sides[1]) and signs[0] in algebra.FLIPPED:
        sides, signs = sides[::-1], [algebra.FLIPPED[signs[0]]]
    match len(sides), signs:
        case 3, [("<" | r"\le") as low, ("<" | r"\le") as high] if re.fullmatch("[a-z]", sides[1]):
            return f"{'(' if low == '<' else '['}{sides[0]},{sides[2]}{')' if high == '<' else ']'}"
        case 2, [("<" | r"\le") as high] if re.fullmatch("[a-z]", sides[0]):
            return rf"(-\infty,{sides[1]}{')' if high == '<' else ']'}"
        case 2, [(">" | r"\ge") as low] if re.fullmatch("[a-z]", sides[0]):
            return rf"{'(' if low == '>' else '['}{sides[1]},\infty)"
    return None
