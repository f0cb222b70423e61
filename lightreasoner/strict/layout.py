r"""LaTeX that only says how an answer looks: colours, sizes, spaces, environments of one cell."""

import re

_ARGUMENT = r"\{[^{}]*\}"
_COMMANDS = (
    "displaystyle|textstyle|scriptstyle|scriptscriptstyle|limits|nolimits|bf|rm|it|tt|sf|sc"
    "|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
    "|strut|mathstrut|hfill|noindent|centering|null|checkmark|blacksquare|square|Box|qed|star"
)
_DROPPED = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?(?=[\s()\[\]{}|\\]|$)"
    rf"|\\(?:{_COMMANDS})(?![a-zA-Z])"
    rf"|\\(?:text)?color(?:\[[^\[\]]*\])?\s*{_ARGUMENT}|\\f?colorbox\s*{_ARGUMENT}"
    rf"|\\(?:tag\*?|label)\s*{_ARGUMENT}|\\ensuremath(?![a-zA-Z])"
    r"|(?<!\\)\\[()\[\]]|\*\*|\\!|\u200b"
)
_SPACED = re.compile(rf"\\(?:[hv]space\*?|[hv]?phantom)\s*{_ARGUMENT}")
_ENVIRONMENT = re.compile(
    r"\\begin\{(?P<name>array|aligned|align\*?|gathered|split|equation\*?)\}"
    rf"(?:\s*\{{[lcr|\s]*\}})?(?P<cells>(?:(?!\\\\|\\begin|\\end).)*)(?:\\\\\s*)?\\end\{{(?P=name)\}}",
    re.DOTALL,
)


def dropped(text: str) -> str:
    """The text without layout; an environment of one row as what stands in it."""
    text = _SPACED.sub(" ", _DROPPED.sub("", text))
    return _ENVIRONMENT.sub(_row, text)


def _row(match: re.Match[str]) -> str:
    """An only row; of an array its only cell, as several are a matrix."""
    cells = match["cells"]
    is_matrix = match["name"] == "array" and "&" in cells
    return match.group() if is_matrix else cells.replace("&", "")
