r"""Answers that only a response's end states: "So she has 7 apples.", "**7**", "C) 36 m/s"."""

import re

from lightreasoner.grading.strict import sentences, statements

_CONCLUSION = re.compile(
    r"(?:^|(?<=[.!?:\n])\s*)(?:so|thus|therefore|hence|in total|altogether)\b[^.!?\n=]{0,80}?"
    r"\b(?:get|obtain|have|find)\b[,:]?\s*(?:\$\$?|\\\[|\\\()?\s*=?",
    re.IGNORECASE,
)
_BOLD_END = re.compile(r"(?:^|\n)[^*\n]*\*\*([^*\n]{1,80})\*\*[^*\n]*$")
_LABELLED_END = re.compile(r"[A-Z][a-zA-Z' -]{0,50}\**\s*[:=]\**\s*(?P<value>[^:=\n]{1,80})")
_THAT_IS = re.compile(r"(?:That(?:'s|’s| is)|It(?:'s|’s| is)|This is)\s+(?P<value>.{1,60})")
_CONCLUDING = re.compile(
    r"(?:so|thus|therefore|hence|in total|in all|altogether|finally)\b", re.IGNORECASE
)
_CHINESE_END = re.compile(
    r"(?:^|[\n。，,；])\s*(?:所以|因此|综上|故|答)[^0-9\n。]{0,40}?\s?(?P<value>-?[0-9][0-9,.]*)[^0-9\n。]{0,20}。?$"
)
_FORMULA_END = re.compile(r"(?:\$+|\\[\])])$")
_LETTER = r"\(?\b(?P<letter>[A-E])\b\)?"
_PICKS = tuple(
    re.compile(pattern, re.IGNORECASE if loose else 0)
    for pattern, loose in (
        (rf"\b(?:option|choice|answer) {_LETTER} is (?:the )?(?:correct|right|best|true)\b", True),
        (r"^\s*\(?(?P<letter>[A-E])\)? is (?:the )?(?:correct|right|best)\b", False),
        (rf"\b(?:pick|choose|select|go with) (?:option |choice |answer )?{_LETTER}", False),
        (r"\b(?:so|thus|hence|therefore),? \((?P<letter>[A-E])\)(?=[ .,]|$)", True),
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
    """The value of the last conclusion, in bold, of the last line, or of the last sentence."""
    if conclusions := list(_CONCLUSION.finditer(tail)):
        rest = tail[conclusions[-1].end() :].strip()
        answer = statements.statement(rest, letters=False)
        # at most the marks of a formula and a full stop may follow
        if answer and len(answer) >= len(rest) - 6:
            answer = _FORMULA_END.sub("", answer).strip()
            is_list = re.search(r",\s|\b(?:and|or)\b", answer)
            return (None if is_list else sentences.after_equals(answer)) or answer or None
    bold = _BOLD_END.search(tail)
    if bold and sentences.is_value(bold[1]):
        return bold[1].strip()
    before, _, line = tail.rpartition("\n")
    line = line.strip("*_ .")
    for found in (_LABELLED_END.fullmatch(line), _THAT_IS.fullmatch(line)):
        if found and sentences.is_value(found["value"]):
            return found["value"]
    if before.strip() and sentences.is_value(line):
        return line
    if chinese := _CHINESE_END.search(tail):
        return chinese["value"]
    sentence, is_finished = sentences.last(tail)
    conclusion = _CONCLUDING.match(sentence)
    if conclusion and (value := _only(sentence[conclusion.end() :])):
        return value
    return sentences.value_of(sentence) if is_finished or conclusion else None


def _only(text: str) -> str | None:
    """What is left of a conclusion if it is a value or a calculation: "8 * 8 = 64"."""
    calculation, _, value = text.strip(" ,:.$*").rpartition("=")
    is_plain = re.search("[a-zA-Z]{2}", calculation) is None
    return value.strip() if is_plain and sentences.is_value(value) else None


def _letter(text: str, tail: str) -> str | None:
    """The letter that the last such sentence picks: "option B is correct", "we pick B"; or that
    stands in bold at the end, or in the last line, with its option's text perhaps.
    """
    picks = [match for pattern in _PICKS for match in pattern.finditer(text)]
    if picks:
        return max(picks, key=re.Match.start)["letter"]
    bold = _BOLD_END.search(tail)
    if bold and is_letter(bold[1].rstrip(".")) and not re.search(r"\w", tail[bold.end(1) :]):
        return bold[1]
    *before, line = [line.strip() for line in tail.split("\n") if line.strip()] or [""]
    is_list = before and _OPTION_LINE.fullmatch(before[-1])
    return line.strip("*") if _OPTION_LINE.fullmatch(line) and not is_list else None
