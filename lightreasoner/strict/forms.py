r"""How an answer is written, apart from what it says: one spelling for each notation.

`clean` maps the many ways to print the same LaTeX (sizes, spaces, fonts, `\dfrac`, unicode) to one;
`split_unit` parts an answer from the unit behind it; `split_top` cuts lists where no bracket is
open. Nothing here changes a value: what is dropped is layout.
"""

import re
import unicodedata

from lightreasoner.strict import numerals

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‑": "-", "⁄": "/", "∕": "/",
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/",
        "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
        "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ", "Δ": r"\Delta ", "φ": r"\phi ",
        "°": r"^\circ ", "√": r"\sqrt ", "∞": r"\infty ", "±": r"\pm ", "≈": r"\approx ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "′": "'", "％": "%", "’": "'", "‘": "'",
    }
)  # fmt: skip
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀-₉]+")
_SLASHED = re.compile("([⁰¹²³⁴-⁹]+)[⁄/]([₀-₉]+)")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_LAYOUT = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?(?=[\s()\[\]{}|\\]|$)"
    r"|\\(?:displaystyle|textstyle|limits|nolimits|bf|rm|it)(?![a-zA-Z])"
    r"|(?<!\\)\\[()\[\]]|\*\*|\\!|\u200b"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ~]|q?quad(?![a-zA-Z])|$)|~|\s+")
