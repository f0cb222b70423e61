r"""Units behind a value: which there are, and a text without its own."""

import re

from lightreasoner.grading.strict import currencies, number_words

UNITS = {
    name: unit
    for unit, names in {
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "in": "in inch inches",
        "ft": "ft foot feet",
        "yd": "yd yard yards",
        "mi": "mi mile miles",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "g": "g gram grams",
        "kg": "kg kilogram kilograms",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "dollar": "dollar dollars usd",
        "cent": "cent cents",
        "am": "am a.m. a.m",
        "pm": "pm p.m. p.m",
        "degree": "degree degrees deg",
        "radian": "radian radians rad",
        "mph": "mph",
        "eV": "ev",
        "J": "j joule joules",
        "Hz": "hz hertz",
        "kmh": "km/h kmh kph",
    }.items()
    for name in names.split()
}
"""Units that are told apart, by their lower-case names; any other unit is as good as none."""

_NOT_UNITS = frozenset(
    """
    or and to by plus minus over not pi sqrt sin cos tan sec csc cot log ln exp arcsin arccos
    arctan max hundred thousand million billion trillion dozen half third quarter halves
    thirds quarters fourth fourths fifths sixths sevenths eighths ninths tenths hundredths
    squared cubed factorial
    if for when where with is are infinity undefined none percent remainder
    less than twice doubled tripled tens pair pairs fold negative debt short
    """.split()  # noqa: SIM905
)
_POWER = r"(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_TEXT_UNIT = rf"\\text\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}}{_POWER}"
_TAIL_TEXT = re.compile(
    rf"(?:\s|/|\\cdot)*{_TEXT_UNIT}(?:\s*(?:/|\\cdot|\\times)?\s*{_TEXT_UNIT})*"
)
_TAIL_FRACTION = re.compile(rf"\s*\\frac\{{\s*{_TEXT_UNIT}\s*\}}\{{\s*{_TEXT_UNIT}\s*\}}$")
_CJK = r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]"
_TAIL_CJK = re.compile(rf"(?<=[0-9%{number_words.HAN}])\s*(?P<unit>{_CJK}{{1,8}})$")
_LETTER_UNIT = re.compile(r"(?P<number>.*[0-9])\s+(?P<unit>[mgshlLCJKNVW])")
_COMPOUND = re.compile(r"\s+[mgJNCVWL]/(?:s|min|h|mol|kg|m|K|L)(?:\s*\^\s*\{?[23]\}?)?$")
"""Units of single letters are units only as such a quotient, and only behind a space."""
_TAIL_WORDS = re.compile(rf"[a-zA-Z](?:[a-zA-Z.'/\- ]*[a-zA-Z.])?{_POWER}")
_GAP = re.compile(r"\s+|(?<=[0-9}])(?=(?:cm|mm|km|kg|mph|ft|inches|feet)\b)")
_PARTS = re.compile(
    r"\b[a-z]*(?:(?:illion|undred|ousand)(?:th)?|lfth|venth|eenth|entieth|[rfinv]tieth)s?\b"
    r"|\b(?:gross|score|dozens|lakh|crore|bn|per cent|basis points?|fewer|wrong)\b"
)
"""Words that are a factor or a denial, not a unit."""
_IS_NO_UNIT = re.compile(r"[knxyzM]")
"""Single letters that are factors or variables even in an upright font."""
_CURRENCIES = frozenset(currencies.CODES.split("|"))
_SMALL_WORDS = frozenset({"a", "of", "per", "sq", "cu"})
_DEGREES = re.compile(r"\s*\^\s*\\circ\s*(?:\\text\{\s*)?[CF]?\}?")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)")


def split_unit(text: str, letters: bool = False) -> tuple[str, str | None]:
    """A text without the unit behind it, and the unit if it is one that is told apart.

    `letters`: a bare single letter behind a number is a unit, not a variable.
    """
    if letters and (match := _LETTER_UNIT.fullmatch(text)):
        return match["number"], UNITS.get(match["unit"].lower())
    units: set[str] = set()
    before = None
    while text != before:
        before = text
        for part in (_without_quotient, _without_cjk, _without_marked, _without_words):
            text, unit = part(text)
            units |= {unit} if unit else set()
    return text, units.pop() if len(units) == 1 else None


