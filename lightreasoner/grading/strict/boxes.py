r"""Answers in boxes: `\boxed{7}`, and boxes that are listed as one answer.

A box without its closing brace is not complete, and a box copied from the question is a quotation.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from lightreasoner.grading.strict import revisions
from lightreasoner.grading.strict.sentences import Stated

MAX_LISTED = 20
"""This many boxes in a row are read as one list."""
MAX_JOINT = 60
"""This many characters may stand between two boxes of a list."""
QUOTED_BEFORE = 25
"""A box is copied from the question if this many characters before it are, too."""

BOX = re.compile(
    r"(?:\\(?:boxed|fbox|framebox)(?![a-zA-Z])|(?<![a-zA-Z\\])boxed(?=\{))[ \t\n]{0,5}"
)
_BARE_BOX = re.compile(r"[^\s$]{1,200}")
_DECLARED = re.compile(
    r"(?:\banswer\b|答案)(?:(?!\bnot\b|\bcannot\b|n't\b|\bpart\b|\bstep\b)[^.!?。])*$",
    re.IGNORECASE,
)
OTHER_PROBLEM = re.compile(r"\b(?:another|other|similar|next|new)\b[^.!?\n]{0,20}\bproblem", re.I)
PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{)?\s*(?:(?:your|the|final|correct|numerical)\s+)*(?:answer|number|value|result"
    r"|solution|expression|letter|option)(?:\s+here)?\s*\}?|[.…]+|\\[lc]?dots",
    re.IGNORECASE,
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_GAP = re.compile(r"(?:[ \t$~]|\\[,;:! ()\[\]]|\\q?quad(?![a-zA-Z]))+|\s*\n\s*")
_JOINT = re.compile(
    r" ?(?P<mark>[,;&])? ?(?:\\text ?\{ ?)?,? ?(?P<word>(?:and|or)\b)?(?: equivalently\b)?,? ?\}? ?"
    r"(?P<name>[a-zA-Z](?:_\{?[a-zA-Z0-9]\}?)? ?= ?)?"
)
_NAME = re.compile(r"(?<![a-zA-Z])[a-zA-Z](?:_\{?[a-zA-Z0-9]\}?)?\s*=\s*$")


def last_answer(text: str, question: str, loosely: bool = False) -> Stated | None:
    """The box that gives the answer, with those that it is listed with; None without one.

    That is the first one that its sentence calls the answer, unless the text takes it back before
    the next such one; where no sentence does, it is the last. A box that the question holds, too,
    counts only where it is called the answer in other words than the question's, or `loosely`
    where it stands behind other words.
    """
    lists = _lists(
        text, [box for box in _boxes(text) if not _is_quoted(text, box, question, loosely)]
    )
    declared = [box for box in lists if box.is_declared]
    if not declared:
        return lists[-1] if lists else None
    chosen, is_taken_back = declared[0], False
    for before, box in pairwise(declared):
        between = text[before.end : box.start]
        if OTHER_PROBLEM.search(between):
            break
        is_taken_back = is_taken_back or revisions.TAKEN_BACK.search(between) is not None
        if is_taken_back:
            chosen, is_taken_back = box, False
    return chosen


def is_cut_off(text: str, declared: bool = False) -> bool:
    """Whether a text ends within a box; `declared`: within one that is called the answer."""
    opened = [match for match in BOX.finditer(text) if text[match.end() : match.end() + 1] == "{"]
    if not opened:
        return False
    last = opened[-1]
    is_open = last.end() not in _closings(text[last.end() :], last.end())
    return is_open and (not declared or _is_declared(text, last.start()))


def _is_quoted(text: str, box: Stated, question: str, loosely: bool) -> bool:
    if text[box.start : box.end] not in question:
        return False
    is_copied = text[max(0, box.start - QUOTED_BEFORE) : box.end] in question
    return is_copied or not (box.is_declared or loosely)


def _is_declared(text: str, start: int) -> bool:
    """Whether the sentence in which a box starts calls it the answer."""
    return _DECLARED.search(text[max(0, start - 60) : start]) is not None


def _boxes(text: str) -> Iterator[Stated]:
    """The complete boxes of a text, outer ones only."""
    closings: dict[int, int] | None = None
    at = 0
    while match := BOX.search(text, at):
        at = match.end()
        closings = _closings(text) if closings is None else closings
        content, end = _content(text, at, closings)
        if content and not PLACEHOLDER.fullmatch(content):
            yield Stated(match.start(), end, content, _is_declared(text, match.start()))
            at = end


def _lists(text: str, boxes: list[Stated]) -> list[Stated]:
    """The boxes, those as one that only space, commas, "and" or "or" stand between."""
    lists: list[Stated] = []
    listed = 0
    for box in boxes:
        last = lists[-1] if lists else None
        joint = _joint(text, last, box) if last and listed < MAX_LISTED else None
        if last and joint is not None:
            lists[-1], listed = _joined(text, last, joint, box), listed + 1
        else:
            lists.append(box)
            listed = 1
    return lists


def _joint(text: str, last: Stated, box: Stated) -> re.Match[str] | None:
    if box.start - last.end > MAX_JOINT:
        return None
    between = text[last.end : box.start]
    joint = _JOINT.fullmatch(_GAP.sub(" ", between))
    # boxes on lines of their own are one list only if something joins them
    is_joined = joint and (joint["mark"] or joint["word"] or "\n" not in between)
    return joint if is_joined else None


def _joined(text: str, last: Stated, joint: re.Match[str], box: Stated) -> Stated:
    r"""Two boxes as one list; `x = \boxed{1}` and `y = \boxed{2}` keep their names."""
    if not (joint["mark"] or joint["word"]) and last.content == box.content:
        return last._replace(end=box.end)
    first = _NAME.search(text[max(0, last.start - 12) : last.start])
    name = joint["name"] or ""
    before = first.group() if first and name and "=" not in last.content else ""
    sign = r"\text{ or }" if joint["word"] == "or" else ", "
    return last._replace(end=box.end, content=f"{before}{last.content}{sign}{name}{box.content}")


def _closings(text: str, offset: int = 0) -> dict[int, int]:
    """Where each brace that opens is closed, in one pass; escaped braces are text."""
    opened: list[int] = []
    closings = {}
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(offset + brace.start())
        elif brace.group() == "}" and opened:
            closings[opened.pop()] = offset + brace.start()
    return closings


def _content(text: str, start: int, closings: dict[int, int]) -> tuple[str, int]:
    r"""A box's content and where it ends; "" for one without its closing brace. `\boxed 7` is 7."""
    if text[start : start + 1] == "{":
        end = closings.get(start)
        return ("", start) if end is None else (text[start + 1 : end].strip(), end + 1)
    bare = _BARE_BOX.match(text, start)
    # "is \boxed." names no value
    return (bare.group().rstrip(".,"), bare.end()) if bare else ("", start)
