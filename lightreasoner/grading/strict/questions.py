"""What a question asks for, where that decides how an answer is read."""

import re

_PERCENT = re.compile(
    r"(?<![0-9])(?<![0-9]\s)(?<![0-9]\\)(?<![0-9]\s\\)(?:\bpercent(?:age)?s?\b|\bper cent\b|\\?%)",
    re.IGNORECASE,
)
"""A percentage without its number before it."""
_ASKING = re.compile(
    r"\b(?:what|which|how|find|express|determine|calculate|compute|give|state|write|estimate"
    r"|work out|nearest|in|as an?)\b",
    re.IGNORECASE,
)
_COUNT = re.compile(r"\bhow (?:many|much)\b(?! (?:percent|per cent|%|\\%))", re.IGNORECASE)
_AS_PERCENT = re.compile(
    r"\b(?:in|as an?|nearest|express\w* \w+ (?:as|in))\s+(?:whole |tenth of a )?$", re.IGNORECASE
)
_FACTOR = re.compile(
    r"\bhow many (dozen|hundred|thousand|million|billion|quarter|half|third|fourth)s?\b"
    r"|\bin (dozen|thousand|million|billion)s\b",
    re.IGNORECASE,
)


def asks_percent(question: str) -> bool:
    """Whether the answer is a percentage: "What percent ...?", "... in %", "as a percentage".

    "20 percent of ..." and "How many ... if the percentage ..." do not ask for one.
    """
    for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", question):
        for percent in _PERCENT.finditer(sentence):
            before = sentence[: percent.start()]
            if _AS_PERCENT.search(before):
                return True
            if _ASKING.search(before) and not _COUNT.search(sentence, 0, percent.end()):
                return True
    return False


def counted_factor(question: str) -> str | None:
    """The word such as "dozen" or "million" that the answer counts; None if it counts none."""
    match = _FACTOR.search(question)
    return (match[1] or match[2]).lower() if match else None