_DIGIT_GAP = re.compile(r"(?<=[0-9])(?:\\[,;:!]|\{,\}|\{\\,\})(?=[0-9]{3}(?![0-9]))")
_BARE = r"([0-9a-zA-Z]|\\(?:pi|theta|alpha|beta|gamma|lambda|mu|omega|phi)(?![a-zA-Z]))"
"""An argument without braces."""
_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\[lr]vert(?![a-zA-Z])", "|"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:Bbb|mathbb)\s*\{?\s*R\s*\}?", r"\\mathbb{R}"),
        (r"\\(?:b|v|B)matrix|\{[bB]matrix\}", "{pmatrix}"),
        (r"\\%", "%"),
        (r"\^\s*(?:\\prime(?![a-zA-Z])|\{\s*\\prime\s*\})", "'"),
        (r"\^\s*\{\s*\\prime\s*\\prime\s*\}", "''"),
        (r"\\(?:textdegree|degree)(?![a-zA-Z])", r"^\\circ"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ"),
        (r"\\(?:mathrm|text|textrm|mbox)\s*\{\s*(e|i|d|exp|ln|log|sin|cos|tan)\s*\}", r"\1"),
        (r"\\(?:mathrm|textrm|mbox|textnormal|operatorname\*?|hbox)\s*\{", r"\\text{"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\{,\}", ","),
        (rf"\\frac\s*{_BARE}\s*{_BARE}", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*{_BARE}\s*\{{", r"\\frac{\1}{"),
        (rf"\\frac\s*(\{{[^{{}}]*\}})\s*{_BARE}", r"\\frac\1{\2}"),
        (rf"\\sqrt\s*(\[[^\[\]]*\]|)\s*{_BARE}", r"\\sqrt\1{\2}"),
        (r"\\sqrt\s*(\\frac\{[^{}]*\}\{[^{}]*\})", r"\\sqrt{\1}"),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (r"\\text\{\s*(?:%|percent|per cent)\s*\}", "%"),
        (r"\s*\\text\{\s*(thousand|million|billion|trillion)\s*\}", r" \1"),
        (r"\s*\\text\{\s*(thousand|million|billion|trillion)\s+(?=[a-z])", r" \1\\text{"),
        (r"(?<![a-zA-Z\\])np\.(?=[a-z])", ""),
    )
)
_FONTS = re.compile(
    r"\\(?:mathbf|textbf|boldsymbol|mathit|textit|emph|mathsf|mathnormal|bm|boxed|fbox|underline)"
    r"\s*\{"
)
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}

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
    """.split()  # noqa: SIM905
)
_POWER = r"(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_TEXT_UNIT = rf"\\text\{{[^{{}}]*\}}{_POWER}"
_TAIL_TEXT = re.compile(
    rf"(?:\s|/|\\cdot)*{_TEXT_UNIT}(?:\s*(?:/|\\cdot|\\times)?\s*{_TEXT_UNIT})*"
)
_TAIL_WORDS = re.compile(rf"[a-zA-Z](?:[a-zA-Z.'/\- ]*[a-zA-Z.])?{_POWER}")
_GAP = re.compile(r"\s+|(?<=[0-9}])(?=(?:cm|mm|km|kg|mph|ft|inches|feet)\b)")
_PARTS = re.compile(
    r"\b[a-z]*(?:(?:illion|undred|ousand)(?:th)?|lfth|venth|eenth|entieth|[rfinv]tieth)s?\b"
    r"|\b(?:gross|score|dozens|lakh|crore|bn|per cent|basis points?|fewer|wrong)\b"
)
"""Words that are a factor or a denial, not a unit."""
_IS_NO_UNIT = re.compile(r"[knxyzM]")
"""Single letters that are factors or variables even in an upright font."""
_SMALL_WORDS = frozenset({"a", "of", "per", "sq", "cu"})
_DEGREES = re.compile(r"\s*\^\s*\\circ\s*(?:\\text\{\s*)?[CF]?\}?")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)")


def clean(text: str) -> str:
    """The text with one spelling for each notation, single spaces, and no layout around it."""
    # the digits behind the sign of a root belong to it; \\sqrt takes one
    text = re.sub(r"√\s*([0-9]+)", r"\\sqrt{\1}", text)
    text = unicodedata.normalize("NFKC", _unicode_scripts(text).translate(_UNICODE))
    text = _DIGIT_GAP.sub("", text)
    text = re.sub(r"\\text\{\s*\\\$\s*([^{}]*)\}", r"\\$\1", text)
    text = re.sub(r"\\\$", r"\\text{dollars}", text).replace("$", "")
    text = re.sub("[£€¥]", r"\\text{money}", text)
    text = _SPACE.sub(" ", _LAYOUT.sub("", text))
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _unwrap_fonts(text)
    return re.sub(r"^([+-]?)\s*\\text\{(dollars|money)\}\s*(.+)$", r"\1\3\\text{\2}", trim(text))


def _unicode_scripts(text: str) -> str:
    """Raised and lowered digits and vulgar fractions in LaTeX: 2⁵ is 2^{5}, not 25."""

    def plain(script: str) -> str:
        return unicodedata.normalize("NFKC", script).replace("−", "-")

    text = _SLASHED.sub(lambda m: rf"\frac{{{plain(m[1])}}}{{{plain(m[2])}}}", text)
    text = _RAISED.sub(lambda m: f"^{{{plain(m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{plain(m[0])}}}", text)
    return _VULGAR_FRACTION.sub(
        lambda m: r"\frac{{{}}}{{{}}}".format(*plain(m[0]).split("⁄")), text
    )


def trim(text: str) -> str:
    r"""The text without space, closing punctuation, a leading sign of equality, or outer braces."""
    before = None
    while text != before:
        before = text
        text = text.strip().strip("\\").strip() if text.endswith("\\") else text.strip()
        text = re.sub(r"^(?:=|:|\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z])|\\implies)\s*", "", text)
        # ".5" keeps its point, "7." and "7;" lose theirs
        text = re.sub(r"\s*[.;,:]+$", "", text)
        if whole := _WHOLE_TEXT.fullmatch(text):
            text = whole.group(1)
        if is_enclosed(text, "{"):
            text = text[1:-1]
    return text


def _unwrap_fonts(text: str) -> str:
    """The text without font commands and boxes, their content kept."""
    for _ in range(20):
        match = _FONTS.search(text)
        if match is None:
            return text
        end = closing(text, match.end() - 1)
        if end is None:
            return text
        text = f"{text[: match.start()]}{{{text[match.end() : end]}}}{text[end + 1 :]}"
    return text


def closing(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` closes; None if it does not. Escaped ones are text."""
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        if brace.group() in "{}":
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                return brace.start()
    return None


def is_enclosed(text: str, opener: str) -> bool:
    """Whether one pair of brackets, opened by `opener`, encloses the whole text."""
    closer = _CLOSERS[opener]
    if len(text) < 2 or text[0] != opener or text[-1] != closer or text[-2] == "\\":
        return False
    depth = 0
    for at, character in enumerate(text):
        depth += (character == opener) - (character == closer)
        if depth == 0:
            return at == len(text) - 1
    return False


def depth(text: str) -> int:
    """How deep brackets of any kind nest."""
    deepest = level = 0
    for character in text:
        level += (character in "([{") - (character in ")]}")
        deepest = max(deepest, level)
    return deepest


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    r"""The parts of a text between separators that stand outside all brackets and environments."""
    parts, start, level = [], 0, 0
    token = re.compile(
        rf"(?P<separator>{separator.pattern})|\\begin\{{|\\end\{{\w+\}}|\\?[(\[{{]|\\?[)\]}}]|\\."
    )
    for match in token.finditer(text):
        found = match.group()
        if match["separator"] is not None:
            if level == 0:
                parts.append(text[start : match.start()])
                start = match.end()
        elif found == "\\begin{":
            level += 2  # its own brace, and the environment
        elif found.startswith("\\end{"):
            level -= 1
        elif found[-1] in "([{":
            level += 1
        elif found[-1] in ")]}":
            level -= 1
    return [*parts, text[start:]]


def split_unit(text: str) -> tuple[str, str | None]:
    """A text without the unit behind it, and the unit if it is one that is told apart."""
    units: set[str] = set()
    before = None
    while text != before:
        before = text
        for part in (_without_marked, _without_words):
            text, unit = part(text)
            units |= {unit} if unit else set()
    return text, units.pop() if len(units) == 1 else None


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
        spelt = numerals.is_spelt(rest)
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
    if not bare and _IS_NO_UNIT.fullmatch(text.strip()):
        return False
    if (
        _PARTS.search(text.lower())
        or len(words) > 8
        or (_NOT_UNITS | numerals.NUMBER_WORDS) & set(words)
    ):
        return False
    if not bare:
        return True
    return any(len(word) > 1 for word in words) and all(
        (len(word) > 1 and word in UNITS)
        or (len(word) > 2 and set(word) & set("aeiouy"))
        or word in _SMALL_WORDS
        for word in re.findall(r"(?<![a-zA-Z/.'])[a-zA-Z]+", text.lower())
    )
