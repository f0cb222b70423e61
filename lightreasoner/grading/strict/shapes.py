r"""The shape of a cleaned answer: a list, a set, a tuple, an interval, a relation, a name.

Texts in, texts out; what they are worth is left to compare.py.
"""

import re
from itertools import pairwise

from lightreasoner.grading.strict import number_words, numerals
from lightreasoner.grading.strict.forms import is_enclosed, split_top, trim

SEPARATOR = re.compile(
    r"[,;]|\\text\{\s*(?:,?\s*(?:and|or))\s*,?\s*\}|\s(?:and|or)\s|\\(?:lor|vee)\s"
)
RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
NAME = re.compile(
    r"\\?[a-zA-Z]+'*(?:_(?:\{[^{}]*\}|\w))?"
    r"|\\text\{[^{}]*\}|[A-Za-z][A-Za-z ]*|\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)"
    r"|(?:m\s*)?\\(?:angle|triangle|overline|overarc|widehat|mathrm|dot|hat|vec|bar)\s*\{?\s*\w+\s*\}?"
    r"|(?P<function>\\?[a-zA-Z]+'*(?:_\{?\w\}?)?(?:\^\{?-?\w+\}?)?)\s*\((?P<argument>[^()]*)\)"
)
LEAD = re.compile(
    r"^(?:\\text\{)?\s*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|result|total|solution)"
    r"(?:\s+is)?\s*[:=]?\s*\}?\s*(?=[^\s}a-zA-Z]|$)",
    re.IGNORECASE,
)

_BASED = re.compile(
    r"\(?\s*(?P<digits>[0-9][0-9A-F]*)\s*\)?\s*"
    r"(?:_\s*\{?\s*(?:\\text\{\s*)?|\{?(?:\\text\{)?\s*\(?\s*(?:in )?base[ -]\s*)"
    r"(?P<base>[0-9]{1,2}|[a-z]+)\s*[)}]*"
)
_ALSO = r"(?:or(?: equivalently)?|equivalently|that is|i\.e\.?)"
_ALTERNATIVE = re.compile(
    rf",?\s*\\text\{{\s*,?\s*{_ALSO}\s*,?\s*\}}|,?\s{_ALSO},?\s|\\(?:lor|vee|iff)(?![a-zA-Z])"
)
_IN_BRACKETS = re.compile(
    rf"(?P<value>.*?\S)\s*(?:\\text\{{\s*)?\(\s*(?:\\text\{{\s*)?(?:{_ALSO}\s*,?)?\s*\}}?\s*(?P<other>.*)\)\}}?"
)
_BOUND = r"\(?\s*[a-zA-Z]\s*(?:\\(?:in|ge|le|ne|gt|lt)(?![a-zA-Z])|<|>).*"
_UNEQUAL = re.compile(r"[<>]|\\(?:ge|le|ne|gt|lt)(?![a-zA-Z])")
_QUALIFIER = re.compile(
    r"(?<=\S)[\s,]*(?:(?:\\text\{[\s,(]*)?\bfor\s+(?:all|any|every|each)\b.*"
    rf"|(?:\\text\{{[\s,(]*)?\b(?:where|with|for)\b[\s}}]*{_BOUND}"
    r"|,\s*\(?[a-z]\s*\\in\s*\\mathbb.*|\s*\(\s*[a-z]\s*\\in\s*\\mathbb.*\))$",
    re.DOTALL,
)
"""For which numbers an answer holds; not if it holds for some only, as in "if n is even"."""
_CAPITALS = frozenset({"YES", "NO", "TRUE", "FALSE"})


def based(text: str) -> tuple[str, int] | None:
    """The digits and the base of a number such as 52_8; None for any other text."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    name = match["base"]
    base = int(name) if name.isdigit() else number_words.integer(name) or 0
    if not all(int(digit, 16) < base for digit in match["digits"]):
        return None
    return match["digits"].lstrip("0") or "0", base


def time_of_day(text: str) -> tuple[str, str | None] | None:
    """A clock's digits and "am" or "pm", however spelt; None for any other text."""
    bare = re.sub(r"\\text|[{}\s.]", "", text).lower()
    match = re.fullmatch(r"0?([0-9]{1,2}(?::[0-9]{2}){1,2})([ap]m)", bare)
    return (match[1], match[2]) if match else None


def are_same_words(answer: str, gold: str) -> bool:
    """Whether two texts are the same words, their case apart; in RC and ab, case tells symbols."""
    is_short = re.fullmatch("[A-Za-z]{2,3}", gold) is not None
    if (is_short or gold.isupper()) and gold.upper() not in _CAPITALS:
        # "Odd" at a sentence's start is "odd"
        first = 1 if len(gold) > 2 and not gold.isupper() else 0
        return answer[first:] == gold[first:] and words(answer) == words(gold)
    return words(answer) == words(gold)


