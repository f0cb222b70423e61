r"""Numbers as answers print them, read exactly.

Integers and decimals with or without commas, fractions, mixed numbers, scientific notation,
percentages, repeating decimals, and number words. Text that is not one number as a whole
reads as None. Every pattern bounds its digits, so that a value is cheap to hold.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from lightreasoner.grading.strict import number_words

MAX_NUMBER_CHARS = 200
"""Longer texts are no numbers."""

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}|[0-9]+)"
"""With or without commas, the Indian ones too: 10,00,000 is ten lakh."""
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)"
_EXPONENT = r"\{?\s*(?P<power>[+-]?[0-9]{1,3})\s*\}?"
_SCIENTIFIC = re.compile(
    rf"(?P<digits>{_DECIMAL})(?:[eE](?P<e>[+-]?[0-9]{{1,3}})"
    rf"|\s*(?:\\times|\\cdot|\*|[xX])\s*10\s*\^\s*{_EXPONENT})"
)
_POWER_OF_TEN = re.compile(rf"10\s*\^\s*{_EXPONENT}")
_SIGNED = rf"[+-]?\s*{_DECIMAL}"
_FRACTION = re.compile(
    rf"(?:(?P<whole>[0-9]+)\s*)?\\frac\{{\s*(?P<top>{_SIGNED})\s*\}}\{{\s*(?P<below>{_SIGNED})\s*\}}"
    rf"|(?:(?P<whole2>[0-9]+)\s+)?(?P<top2>{_DECIMAL})\s*/\s*(?P<below2>{_DECIMAL})"
)
_REPEATING = re.compile(r"(?P<whole>[0-9]*)\.(?P<once>[0-9]*)\\overline\{(?P<again>[0-9]+)\}")
_CONTINENTAL = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,2}")
_GROUPED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+")
_PERCENT = re.compile(r"(.*?)\s*(?:\\?%|percent)", re.DOTALL)


@dataclass(frozen=True)
class Number:
    """A number and how it was printed.

    `step` is one unit in the last printed place of a decimal or a number in scientific notation,
    None for any other form; `percent` says whether a percent sign was counted into `value`.
    """

    value: Fraction
    step: Fraction | None = None
    percent: bool = False

    @property
    def significant_digits(self) -> int:
        """How many digits were printed, from the first that is not 0; 0 unless `step` is set."""
        if self.step is None or not self.value:
            return 0
        return len(str(abs(int(self.value / self.step))))

    @property
    def is_terminating(self) -> bool:
        """Whether the value has a finite decimal form."""
        rest = self.value.denominator
        for prime in 2, 5:
            while rest % prime == 0:
                rest //= prime
        return rest == 1


def parse_number(text: str) -> Number | None:
    """The number that the whole of a cleaned text prints; None if it is no single number."""
    text = text.strip()
    if not text or len(text) > MAX_NUMBER_CHARS:
        return None
    if percent := _PERCENT.fullmatch(text):
        number = parse_number(percent.group(1))
        if number is None or number.percent:
            return None
        step = number.step / 100 if number.step else None
        return Number(number.value / 100, step, percent=True)
    sign, text = 1, re.sub(r"^(?:negative|minus) (?=\w)", "-", text, flags=re.IGNORECASE)
    # "+-1" is -1; more signs are no number
    for _ in range(2):
        if text[:1] in ("+", "-") and text:
            sign *= -1 if text[0] == "-" else 1
            text = text[1:].lstrip()
    number = _unsigned(text)
    return number and Number(sign * number.value, number.step)


def _unsigned(text: str) -> Number | None:
    if re.fullmatch(_DECIMAL, text):
        return _decimal(text)
    if match := _SCIENTIFIC.fullmatch(text):
        scale = Fraction(10) ** int(match["e"] or match["power"])
        digits = _decimal(match["digits"])
        return Number(digits.value * scale, (digits.step or 1) * scale)
    if match := _POWER_OF_TEN.fullmatch(text):
        return Number(Fraction(10) ** int(match["power"]))
    if match := _FRACTION.fullmatch(text):
        return _fraction(match)
    if match := _REPEATING.fullmatch(text):
        return _repeating(match)
    if _GROUPED.fullmatch(text):
        return _decimal(text.replace(" ", ""))
    if _CONTINENTAL.fullmatch(text):
        return _decimal(text.replace(".", "").replace(",", "."))
    value = number_words.parse_words(text)
    return None if value is None else Number(value)


def _decimal(text: str) -> Number:
    text = text.replace(",", "")
    places = len(text.partition(".")[2])
    return Number(Fraction(text), Fraction(1, 10**places) if "." in text else None)


def _fraction(match: re.Match[str]) -> Number | None:
    whole = match["whole"] or match["whole2"] or "0"
    top, below = (
        Fraction(re.sub(r"[\s,]", "", match[name] or match[f"{name}2"]))
        for name in ("top", "below")
    )
    # 3\frac{-1}{2} is a product at best
    if not below or (int(whole) and (top < 0 or below < 0)):
        return None
    return Number(int(whole) + top / below)


def _repeating(match: re.Match[str]) -> Number:
    once, again = match["once"], match["again"]
    unit = Fraction(1, 10 ** len(once))
    value = int(match["whole"] or "0") + int(once or "0") * unit
    return Number(value + unit * Fraction(int(again), 10 ** len(again) - 1))
