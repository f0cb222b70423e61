r"""LaTeX that only says how an answer looks: colours, sizes, spaces, environments of one cell."""

import re

_ARGUMENT = r"\{[^{}]*\}"
_COMMANDS = (
    "displaystyle|textstyle|scriptstyle|scriptscriptstyle|limits|nolimits|bf|rm|it|tt|sf|sc"
    "|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge"
    "|strut|mathstrut|hfill|noindent|centering|null|checkmark|blacksquare|square|Box|qed|star|therefore"
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
    r"(?:\s*\{[lcr|\s]*\})?(?P<cells>(?:(?!\\\\|\\begin|\\end).)*)(?:\\\\\s*)?\\end\{(?P=name)\}",
    re.DOTALL,
)

_CASES = re.compile(r"\\begin\{cases\}(?P<rows>(?:(?!\\begin|\\end|&).)*)\\end\{cases\}", re.DOTALL)
_ROW_GAP = re.compile(r"\\\\\s*\[[0-9.]+[a-z]{2}\]")


def dropped(text: str) -> str:
    """The text without layout; an environment of one row as what stands in it."""
    text = _SPACED.sub(" ", _DROPPED.sub("", _ROW_GAP.sub(r"\\\\", text)))
    return _CASES.sub(_listed, _ENVIRONMENT.sub(_row, text))


def _listed(match: re.Match[str]) -> str:
    """The rows of cases without conditions as a list."""
    return ", ".join(row.strip() for row in match["rows"].split(r"\\") if row.strip())


def _row(match: re.Match[str]) -> str:
    """An only row; of an array its only cell, as several are a matrix."""
    cells = match["cells"]
    is_matrix = match["name"] == "array" and "&" in cells
    return match.group() if is_matrix else cells.replace("&", "")
