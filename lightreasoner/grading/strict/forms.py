r"""How an answer is written, apart from what it says: one spelling for each notation.

`clean` maps the many ways to print the same LaTeX (spaces, fonts, `\dfrac`, unicode) to one;
`split_top` cuts lists where no bracket is open. Nothing here changes a value: what is dropped is
layout (layout.py).
"""

import re
import unicodedata

from lightreasoner.grading.strict import currencies, layout

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‑": "-", "⁄": "/", "∕": "/",
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/",
        "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
        "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ", "Δ": r"\Delta ", "φ": r"\phi ",
        "°": r"^\circ ", "√": r"\sqrt ", "∞": r"\infty ", "±": r"\pm ", "≈": r"\approx ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "。": ".", "、": ", ",
        "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "′": "'", "％": "%", "’": "'", "‘": "'",
    }
)  # fmt: skip
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("[₀-₉]+")
_SLASHED = re.compile("([⁰¹²³⁴-⁹]+)[⁄/]([₀-₉]+)")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_SPACE = re.compile(r"(?<!\\)\\(?:[,;:> ~]|q?quad(?![a-zA-Z])|$)|~|\s+")
_DIGIT_GAP = re.compile(r"(?<=[0-9])(?:\\[,;:!]|\{,\}|\{\\,\}|,\s*\\!\s*)(?=[0-9]{3}(?![0-9]))")
_APOSTROPHES = re.compile(r"(?<![0-9'])[0-9]{1,3}(?:['’][0-9]{3})+(?![0-9'])")
_BARE = r"([0-9a-zA-Z]|\\(?:pi|theta|alpha|beta|gamma|lambda|mu|omega|phi)(?![a-zA-Z]))"
"""An argument without braces."""
_SCALES = "thousand|million|billion|trillion|lakh|crore|dozen"
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
        (r">=", r"\\ge "),
        (r"<=", r"\\le "),
        (r"!=(?!=)", r"\\ne "),
        (r"(?<=[)\]}])\s*U\s*(?=\\?[(\[{])", r"\\cup "),
        (r"(?<![a-zA-Z\\])(?:inf|infinity|oo(?=\s*[)\],]))(?![a-zA-Z])", r"\\infty "),
        (r"\^\s*(?:\\prime(?![a-zA-Z])|\{\s*\\prime\s*\})", "'"),
        (r"\^\s*\{\s*\\prime\s*\\prime\s*\}", "''"),
        (r"\\(?:textdegree|degree)(?![a-zA-Z])", r"^\\circ"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ"),
        (r"\\(?:mathrm|text|textrm|mbox)\s*\{\s*(e|i|d|exp|ln|log|sin|cos|tan)\s*\}", r"\1"),
        (r"\\(?:mathrm|textrm|mbox|textnormal|operatorname\*?|hbox)\s*\{", r"\\text{"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\{,\}", ","),
        (r"\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}", r"\\binom{\1}{\2}"),
        (r"\{\s*([^{}]*?)\s*\\over\s+([^{}]*?)\s*\}", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*{_BARE}\s*{_BARE}", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*{_BARE}\s*\{{", r"\\frac{\1}{"),
        (rf"\\frac\s*(\{{[^{{}}]*\}})\s*{_BARE}", r"\\frac\1{\2}"),
        (rf"\\sqrt\s*(\[[^\[\]]*\]|)\s*{_BARE}", r"\\sqrt\1{\2}"),
        (r"\\sqrt\s*(\\frac\{[^{}]*\}\{[^{}]*\})", r"\\sqrt{\1}"),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (r"\\text\{\s*(?:%|percent|per cent)\s*\}", "%"),
        (rf"\s*\\text\{{\s*({_SCALES})\s*\}}", r" \1"),
        (rf"\s*\\text\{{\s*({_SCALES})\s+(?=[a-z])", r" \1\\text{"),
        (r"\\text\{\s*(?:negative|minus)\s*\}\s*", "-"),
        (r"(?<![a-zA-Z\\])np\.(?=[a-z])", ""),
    )
)
_FONTS = re.compile(
    r"\\(?:mathbf|textbf|texttt|mathtt|textsf|textsc|textup|pmb|framebox|boldsymbol|mathit|textit|emph|mathsf|mathnormal|bm|boxed|fbox|underline)"
    r"\s*\{"
)
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


def clean(text: str) -> str:
    """The text with one spelling for each notation, single spaces, and no layout around it."""
    # the digits behind the sign of a root belong to it; \\sqrt takes one
    text = re.sub(r"√\s*([0-9]+)", r"\\sqrt{\1}", text)
    text = unicodedata.normalize("NFKC", _unicode_scripts(text).translate(_UNICODE))
    text = "".join(map(_ascii_digit, text))
    text = _APOSTROPHES.sub(lambda match: match.group().replace("'", ""), _DIGIT_GAP.sub("", text))
    text = _SPACE.sub(" ", layout.dropped(currencies.spelt(text)))
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return currencies.moved_behind(trim(_unwrap_fonts(text)))


def _ascii_digit(character: str) -> str:
    """A decimal digit of any script as its ASCII digit; any other character as it is."""
    is_foreign = not character.isascii() and character.isdecimal()
    return str(unicodedata.decimal(character)) if is_foreign else character


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
