r"""Where a response states its answer, as the strict verdict reads it.

An answer is stated in a box, by a sentence ("The answer is 7"), after GSM8K's `####`, or by a
conclusion at the very end ("So in total we get 7."). Numbers that merely stand somewhere are no
answer. A response that goes on to another problem, as base models do, ends where that begins.
Everything is linear in the response's length.
"""

import re
from collections.abc import Iterator

from lightreasoner import strict_numbers
from lightreasoner.strict_forms import closing

MAX_ANSWER_CHARS = 1000
"""An answer in prose ends here at the latest."""

_STOP_WORDS = re.compile(r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|im_start\|>")
_NEXT_PROBLEM = re.compile(r"\n\s*(?:#+ |\*\*)?(?:Question|Problem|Human|User|Assistant)\s*:")
_BOX = re.compile(r"\\?f?boxed(?![a-zA-Z])\s*")
_BARE_BOX = re.compile(r"[^\s$\\{}]+")
_JOINT = re.compile(r"\s*\$?\s*(?:,|;|\band\b|\bor\b|,\s*and|,\s*or)\s*\$?\s*")
_MARKS = re.compile(
    r"""(?P<hashes>\#\#\#\#[ \t]*)
    |(?P<label>(?:^|\n)[ \t]*\**(?:final[ ]|correct[ ]|the[ ])*(?:answer|A)\**[ \t]*:[ \t]*\**[ \t]*)
    |(?P<is>\b(?:answer|choice|option|solution|result)(?:[ ]choice)?(?:\**)[ ](?:is|are|was|would[ ]be)
        \**(?:[ ]?:)?(?:[ ](?:therefore|thus|simply|then|just|option|choice))?[ \t]*\n*[ \t]*)
    |(?P<chinese>答案[是为][:：]?[ \t]*)""",
    re.VERBOSE | re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"(?:^|(?<=[.!?:\n])\s*)(?:so|thus|therefore|hence|in total|altogether)\b"
    r"(?P<words>[^.!?\n=]{0,80}?)(?:\b(?:get|obtain|have|find)\b[,:]?\s*(?:\$\$?|\\\[|\\\()?\s*=?)",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mrs?|Ms|Dr|St|Prof|Rs|No|vs|Jr|Sr|[ap]\.m|[A-Z]))$", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s+[A-Z*#\\$(]|\s*\n|\s*$)|\n|。")
_LETTER = r"\(?\b(?P<letter>[A-E])\b\)?"
_PICKS = tuple(
    re.compile(pattern, re.IGNORECASE if loose else 0)
    for pattern, loose in (
        (rf"\b(?:option|choice|answer) {_LETTER} is (?:the )?(?:correct|right|best|true)\b", True),
        (rf"\b(?:pick|choose|select|go with) (?:option |choice |answer )?{_LETTER}", False),
        (
            rf"(?:^|[.\n]\s*)(?:So|Thus|Hence|Therefore),? (?:option |choice )?{_LETTER}(?=[ .,])",
            False,
        ),
    )
)


def extract(response: str, letters: bool) -> str | None:
    """The stated answer, stripped; None if there is none. `letters`: it may be a choice's letter.

    Where several problems' worth of text stand, the first part that states an answer counts; in
    it the last complete box, else the last statement.
    """
    text = _STOP_WORDS.split(response, maxsplit=1)[0]
    if letters:
        text = re.sub(r"\n(?=Answer Choices:)", " ", text)
    for part in _parts(text):
        answer = _boxed(part) or _stated(part)
        if not answer and letters:
            answer = _picked(part)
        if answer:
            return answer
    whole = text.strip().strip("$*. ")
    if len(whole) <= 50 and (strict_numbers.read(whole) or (letters and _is_letter(whole))):
        return whole
    return None


def _is_letter(text: str) -> bool:
    return re.fullmatch(r"\(?[A-E]\)?(?:[.):]\s.*)?", text) is not None


def _parts(text: str) -> Iterator[str]:
    start = 0
    for mark in _NEXT_PROBLEM.finditer(text):
        yield text[start : mark.start()]
        start = mark.end()
    yield text[start:]


def _boxed(text: str) -> str | None:
    """The content of the last complete box, or of all that it is listed with; None without one."""
    found: list[tuple[int, int, str]] = []
    at = 0
    while match := _BOX.search(text, at):
        at = match.end()
        content, end = _box_content(text, match)
        if content:
            found.append((match.start(), end, content))
            at = end
    if not found:
        return None
    listed = [found[-1][2]]
    for (_, end, content), (start, *_) in zip(found[-2::-1], found[:0:-1], strict=False):
        if start - end > 20 or not _JOINT.fullmatch(text, end, start) or len(listed) > 20:
            break
        listed.insert(0, content)
    return ", ".join(listed)


def _box_content(text: str, match: re.Match[str]) -> tuple[str, int]:
    """A box's content and where it ends; "" for one without its closing brace."""
    start = match.end()
    if text[start : start + 1] == "{":
        end = closing(text, start)
        return (text[start + 1 : end].strip(), end + 1) if end is not None else ("", len(text))
    if bare := _BARE_BOX.match(text, start) if match.group().startswith("\\") else None:
        return bare.group().rstrip(".,"), bare.end()
    return "", start


def _stated(text: str) -> str | None:
    """What the last statement of an answer says; None if nothing states one."""
    for mark in reversed(list(_MARKS.finditer(text))):
        answer = _statement(text[mark.end() : mark.end() + MAX_ANSWER_CHARS])
        if answer:
            return answer
    return _concluded(text)


def _concluded(text: str) -> str | None:
    """The value that the last sentence concludes with, if the response ends with it."""
    tail = text.rstrip()[-MAX_ANSWER_CHARS:]
    last = None
    for last in _CONCLUSION.finditer(tail):  # noqa: B007
        pass
    if last is None:
        return None
    rest = tail[last.end() :].strip()
    answer = _statement(rest)
    return answer if answer and len(answer) >= len(rest) - 6 else None


def _statement(text: str) -> str | None:
    """The answer at the start of a text: to the end of its formula, sentence or line."""
    text = text.strip()
    if "boxed" in text.split("\n", 1)[0]:
        return None
    for opener, closer in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"), ("**", "**")):
        if text.startswith(opener):
            end = text.find(closer, len(opener))
            # "$x$, $y$" and "$5 apples" are read on to the sentence's end
            after = text[end + len(closer) :] if end > 0 else "x"
            if re.match(r"\s*(?:[.!\n]|$)", after):
                return text[len(opener) : end].strip() or None
    for end in _SENTENCE_END.finditer(text):
        if end.group() != "." or not _ABBREVIATION.search(text, 0, end.start()):
            return text[: end.start()].strip() or None
    return text or None


def _picked(text: str) -> str | None:
    """The letter that a sentence picks ("option B is correct", "we pick B"); the last one counts."""
    picks = [match for pattern in _PICKS for match in pattern.finditer(text)]
    return max(picks, key=re.Match.start)["letter"] if picks else None