def _without_quotient(text: str) -> tuple[str, str | None]:
    r"""The text without a final `\frac{\text{m}}{\text{s}}` or m/s behind a number."""
    for pattern in (_TAIL_FRACTION, _COMPOUND):
        match = pattern.search(text)
        if match and re.search(r"[0-9})]$", text[: match.start()]):
            return text[: match.start()], None
    return text, None


def _without_cjk(text: str) -> tuple[str, str | None]:
    """The text without a Chinese, Japanese or Korean unit behind a number; a factor is none."""
    match = _TAIL_CJK.search(text)
    is_unit = match and not set(match["unit"]) & set(number_words.HAN)
    return (text[: match.start()], None) if match and is_unit else (text, None)


def _without_marked(text: str) -> tuple[str, str | None]:
    r"""The text without a final `\text{...}`, degree sign or ordinal ending, and what that says."""
    for pattern in (_TAIL_TEXT, _DEGREES, _ORDINAL):
        match = next((m for m in pattern.finditer(text) if m.end() == len(text)), None)
        if match is None or not match.start():
            continue
        words = re.sub(r"\\(?:text|cdot|times)|[{}]", " ", match.group())
        rest = text[: match.start()].rstrip()
        if _is_unit(words, bare=False) and (rest[-1:].isalnum() or rest[-1:] in ")]}%.!|"):
            name = "degree" if pattern is _DEGREES else _unit_name(words)
            return rest, name
    return text, None


def _without_words(text: str) -> tuple[str, str | None]:
    """The text without plain words behind a number, and what they say."""
    for gap in _GAP.finditer(text):
        rest, words = text[: gap.start()], text[gap.end() :]
        spelt = number_words.parse_words(rest) is not None
        is_value = spelt or rest[-1:] in set("0123456789)}%")
        if is_value and _TAIL_WORDS.fullmatch(words) and _is_unit(words, bare=not spelt):
            return rest, _unit_name(words)
    return text, None


def _unit_name(words: str) -> str | None:
    """The name of a unit that is told apart, with its power: "ft^2"; None for any other."""
    match = re.fullmatch(
        r"\s*(sq(?:uare|\.)?|cubic)?\s*([a-zA-Z./]+?)\s*(?:\^\s*([0-9]))?\s*", words
    )
    name = UNITS.get(match[2].lower()) if match else None
    if match is None or name is None:
        return None
    power = match[3] or ("1" if match[1] is None else "3" if match[1] == "cubic" else "2")
    return name if power == "1" else f"{name}^{power}"


def _is_unit(text: str, bare: bool) -> bool:
    """Whether words can be a unit; bare ones must not be single letters, which are variables."""
    words = re.findall(r"[a-zA-Z]+", text.lower())
    # a digit is a power, or the text is another value
    if re.search(r"(?<![\^0-9 {-])[0-9]|(?<!\^)(?<!\^[ {-])(?<!\^[ {][ {-])[0-9]|^\s*,", text):
        return False
    if not bare and _IS_NO_UNIT.fullmatch(text.strip()):
        return False
    if (
        set(text) & set(number_words.HAN)
        or _PARTS.search(text.lower())
        or len(words) > 8
        or (_NOT_UNITS | number_words.WORDS) & set(words)
    ):
        return False
    if not bare:
        return True
    if text.strip().lower() in UNITS and len(words) > 1:
        return True
    return any(len(word) > 1 for word in words) and all(
        (len(word) > 1 and word in UNITS)
        or word.upper() in _CURRENCIES
        or (len(word) > 2 and set(word) & set("aeiouy"))
        or word in _SMALL_WORDS
        for word in re.findall(r"(?<![a-zA-Z/.'])[a-zA-Z]+", text.lower())
    )
