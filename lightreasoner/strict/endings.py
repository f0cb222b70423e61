r"""Answers that only a response's end states: "So she has 7 apples.", "**7**", "C) 36 m/s"."""

import re

from lightreasoner.strict import sentences, statements

_CONCLUSION = re.compile(
    r"(?:^|(?<=[.!?:\n])\s*)(?:so|thus|therefore|hence|in total|altogether)\b[^.!?\n=]{0,80}?"
    r"\b(?:get|obtain|have|find)\b[,:]?\s*(?:\$\$?|\\\[|\\\()?\s*=?",
    re.IGNORECASE,
)
_BOLD_END = re.compile(r"(?:^|\n)[^*\n]*\*\*([^*\n]{1,80})\*\*[^*\n]*$")
_LABELLED_END = re.compile(r"[A-Z][a-zA-Z' -]{0,50}\**\s*[:=]\**\s*(?P<value>[^:=\n]{1,80})")
_FORMULA_END = re.compile(r"(?:\$+|\\[\])])$")
_LETTER = r"\(?\b(?P<letter>[A-E])\b\)?"
_PICKS = tuple(
    re.compile(pattern, re.IGNORECASE if loose else 0)
    for pattern, loose in (
        (rf"\b(?:option|choice|answer) {_LETTER} is (?:the )?(?:correct|right|best|true)\b", True),
        (r"^\s*\(?(?P<letter>[A-E])\)? is (?:the )?(?:correct|right|best)\b", False),
        (rf"\b(?:pick|choose|select|go with) (?:option |choice |answer )?{_LETTER}", False),
        (
            rf"(?:^|[.\n])[ \n]{{0,3}}(?:So|Thus|Hence|Therefore),? (?:option |choice )?{_LETTER}"
            r"(?=[ .,])",
            False,
        ),
    )
)
_OPTION_LINE = re.compile(r"\**\(?[A-E][.)]\)?\s+\S.*|\**\(?[A-E]\)?[.)]?\**\.?")


def concluded(text: str, letters: bool) -> str | None:
    """The value or the letter that a response ends with; None if its end states none."""
    tail = text.rstrip()[-statements.MAX_CHARS :]
    return _letter(text, tail) if letters else _value(tail)


def is_letter(text: str) -> bool:
    """Whether a text is an option's letter, with its text perhaps."""
    return re.fullmatch(r"(?:Option |Choice )?\(?[A-E]\)?(?:[.):]\s.*)?", text) is not None


def _value(tail: str) -> str | None:
    """The value of the last sentence's conclusion, in bold, of the last line, or of the sentence."""
    if conclusions := list(_CONCLUSION.finditer(tail)):
        rest = tail[conclusions[-1].end() :].strip()
        answer = statements.statement(rest, letters=False)
        # at most the marks of a formula and a full stop may follow
        if answer and len(answer) >= len(rest) - 6:
            return _FORMULA_END.sub("", answer).strip() or None
    bold = _BOLD_END.search(tail)
    if bold and sentences.is_value(bold[1]):
        return bold[1].strip()
    line = tail.rpartition("\n")[2].strip("*_ .")
    labelled = _LABELLED_END.fullmatch(line)
    if labelled and sentences.is_value(labelled["value"]):
        return labelled["value"]
    sentence, is_finished = sentences.last(tail)
    is_conclusion = re.match(r"(?:so|thus|therefore|hence|in total|altogether)\b", sentence, re.I)
    return sentences.value_of(sentence) if is_finished or is_conclusion else None


def _letter(text: str, tail: str) -> str | None:
    """The letter that the last such sentence picks: "option B is correct", "we pick B"; or that
    stands in bold at the end, or in the last line, with its option's text perhaps.
    """
    picks = [match for pattern in _PICKS for match in pattern.finditer(text)]
    if picks:
        return max(picks, key=re.Match.start)["letter"]
    bold = _BOLD_END.search(tail)
    if bold and is_letter(bold[1].rstrip(".")):
        return bold[1]
    *before, line = [line.strip() for line in tail.split("\n") if line.strip()] or [""]
    is_list = before and _OPTION_LINE.fullmatch(before[-1])
    return line.strip("*") if _OPTION_LINE.fullmatch(line) and not is_list else None
