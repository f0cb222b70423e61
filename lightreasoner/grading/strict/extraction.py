r"""Where a response states its answer, as the strict verdict reads it.

An answer is stated between answer tags, in a box (boxes.py), by a label or a phrase
(statements.py), or by the response's last sentence or line (endings.py). Numbers that merely stand
somewhere are no answer, and neither is what is taken back. Thoughts between `<think>` and
`</think>` are no response. A response that goes on to another problem, as base models do, ends
where that begins.

Everything is linear in the response's length.
"""

import re
from collections.abc import Iterator

from lightreasoner.grading.strict import boxes, endings, revisions, sentences, statements

_STOP_WORDS = re.compile(r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|im_start\|>")
_NEXT_PROBLEM = re.compile(
    r"\n[ \t]*(?:#+ |\*\*)?(?:(?:Question|Problem|Exercise|Instruction|Human|User|Assistant|Q)"
    r"(?: [0-9]+)?\**[ \t]*:|(?:Question|Problem|Exercise) [0-9]+(?:\.[ \t]|\**[ \t]*(?=\n|$))"
    r"|(?:Next|Another|One more|(?:Here(?:'s|’s| is)|Now,?|Let(?:'s|’s| us)|Try|Consider|A)"
    r"\b[^\n.:?]{0,20}\b(?:another|new|next|similar|different|related))\b[^\n.:?]{0,30}"
    r"\b(?:questions?|problems?|exercises?|puzzles?)\b[^\n.:?]{0,20}[:.])",
    re.IGNORECASE,
)
_CALCULATOR = re.compile(r"<<[^<>\n]{0,200}>>")
"""GSM8K's notes on what its calculator was asked."""
_THOUGHT = re.compile(r"<(?P<end>/?)(?:think|thinking|thought|thoughts)>", re.IGNORECASE)
_OPENING = re.compile(r"[<\[](?P<name>(?:final_?)?answer)[>\]]", re.IGNORECASE)
_DISPLAY = re.compile(r"\\[\[(]")


def extract(response: str, question: str, letters: bool) -> str | None:
    """The stated answer, stripped; None if there is none. `letters`: it may be a choice's letter.

    Where several problems' worth of text stand, the first part that states an answer counts, also
    if it takes it back.
    """
    text = _spoken(_CALCULATOR.sub("", _STOP_WORDS.split(response, maxsplit=1)[0]))
    for part in _parts(text):
        answer = _answer(part, question, letters)
        if answer is not None:
            return answer or None
    whole = _undisplayed(text.strip()).strip("$*. ")
    if len(whole) <= 50 and (sentences.is_value(whole) or (letters and endings.is_letter(whole))):
        return whole
    return None


def _undisplayed(text: str) -> str:
    """The text without the first opening mark of a formula and the last closing one after it."""
    opening = _DISPLAY.search(text)
    end = max(text.rfind(r"\]"), text.rfind(r"\)"))
    if opening is None or end < opening.end():
        return text
    formula, rest = text[opening.end() : end], text[end + 2 :].removeprefix(".")
    return text[: opening.start()] + formula + rest


def _spoken(text: str) -> str:
    """The text without thoughts, those too that are not finished, or that the prompt began."""
    kept: list[str] = []
    start, thinks = 0, False
    for mark in _THOUGHT.finditer(text):
        if mark["end"]:
            # without its opening tag, all before it is thought
            kept = kept if thinks else []
            start, thinks = mark.end(), False
        elif not thinks:
            kept.append(text[start : mark.start()])
            thinks = True
    return "\n".join(kept if thinks else [*kept, text[start:]])


def _parts(text: str) -> Iterator[str]:
    start = 0
    for mark in _NEXT_PROBLEM.finditer(text):
        yield text[start : mark.start()]
        start = mark.end()
    yield text[start:]


def _answer(text: str, question: str, letters: bool, revisions_left: int = 3) -> str | None:
    """The answer that one problem's text states; "" if it takes it back, None if there is none."""
    tagged = _tagged(text)
    if tagged is not None:
        return _answer(tagged, question, letters) or sentences.distilled(tagged)
    found = boxes.last_answer(text, question) or statements.last(text, letters)
    if found is None:
        ending = None if boxes.is_cut_off(text) else endings.concluded(text, letters)
        box = None if ending else boxes.last_answer(text, question, loosely=True)
        return box.content if box else ending
    behind = text[found.end :]
    if revisions.is_withdrawn(behind):
        return (
            (_answer(behind, question, letters, revisions_left - 1) or "") if revisions_left else ""
        )
    doubt = revisions.TAKEN_BACK.search(behind)
    if doubt and not boxes.OTHER_PROBLEM.search(behind, 0, doubt.end() + 40):
        later = statements.last(behind[doubt.end() :], letters)
        if later and _is_answer(later.content, letters):
            return later.content
    is_replaced = boxes.is_cut_off(behind, declared=not doubt) and (doubt or not found.is_declared)
    return "" if is_replaced else found.content


def _is_answer(text: str, letters: bool) -> bool:
    return endings.is_letter(text) if letters else re.search(r"[0-9\\$]", text) is not None


def _tagged(text: str) -> str | None:
    """What stands between the last answer tags; None without both."""
    for opening in reversed(list(_OPENING.finditer(text))):
        closing = f"{opening.group()[0]}/{opening.group()[1:]}"
        end = text.find(closing, opening.end(), opening.end() + statements.MAX_CHARS)
        found = text[opening.end() : end].strip() if end > 0 else ""
        if found and not boxes.PLACEHOLDER.fullmatch(found):
            return found
    return None
