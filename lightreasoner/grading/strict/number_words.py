"""Numbers in words: English ones with dozens, halves and quarters, and Chinese ones."""

import re
from fractions import Fraction

MAX_CHARS = 200

_SMALL = {
    word: value
    for value, word in enumerate(
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
        fifteen sixteen seventeen eighteen nineteen
        """.split()  # noqa: SIM905
    )
} | {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
FACTORS = _SCALES | {"dozen": 12, "lakh": 10**5, "crore": 10**7}
"""Words behind a number that multiply it."""
WORDS = frozenset({*_SMALL, *FACTORS, "hundred", "half", "percent"})

_PARTS = {
    name: below
    for below, names in {
        2: "half halves", 3: "third thirds", 4: "quarter quarters fourth fourths",
        5: "fifth fifths", 6: "sixth sixths", 7: "seventh sevenths", 8: "eighth eighths",
        9: "ninth ninths", 10: "tenth tenths",
    }.items()
    for name in names.split()
}  # fmt: skip
_FACTOR = re.compile(rf"(?P<amount>.+?) ?\b(?P<factor>{'|'.join(FACTORS)})")
_PART = re.compile(
    rf"(?:(?P<whole>.+?) and )?(?:(?P<top>\S+(?: \S+)?) )?(?P<part>{'|'.join(_PARTS)})"
)
_DIGITS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,50}(?:\.[0-9]{1,50})?")

_HAN = {character: value for value, character in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_SCALES = {"万": 10**4, "亿": 10**8}
HAN = "".join([*_HAN, *_HAN_UNITS, *_HAN_SCALES])


def parse_words(text: str) -> Fraction | None:
    """The number that a text spells out, digits before its last word allowed; else None."""
    if not text or len(text) > MAX_CHARS:
        return None
    if text[0] in HAN:
        return _han(text)
    text = " ".join(text.lower().replace("-", " ").split())
    value = integer(text)
    if value is not None:
        return Fraction(value)
    if match := _FACTOR.fullmatch(text):
        amount = Fraction(1, 2) if match["amount"] == "half a" else _amount(match["amount"])
        return None if amount is None else amount * FACTORS[match["factor"]]
    return _mixed(text)


def _amount(text: str) -> Fraction | None:
    """Digits, words or "a"."""
    if _DIGITS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    value = 1 if text in ("a", "an") else integer(text)
    return _mixed(text) if value is None else Fraction(value)


def _mixed(text: str) -> Fraction | None:
    """`half`, `two thirds`, `5 and a half`; a singular such as "third" needs "a" or "one"."""
    match = _PART.fullmatch(text)
    if match is None:
        return None
    part, top = match["part"], match["top"]
    if not part.endswith("s") and top not in ("a", "an", "one", "1", None):
        return None
    if top is None and (part != "half" or match["whole"]):
        return None
    above = Fraction(1) if top is None else _whole(top)
    whole = _whole(match["whole"]) if match["whole"] else Fraction(0)
    return None if above is None or whole is None else whole + above / _PARTS[part]


def _whole(text: str) -> Fraction | None:
    if re.fullmatch("[0-9]{1,50}", text):
        return Fraction(text)
    value = 1 if text in ("a", "an") else integer(text)
    return None if value is None else Fraction(value)


def integer(text: str) -> int | None:
    """The integer that English words spell out, "and" and hyphens allowed; None for other text."""
    words = text.lower().replace("-", " ").split()
    if not words or len(words) > 20 or words[0] == "and" or words[-1] == "and":
        return None
    total = group = 0
    last_scale = 10**15
    group_is_empty = True
    for word in words:
        if word in _SMALL and (group_is_empty or _continues(group, _SMALL[word])):
            group, group_is_empty = group + _SMALL[word], False
        elif word == "hundred" and 0 < group < 10:
            group *= 100
        elif word in _SCALES and group and _SCALES[word] < last_scale:
            last_scale = _SCALES[word]
            total, group, group_is_empty = total + group * last_scale, 0, True
        elif word != "and":
            return None
    return total + group


def _continues(group: int, value: int) -> bool:
    """Whether a small number may follow: "twenty one", "one hundred two", never "one two"."""
    if group % 100 == 0:
        return group > 0
    return group % 10 == 0 and group % 100 >= 20 and 0 < value < 10


def _han(text: str) -> Fraction | None:
    """The number of Chinese numerals, by units (三百六十) or digit by digit (二〇二四)."""
    if len(text) > 20 or any(character not in HAN for character in text):
        return None
    if len(text) > 1 and all(character in _HAN for character in text):
        return Fraction("".join(str(_HAN[character]) for character in text))
    total = group = digit = 0
    for character in text:
        if character in _HAN:
            digit = _HAN[character]
        elif character in _HAN_UNITS:
            group, digit = group + (digit or 1) * _HAN_UNITS[character], 0
        else:
            total, group, digit = (total + group + digit) * _HAN_SCALES[character], 0, 0
    return Fraction(total + group + digit)
