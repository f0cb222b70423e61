r"""LaTeX as sympy objects: what latex2sympy reads, and what it must not be given.

latex2sympy (math-verify's parser) refuses most texts that it cannot read to their end; where it
would read something else instead (a product as a mixed number, a base as nothing), the text is
rewritten or refused first. Here it keeps the case of letters and a symbol's subscripts. Model text
is never run as Python.
"""

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from lightreasoner import untrusted
from lightreasoner.grading.strict import forms

MAX_CHARS = 400
"""Longer texts are not read as algebra."""
MAX_POWER = 10_000
"""The largest literal exponent of a tower of powers."""
MAX_POWERS = 10**6
"""The largest product of all literal exponents: that of ((a^b)^c)^d is b c d."""
MAX_NESTING = 30

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|det"
)
_PLAIN_FUNCTION = re.compile(rf"(?<![a-zA-Z\\])({_FUNCTIONS}|pi|sqrt)(?![a-z])")
_OTHER_NAMES = {
    "lg": r"\log_{10}", "lb": r"\log_{2}", "tg": r"\tan", "ctg": r"\cot", "arctg": r"\arctan",
}  # fmt: skip
"""Names of functions that the parser does not know."""
_OTHER_NAME = re.compile(rf"\\({'|'.join(_OTHER_NAMES)})(?![a-zA-Z])")
_GREEK_OR_LETTER = (
    r"(?:\\(?:dot|ddot|hat|bar|vec|tilde|mathcal)\s*(?:\{\s*\\?[a-zA-Z]+\s*\}|\\?[a-zA-Z])"
    r"|\\(?:[vV]ar)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho"
    r"|sigma|tau|upsilon|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|hbar)"
    r"(?![a-zA-Z])|\\?(?<![a-zA-Z])[a-zA-Z])"
)
_BELOW = r"(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|[a-zA-Z0-9])"
_DECORATED = re.compile(
    rf"{_GREEK_OR_LETTER}(?:\s*_\s*{_BELOW}'*|'+)|[a-zA-Z]'+"
    r"|\\(?:dot|ddot|hat|bar|vec|tilde|mathcal)\s*(?:\{\s*\\?[a-zA-Z]+\s*\}|\\?[a-zA-Z](?![a-zA-Z]))"
)
_CAPITAL_I = re.compile(r"(\\[a-zA-Z]+)|I(?!\s*\()")
_BASED = re.compile(r"[0-9)]\s*_")
"""A number in a base, such as 52_8, or (x)_n: the parser drops what stands below."""
_FACTOR = re.compile(
    r"(?P<root>\\sqrt\s*\[[^\[\]]*\])"  # whose bracket is no factor
    r"|(?P<factor>(?<![\^_0-9.\\])(?<![\^_] )(?:[0-9]+\.)?[0-9]+|[)\]]"
    r"|\\binom\s*\{[^{}]*\}\s*\{[^{}]*\})"
    r"\s*(?=[(\[{]|(?<=[)\]}])(?:[0-9]|\\(?:d?frac|binom))|\\binom)"
)
"""What the parser would add to a number right behind it, as in a mixed number."""
_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{4,}")
_COMMAND = re.compile(r"\\(?:variable|begin|end)\{\w+\}|\\[a-zA-Z]+")
_LONG_OR_SPLIT_NUMBER = re.compile(r"[0-9]{60}|(?<![_0-9])[0-9]+\s+[0-9]")
_EXPONENT = re.compile(r"\^\s*\{?\s*[+-]?\s*([0-9]+)")
_TOWER = re.compile(r"([0-9]+)\s*\^\s*\{?\s*([0-9]+)\s*\^\s*\{?\s*([0-9]+)")
_NESTED_POWERS = re.compile(r"\^\s*\{?[^{}^+\s]*\s*\^\s*\{?[^{}^+\s]*\s*\^")
_LARGE_FACTORIAL = re.compile(r"(?:[0-9]{4,}|\([^()a-zA-Z]*\)|!)\s*!|\\binom\s*\{[^}]*[0-9]{5}")


class Symbols:
    """One name for each decorated symbol (`x_{0}`, `\\dot{x}`), for all texts that are compared."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def encode(self, text: str) -> str:
        """The text, its decorated symbols named so that latex2sympy reads each as one."""
        text = _DECORATED.sub(self._name, text)
        # the parser's I is the imaginary unit, which answers write as i
        return _CAPITAL_I.sub(lambda match: match[1] or r" \variable{capitali}", text)

    def _name(self, match: re.Match[str]) -> str:
        key = re.sub(r"[{}\s]|\\text(?![a-z])", "", match.group())
        name = self.names.setdefault(key, f"v{len(self.names)}")
        return rf" \variable{{{name}}}"


def parse(text: str, symbols: Symbols) -> Any:
    """The sympy object that a whole text reads as; None if it does not, or is absurdly large."""
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text.replace(r"\text{ }", " "))
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = _OTHER_NAME.sub(lambda match: _OTHER_NAMES[match[1]], text)
    text = symbols.encode(text.replace("**", "^"))
    if len(text) > MAX_CHARS or r"\text" in text or _BASED.search(text) or not is_modest(text):
        return None
    text = re.sub(r"(?<![\\a-zA-Z{])\*", r"\\cdot ", text)
    text = _FACTOR.sub(lambda match: match["root"] or rf"{match['factor']}\cdot ", text)
    return quietly(
        lambda: latex2sympy(
            text, is_real=None, normalization_config=None, conversion_config=_CONVERSION
        )
    )


def is_modest(text: str) -> bool:
    """Whether a text is symbols, not words, and has no literal with absurdly many digits."""
    if _WORD.search(_COMMAND.sub(" ", text)) or forms.depth(text) > MAX_NESTING:
        return False
    if _LONG_OR_SPLIT_NUMBER.search(text) or _LARGE_FACTORIAL.search(text):
        return False
    # 9^{9^9} has 369 million digits
    towers = [(int(b[:9]), int(c[:9])) for _, b, c in _TOWER.findall(text)]
    if _NESTED_POWERS.search(text) or any(c > 20 or b**c > MAX_POWER for b, c in towers):
        return False
    return math.prod(max(1, int(power[:9])) for power in _EXPONENT.findall(text)) <= MAX_POWERS


def quietly(compute: Callable[[], Any]) -> Any:
    """A result, or None where the parser or sympy raises, in whatever way: the text is unreadable.

    latex2sympy raises bare `Exception`, and sympy whatever its internals meet. Raises MemoryError.
    """
    with warnings.catch_warnings(), untrusted.SuppressErrors():
        warnings.simplefilter("ignore")
        return compute()
    return None
