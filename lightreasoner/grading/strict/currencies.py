r"""Amounts of money, however their currency is written: all as a unit behind the number.

Dollars are told apart from cents (units.py); any other currency is as good as none.
"""

import re
import unicodedata

CODES = (
    "EUR|GBP|INR|CAD|AUD|NZD|HKD|SGD|JPY|CNY|RMB|CHF|SEK|NOK|DKK|PLN|RUB|TRY|KRW|BRL|MXN|ZAR|PKR"
)
_CODE_BEFORE = re.compile(
    rf"^(?P<sign>[+-]?)\s*(?:\\text\{{\s*)?(?P<code>USD|{CODES}|Rs\b\.?)\s*\}}?[\s~]*(?=[+-]?[0-9.])"
)
_COUNTRY = re.compile(r"^([+-]?\s*)(?:US|CA?|AU?|NZ|HK|SG?|R)\s*(?=\\?\$)")
_MOVED = re.compile(r"^([+-]?)\s*\\text\{(dollars|money)\}\s*(.+)$", re.DOTALL)

_DECIMAL_COMMA = re.compile(r"^([+-]?[0-9]{1,3}),([0-9]{2})(?=\s*\\text\{money\})")


def spelt(text: str) -> str:
    r"""The text with each sign of a currency as `\text{dollars}` or `\text{money}`.

    A bare dollar sign delimits a formula and is dropped.
    """
    text = re.sub(r"\\text\{\s*\\\$\s*([^{}]*)\}", r"\\$\1", _COUNTRY.sub(r"\1", text.strip()))
    text = re.sub(r"\\\$", r"\\text{dollars}", text).replace("$", "")
    text = "".join(map(_sign, text))
    return _CODE_BEFORE.sub(_code, text)


def moved_behind(text: str) -> str:
    """The text with a currency that stands before the amount behind it."""
    text = _MOVED.sub(r"\1\3\\text{\2}", text)
    return _DECIMAL_COMMA.sub(r"\1.\2", text)


def _sign(character: str) -> str:
    return r"\text{money}" if unicodedata.category(character) == "Sc" else character


def _code(match: re.Match[str]) -> str:
    name = "dollars" if match["code"] == "USD" else "money"
    return rf"{match['sign']}\text{{{name}}}"
