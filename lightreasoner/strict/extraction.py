r"""Where a response states its answer, as the strict verdict reads it.

An answer is stated in a box, by a sentence ("The answer is 7"), by a label ("Answer: 7", "#### 7"),
or by a conclusion at the very end ("So in total we get 7.", "So she has **7** apples."). Numbers
that merely stand somewhere are no answer, and neither is a box without its closing brace. A
response that goes on to another problem, as base models do, ends where that begins.

Everything is linear in the response's length.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from lightreasoner.strict import forms, numerals

MAX_STATEMENT_CHARS = 1000
"""An answer in prose ends here at the latest."""
MAX_LISTED = 20
"""So many boxes in a row are read as one list."""

_STOP_WORDS = re.compile(r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|im_start\|>")
_NEXT_PROBLEM = re.compile(
    r"\n[ \t]*(?:#+ |\*\*)?(?:(?:Question|Problem|Exercise|Instruction|Human|User|Assistant|Q)"
    r"(?: [0-9]+)?\**[ \t]*:|(?:Question|Problem|Exercise) [0-9]+(?:\.[ \t]|\**[ \t]*(?=\n|$)))",
    re.IGNORECASE,
)
_BOX = re.compile(r"(?:\\(?:boxed|fbox)(?![a-zA-Z])|(?<![a-zA-Z\\])boxed(?=\{))[ \t\n]{0,5}")
_BARE_BOX = re.compile(r"[^\s$]{1,200}")
_DECLARED = re.compile(
    r"(?:\banswer\b|答案)(?:(?!\bnot\b|\bcannot\b|n't\b|\bpart\b|\bstep\b)[^.!?。])*$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|mistake|mistaken|wrong|incorrect|correcting|correction|corrected|misse[sd]|actually"
    r"|instead|however|recheck|re-check|double[- ]check|no,|not right|oops|sorry|apologi[sz]e|hmm"
    r"|errors?\b)",
    re.IGNORECASE,
)
_OTHER_PROBLEM = re.compile(r"\b(?:another|other|similar|next|new)\b[^.!?\n]{0,20}\bproblem", re.I)
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{)?\s*(?:(?:your|the|final|correct|numerical)\s+)*(?:answer|number|value|result"
    r"|solution|expression|letter|option)(?:\s+here)?\s*\}?|[.…]+|\\[lc]?dots",
    re.IGNORECASE,
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINT = re.compile(r"\s*\$?\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*\$?\s*")
_MARKS = re.compile(
    r"""\#\#\#\#[ \t]*\n?
    |(?:^|\n)[ \t]*[*\#]*[ ]?(?:(?:final|correct|the|my)[ ]){0,2}(?:answer|ans|(?-i:A))
        \**[ \t]*:\**[ \t\n]{0,4}
    |(?:^|\n)[ \t]*(?:\#+[ ]|\*\*)\**(?:(?:final|the)[ ]){0,2}answer\**[ \t]*\n[ \t\n]{0,4}
    |\banswer(?:[ ]choice)?\**[ ](?:is|was|equals|(?:would|will)[ ]be)\**:?
        (?:[ ](?:therefore|thus|simply|then|just|option|choice))?:?[ \t\n]{0,4}
    |答案(?:[是为][:：]?|[:：])[ \t]*""",
    re.VERBOSE | re.IGNORECASE,
)
_LETTER_MARKS = re.compile(r"\b(?:choice|option) is:?[ \t\n]{0,4}", re.IGNORECASE)
_REMARK = re.compile(
    r"(?:therefore |thus |indeed |now )?(?:clear|correct|right|wrong|incorrect|obvious|unique|valid"
    r"|reasonable|consistent|given|found|as follows|in the|that|not)\b(?!\s*[:$\\0-9])",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"(?:^|(?<=[.!?:\n])\s*)(?:so|thus|therefore|hence|in total|altogether)\b[^.!?\n=]{0,80}?"
    r"\b(?:get|obtain|have|find)\b[,:]?\s*(?:\$\$?|\\\[|\\\()?\s*=?",
    re.IGNORECASE,
)
_BOLD_END = re.compile(r"(?:^|\n)[^*\n]*\*\*([^*\n]{1,80})\*\*[^*\n]*$")
_ABBREVIATION = re.compile(r"\b(?:Mrs?|Ms|Dr|St|Prof|Rs|No|vs|Jr|Sr|[ap]\.m)$", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z*#\\$(]|\s*\n|\s*$)|\n|。")
_REASON = re.compile(r",?\s+(?:because|since|which|where|so that|as (?:we|it|the|this))\b")
_MATH = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"), ("**", "**"))
_FORMULA_END = re.compile(r"(?:\$+|\\[\])])$")
_DISPLAY = re.compile(r"\\[\[(](.*)\\[\])]\.?", re.DOTALL)
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


class _Box(NamedTuple):
    """A box: where it starts and ends in its text, and what it holds."""

    start: int
    end: int
    content: str


def extract(response: str, question: str, letters: bool) -> str | None:
    """The stated answer, stripped; None if there is none. `letters`: it may be a choice's letter.

    Where several problems' worth of text stand, the first part that states an answer counts; in
    it a complete box, else the last statement. A box that the question holds is quoted.
    """
    text = _STOP_WORDS.split(response, maxsplit=1)[0]
    for part in _parts(text):
        answer = _boxed(part, question) or _stated(part, letters)
        if answer:
            return answer
    whole = _DISPLAY.sub(r"\1", text.strip()).strip("$*. ")
    if len(whole) <= 50 and (_is_value(whole) or (letters and _is_letter(whole))):
        return whole
    return None


def _is_value(text: str) -> bool:
    """Whether a text is a number, with a unit or a name perhaps, or a tuple of numbers."""
    text = forms.clean(re.sub(r"^[a-zA-Z]\s*=\s*", "", text))
    elements = (
        text[1:-1].split(",") if forms.is_enclosed(text, "(") else [forms.split_unit(text)[0]]
    )
    return all(numerals.read(element) for element in elements)


def _is_letter(text: str) -> bool:
    return re.fullmatch(r"(?:Option |Choice )?\(?[A-E]\)?(?:[.):]\s.*)?", text) is not None


def _parts(text: str) -> Iterator[str]:
    start = 0
    for mark in _NEXT_PROBLEM.finditer(text):
        yield text[start : mark.start()]
        start = mark.end()
    yield text[start:]


def _boxed(text: str, question: str) -> str | None:
    """The content of the box that gives the answer, with those that it is listed with; else None.

    That is the first one that its sentence calls the answer, unless the text takes it back before
    the next such one; where no sentence does, it is the last.
    """
    lists = _lists(text, _boxes(text, question))
    declared = [boxes for boxes in lists if _is_declared(text, boxes[0].start)]
    if not declared:
        return _joined(lists[-1]) if lists else None
    chosen, is_taken_back = declared[0], False
    for before, boxes in pairwise(declared):
        between = text[before[-1].end : boxes[0].start]
        if _OTHER_PROBLEM.search(between):
            break
        is_taken_back = is_taken_back or _TAKEN_BACK.search(between) is not None
        if is_taken_back:
            chosen, is_taken_back = boxes, False
    return _joined(chosen)


def _is_declared(text: str, start: int) -> bool:
    """Whether the sentence in which a box starts calls it the answer."""
    return _DECLARED.search(text[max(0, start - 60) : start]) is not None


def _joined(boxes: list[_Box]) -> str:
    return ", ".join(box.content for box in boxes)


def _boxes(text: str, question: str) -> list[_Box]:
    """The complete boxes of a text that are not quoted from the question."""
    boxes: list[_Box] = []
    closings: dict[int, int] | None = None
    at = 0
    while match := _BOX.search(text, at):
        at = match.end()
        closings = _closings(text) if closings is None else closings
        content, end = _box_content(text, at, closings)
        is_answer = content and not _PLACEHOLDER.fullmatch(content)
        if is_answer and text[match.start() : end] not in question:
            boxes.append(_Box(match.start(), end, content))
            at = end
    return boxes


def _lists(text: str, boxes: list[_Box]) -> list[list[_Box]]:
    """The boxes, those together that only commas, "and" or "or" stand between."""
    lists: list[list[_Box]] = []
    for box in boxes:
        last = lists[-1][-1].end if lists else -1
        is_near = lists and box.start - last <= 20 and len(lists[-1]) < MAX_LISTED
        if is_near and _JOINT.fullmatch(text, last, box.start):
            lists[-1].append(box)
        else:
            lists.append([box])
    return lists


def _closings(text: str) -> dict[int, int]:
    """Where each brace that opens is closed, in one pass; escaped braces are text."""
    opened: list[int] = []
    closings = {}
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif brace.group() == "}" and opened:
            closings[opened.pop()] = brace.start()
    return closings


def _box_content(text: str, start: int, closings: dict[int, int]) -> tuple[str, int]:
    r"""A box's content and where it ends; "" for one without its closing brace. `\boxed 7` is 7."""
    if text[start : start + 1] == "{":
        end = closings.get(start)
        return ("", start) if end is None else (text[start + 1 : end].strip(), end + 1)
    bare = _BARE_BOX.match(text, start)
    # "is \boxed." names no value
    return (bare.group().rstrip(".,"), bare.end()) if bare else ("", start)


def _stated(text: str, letters: bool) -> str | None:
    """What the last statement of an answer says; None if nothing states one."""
    marks = list(_MARKS.finditer(text))
    if letters:
        marks += _LETTER_MARKS.finditer(text)
    for mark in sorted(marks, key=re.Match.start, reverse=True):
        answer = _statement(text[mark.end() : mark.end() + MAX_STATEMENT_CHARS], letters)
        if answer and not _REMARK.match(answer):
            return unquoted(answer) or None
    return _picked(text) if letters else _concluded(text)


def _concluded(text: str) -> str | None:
    """The value that a response ends with, in its last sentence's conclusion or in bold."""
    tail = text.rstrip()[-MAX_STATEMENT_CHARS:]
    if conclusions := list(_CONCLUSION.finditer(tail)):
        rest = tail[conclusions[-1].end() :].strip()
        answer = _statement(rest, letters=False)
        # at most the marks of a formula and a full stop may follow
        if answer and len(answer) >= len(rest) - 6:
            return _FORMULA_END.sub("", answer).strip() or None
    bold = _BOLD_END.search(tail)
    return bold.group(1).strip() if bold and numerals.read(bold.group(1)) else None


def _statement(text: str, letters: bool) -> str | None:
    """The answer at the start of a text: to the end of its formula, sentence or line.

    Among options it is the whole line, as an option may be several sentences.
    """
    text = text.strip()
    line = text.partition("\n")[0].strip()
    if _BOX.search(line):
        return None
    for opener, closer in _MATH:
        end = text.find(closer, len(opener)) if text.startswith(opener) else -1
        # "$x$, $y$" and "$5 apples" are read on to the sentence's end
        if end > 0 and re.match(r"\s*(?:[.!\n]|$)", text[end + len(closer) :]):
            return text[len(opener) : end].strip() or None
    if letters:
        return line or None
    return _REASON.split(_sentence(text), maxsplit=1)[0].strip() or None


def unquoted(text: str) -> str:
    """A text without the quotation marks or backquotes around the whole of it."""
    return re.sub(r"""\A(?:"([^"]*)"|“([^”]*)”|`([^`]*)`)\.?\Z""", r"\1\2\3", text)


def _sentence(text: str) -> str:
    for end in SENTENCE_END.finditer(text):
        if end.group() != "." or not _ABBREVIATION.search(text, 0, end.start()):
            return text[: end.start()]
    return text


def _picked(text: str) -> str | None:
    """The letter that the last such sentence picks: "option B is correct", "we pick B"."""
    picks = [match for pattern in _PICKS for match in pattern.finditer(text)]
    return max(picks, key=re.Match.start)["letter"] if picks else None
