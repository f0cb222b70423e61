r"""The strict verdict: whether a response states the gold answer, mathematically.

It differs from the official one (qwen_math/toolkit.py) where that is plainly wrong: no factor 100,
integers are exact, brackets and case count, the whole answer is read or none of it. docs/grading.md
says how the two differ and which tolerances hold.

Nothing here keeps time; call it in a process that can be killed.
"""

import re

from lightreasoner.data.problems import Problem
from lightreasoner.grading.strict import extraction, forms, sentences, statements
from lightreasoner.grading.strict.compare import Comparison
from lightreasoner.grading.strict.forms import clean, trim
from lightreasoner.grading.strict.shapes import squeezed, words

MAX_ANSWER_CHARS = 1000
MAX_NESTING = 40
"""An answer beyond either limit is compared as a string only."""

LETTERS = "mmlu_stem"
"""The benchmark whose gold answers are letters of options."""

_OPTION = re.compile(r"\(([A-D])\) (.*?)(?=\s\([A-D]\) |\Z)", re.DOTALL)
_FOUR_OPTIONS = re.compile(r"\s*\(A\) (.*?)\s\(B\) (.*?)\s\(C\) (.*?)\s\(D\) (.*)", re.DOTALL)
_LONE = re.compile(r"\(?([A-D])\)?[.:]?")
_CHOSEN = re.compile(
    r"\(?\s*(?P<letter>[A-Ea-e])\s*(?:\)|[.:,;](?=\s|$)|$)\s*(?P<rest>.*)"
    r"|(?P<bare>[B-E]|A(?=\s+(?:because|since|as|is)\b))\s+(?P<reason>[a-z(].*)",
    re.DOTALL,
)
_ANOTHER = re.compile(r"(?:,|or\b|and\b|/|\()?\s*\(?[A-E]\b\)?(?!\s+[a-z])")


def extract(response: str, problem: Problem, benchmark: str) -> str | None:
    """The answer that a response states; None if it states none (see extraction.py).

    The gold answer does not matter here; the question does, as a box quoted from it is no answer.
    """
    return extraction.extract(response, problem.question, letters=benchmark == LETTERS)


def is_correct(answer: str, problem: Problem, benchmark: str) -> bool:
    """Whether a stated answer is mathematically the gold answer of its problem."""
    if not answer.strip() or answer.strip() == problem.gold.strip():
        return bool(answer.strip())
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    answer, gold = clean(answer), clean(problem.gold)
    if forms.depth(answer) > MAX_NESTING:
        return squeezed(answer) == squeezed(gold)
    if benchmark == LETTERS:
        return _choice(answer, problem.question) == problem.gold
    return Comparison(problem.question, benchmark).is_equal(answer, gold)


def _choice(answer: str, question: str) -> str | None:
    """The letter of the option that an answer names, by its letter or by its whole text.

    A lone capital is that letter, whatever the options say; so is a letter with text behind it that
    is no option as a whole. Several letters are none.
    """
    answer = statements.unquoted(trim(re.sub(r"\\text\{([^{}]*)\}", r"\1", answer)))
    answer = re.sub(r"^\{([^{}]*)\}", r"\1", answer)
    if lone := _LONE.fullmatch(answer):
        return lone[1]
    options = _options(question)
    if named := _named(answer, options):
        return named
    answer = re.sub(r"^(?:option|choice|answer)\s+(?=\(?[A-E])", "", answer, flags=re.IGNORECASE)
    match = _CHOSEN.fullmatch(answer)
    if match is None:
        return next(filter(None, (_named(text, options) for text in _openings(answer))), None)
    rest = match["rest"] or match["reason"] or ""
    if _ANOTHER.match(rest) and words(rest) not in map(words, options.values()):
        return None
    return (match["letter"] or match["bare"]).upper()


def _named(text: str, options: dict[str, str]) -> str | None:
    """The letter of the one option that reads as a text, in its case or else in any."""
    for spelling in (squeezed, words):
        named = [letter for letter, option in options.items() if spelling(option) == spelling(text)]
        if len(named) == 1:
            return named[0]
    return None


def _options(question: str) -> dict[str, str]:
    """The texts of the options that a question lists, by letter; they may mention other options."""
    listed = question.rpartition("Answer Choices:")[2]
    four = _FOUR_OPTIONS.fullmatch(listed)
    found = zip("ABCD", four.groups(), strict=True) if four else _OPTION.findall(listed)
    return {letter: trim(clean(text.strip())) for letter, text in found if text.strip()}


def _openings(answer: str) -> list[str]:
    """The text up to each of its first sentences' ends: an option may be several sentences."""
    return [answer[: end.start()] for end in list(sentences.END.finditer(answer))[:5]]
