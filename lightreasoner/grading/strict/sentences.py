"""What sentences are, and the one value that a sentence may state."""

import re
from typing import NamedTuple

from lightreasoner.grading.strict import forms, numerals, units

MAX_CHARS = 300
"""A longer sentence states no value."""


class Stated(NamedTuple):
    """An answer that a text states: where it starts and ends there, and what it says.

    `is_declared`: the text calls it the answer.
    """

    start: int
    end: int
    content: str
    is_declared: bool = True


END = re.compile(r"[.!?](?=\s+[A-Z*#\\$(]|\s*\n|\s*$)|\n|。")
_ABBREVIATION = re.compile(r"\b(?:Mrs?|Ms|Dr|St|Prof|Rs|No|vs|Jr|Sr|[ap]\.m)$", re.IGNORECASE)
_AMOUNT = re.compile(
    r"(?<![\w.,/*+^(-])(?P<number>[-−]?(?:\\?[$€£¥₹]\s?)?[0-9][0-9,]*(?:\.[0-9]+)?"
    r"(?:\s?[/:]\s?[0-9]+)?(?:\s?\\?%)?)(?P<rest>[^0-9]*)",
)
_COPULA = re.compile(
    r"[A-Z(][^=]*?(?:\b(?:is|are|was|were|equals?|be|becomes?|to)\b|(?<=\s)=)\s*"
    r"(?:therefore|thus|exactly|simply|just|about|then|now|:|\s)*(?P<value>[^\s].*)",
    re.DOTALL,
)
_COUNTED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty"
    r"|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|dozens?|half|halves"
    r"|quarters?|thirds?|twice|double|triple|percent)\b",
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    r"\b(?:not|cannot|never|if|unless|would|could|might|may|maybe|perhaps|possibly|or|but|either"
    r"|suppose|assum\w+|guess\w*|think|believe|subtract|add|multiply|divide|calculate"
    r"|started|began|begins|originally|initially|at first|in the first"
    r"|and (?:then )?(?:ate|gave|sold|lost|spent|used)|compute|round|convert"
    r"|seems?|check|verify|between|approximately"
    r"|at (?:least|most)|(?:more|less|fewer|greater|smaller) than (?=\\?[$0-9]))\b|n['’]t\b|[?<>]"
    r"|^(?:first|next|now|let|step|case)\b",
    re.IGNORECASE,
)
"""What makes a sentence another statement than that of an answer."""
_REFERENCE = re.compile(r"\b(?:of|from) (?:the|these|those|his|her|their|its|all) (?:\w+ )?$", re.I)
_NUMBERED = re.compile(
    r"\b(?:case|step|part|equation|eq|figure|section|option|problem|chapter|page|line|item|row"
    r"|number|question|exercise|example|lemma|theorem|method|version|level|grade)\.?\s*#?$",
    re.IGNORECASE,
)


def first(text: str) -> str:
    """The text up to the end of its first sentence."""
    for end in END.finditer(text):
        if end.group() != "." or not _ABBREVIATION.search(text, 0, end.start()):
            return text[: end.start()]
    return text


def last(text: str) -> tuple[str, bool]:
    """The last sentence of a text, and whether it is finished."""
    text = text.rstrip()[-MAX_CHARS:]
    starts = [
        end.end()
        for end in END.finditer(text, 0, max(0, len(text) - 2))
        if end.group() != "." or not _ABBREVIATION.search(text, 0, end.start())
    ]
    return text[starts[-1] if starts else 0 :].strip(), text.endswith((".", "!", "。"))


def is_value(text: str) -> bool:
    """Whether a text is a number, with a unit or a name perhaps, or a tuple of numbers."""
    text = forms.clean(re.sub(r"^[a-zA-Z]\s*=\s*", "", text))
    elements = (
        text[1:-1].split(",") if forms.is_enclosed(text, "(") else [units.split_unit(text)[0]]
    )
    return all(numerals.parse_number(element) for element in elements)


def distilled(text: str) -> str:
    """The value that a sentence states; the text as it is if it is no such sentence."""
    return (value_of(text) if text[:1].isupper() else None) or text


def value_of(sentence: str) -> str | None:
    """The value of "The total is 7.", "She makes 7 dollars every day."; None for other texts.

    A sentence with two amounts states one only if a form of "to be" stands before the last.
    """
    plain = re.sub(r"\*\*|\\[()]|(?<!\\)\$(?![0-9])", "", sentence).strip().rstrip(".!。").strip()
    if len(plain) > MAX_CHARS or not re.match(
        r"(?:[A-Z][\w'’-]*,?|[0-9][0-9,.]*)\s+[a-zA-Z0-9]", plain
    ):
        return None
    if _DOUBTED.search(plain):
        return None
    # "5 of the 12" are 5
    amounts = [a for a in _AMOUNT.finditer(plain) if not _REFERENCE.search(plain[: a.start()])]
    has_others = re.search("[0-9]", _AMOUNT.sub(lambda amount: amount["rest"], plain)) is not None
    copula = _COPULA.fullmatch(plain)
    if copula and (value := after_equals(copula["value"])):
        return value
    if len(amounts) != 1 or has_others or _COUNTED.search(plain) or re.search(r"[=+*^\\]", plain):
        return None
    amount = amounts[0]
    if _NUMBERED.search(plain[: amount.start()].rstrip()):
        return None
    word = re.match(r"\s+([a-zA-Z.]+)", amount["rest"])
    name = word[1].rstrip(".") if word else ""
    return amount["number"] + (f" {name}" if name.lower() in units.UNITS else "")


def after_equals(text: str) -> str | None:
    """A value, or what stands behind the last sign of equality of a calculation."""
    value = text.rpartition("=")[2].strip()
    return value if is_value(value) else None