def alternatives(text: str) -> list[str]:
    r"""The ways in which one value is written: `\frac12 \text{ or } 0.5`; the text if it is one."""
    if both := _IN_BRACKETS.fullmatch(text):
        return [both["value"], both["other"]]
    return split_top(text, _ALTERNATIVE)


def in_radians(answer: str, gold: str) -> tuple[str, str]:
    r"""Two texts, degrees in radians where one of them has a \pi or the sine of an angle."""
    pattern = re.compile(r"([0-9.]+)\s*\^\s*\\circ")
    texts = (answer, gold)
    is_mixed = any(r"\pi" in text for text in texts) or re.search(
        r"\\(?:sin|cos|tan|cot)(?![a-z])", answer + gold
    )
    if not is_mixed:
        return texts
    first, second = (pattern.sub(r"\\frac{\1\\pi}{180}", text) for text in texts)
    return first, second


def without_qualifier(text: str) -> str:
    r"""The text without what says for which numbers it holds: `2n \text{ for all } n`.

    A number that holds under a bound only, as in `3 \text{ for } n > 2`, keeps it.
    """
    found = _QUALIFIER.search(text)
    if found is None:
        return text
    answer, qualifier = text[: found.start()], found.group()
    is_number = re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", answer) is None
    return text if is_number and _UNEQUAL.search(qualifier) else trim(answer)


def squeezed(text: str) -> str:
    """The text without space, but for what keeps two numbers apart."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def words(text: str) -> str:
    """A text without case, space, braces and punctuation at its end."""
    return re.sub(r"[\s{}]|\\text", "", text).rstrip(".,;:!").casefold()


def without_lead(text: str) -> str:
    """The text without words that only announce the answer."""
    shorter = LEAD.sub("", text, count=1)
    return trim(shorter) if shorter else text


def split_elements(text: str) -> list[str]:
    r"""The elements of a list or set, each \pm as two; a tuple, an interval or a value is one."""
    text = text.strip()
    if text.startswith(r"\{") and text.endswith(r"\}"):
        text = text[2:-2]
    parts = [text] if numerals.parse_number(text) else split_top(text, SEPARATOR)
    parts = [part for part in parts if part.strip()] or [text]
    return [signed for part in parts for signed in both_signs(part)]


def both_signs(text: str) -> list[str]:
    r"""A value with \pm as its two values, the upper signs first; any other text as it is."""
    if not re.search(r"\\pm(?![a-zA-Z])", text):
        return [text]
    plus = re.sub(r"\\mp(?![a-zA-Z])", "-", re.sub(r"\\pm(?![a-zA-Z])", "+", text))
    minus = re.sub(r"\\mp(?![a-zA-Z])", "+", re.sub(r"\\pm(?![a-zA-Z])", "-", text))
    return [plus, minus]


def without_grouping(text: str) -> str:
    """A single value without brackets that only group it: (48) is 48, [3] is 3."""
    text = trim(text)
    while is_enclosed(text, "(") or is_enclosed(text, "["):
        if len(split_top(text[1:-1], re.compile("[,;]"))) > 1:
            return text
        text = trim(text[1:-1])
    return text


def outer_brackets(text: str) -> str | None:
    """The outer pair of a tuple or an interval, such as "(]"; None for any other text."""
    if len(text) < 4 or text[0] not in "([" or text[-1] not in ")]":
        return None
    inner = text[1:-1]
    level = 0
    for character in inner:
        level += (character in "([") - (character in ")]")
        if level < 0:
            return None
    return text[0] + text[-1] if len(split_top(inner, re.compile("[,;]"))) > 1 else None


def relation_signs(text: str) -> list[str]:
    """The signs between a relation's sides, in order; < and > are written so."""
    sides = split_top(text, RELATION)
    signs, at = [], 0
    for side, _ in pairwise(sides):
        at += len(side)
        match = RELATION.match(text, at)
        signs.append({r"\lt": "<", r"\gt": ">"}.get(match.group(), match.group()) if match else "")
        at = match.end() if match else at
    return signs


def with_argument_of(left: str, right: str, gold_left: str) -> str | None:
    """f(x) = .. in the letter of f(n) = ..; None unless both are one function of one letter."""
    a, b = NAME.fullmatch(left), NAME.fullmatch(gold_left)
    if not (a and b and a["function"] and a["function"] == b["function"]):
        return None
    old, new = a["argument"].strip(), b["argument"].strip()
    if not (re.fullmatch("[a-z]", old) and re.fullmatch("[a-z]", new)):
        return None
    return re.sub(rf"(?<![a-zA-Z\\]){old}(?![a-zA-Z])", new, right)
