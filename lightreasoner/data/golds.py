r"""Gold answers, read out of what a row has as its answer: that may be a worked solution.

An answer alone stays as it is, be it a number, a formula or words. Out of a worked solution comes
what stands on the line of the last `####`, in a box, behind `The answer is`, `Answer:` or `A:`, or
in a list of one as text. What names no answer, or several, is refused: nothing could match it as a
gold answer, or the wrong thing would.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightreasoner.data.problems import CALCULATOR
from lightreasoner.qwen_math.answers import found_answer, gold
from lightreasoner.untrusted import shown

MARKER = "####"
MAX_CHARS = 1000
"""No answer is longer."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_LABEL = re.compile(
    r"\b(?:answers?|ans)\b[*_]*\s*(?:(?:is|are)\b\s*:?|:)|^[*_]*(?:final\s+)?answer[*_]*\s*="
    r"|^[*_]*(?-i:A)[*_]*:|答案\s*[是为:：][:：]?",
    re.IGNORECASE | re.MULTILINE,
)
_OPTION_B = re.compile(r"^\s*\(?B\s*[:.)]|\s\(?B\s*[:)]", re.MULTILINE)
_LIST = re.compile(r"""\[\s*(['"])(.*)\1\s*,?\s*\]""", re.DOTALL)
_LONE_BACKSLASH = re.compile(r"(?<!\\)\\(?!\\)")
_SENTENCE_END = re.compile(
    r"(?:(?<=[\d)\]}$%])|(?<=\w\w))(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)"
    r"[.!?]\s+(?=[A-Z])"
)
_LETTER = re.compile(r"^([A-E])\.\s+[A-Z].*")
_VALUE = re.compile(r"(?![A-Za-z]{2})|(?:yes|no|true|false)\W*$", re.IGNORECASE)
"""How a line begins that is an answer, though more lines follow; `Step 3` is a heading."""

_REASON = re.compile(
    r"^(?:so|thus|therefore|hence|then|that)[\s,:]|\b(?:because|since|therefore)\b", re.IGNORECASE
)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|needs?|costs?|takes?)\b")
_SUM = re.compile(
    r"^(?=[^=]*\d[^=]*[-+*/×÷−])(?:[-+*/×÷−\d\s.,$()%]|(?<![A-Za-z\\])[A-Za-z]{3,})+=.*\d.*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Gold:
    """A gold answer, not normalised; how it was read; the working that stood with it, if any."""

    answer: str
    how: str
    working: str = ""


def parse_gold(text: str, question: str = "") -> Gold:
    """The gold answer in a row's answer. Raises ValueError, which says why there is none."""
    try:
        return _read(text.strip(), question)
    except ValueError as error:
        raise refusal(text, str(error)) from error


def read_solution(text: str) -> Gold:
    """The gold answer of a worked solution, as the toolkit finds it (answers.py)."""
    answer, how = found_answer(text)
    try:
        return Gold(answer if how == "box" else _alone(answer), how, text)
    except ValueError as error:
        raise refusal(answer, str(error)) from error


def refusal(answer: str, why: str) -> ValueError:
    """The error that says what has no gold answer, why, and what to do."""
    return ValueError(
        f"no gold answer can be read, got {shown(answer, 80)}: {why}; give a number, a formula or "
        "a word, or a solution that ends in #### and the answer"
    )


def _read(text: str, question: str) -> Gold:
    working, marker, end = text.rpartition(MARKER)
    if marker:
        return Gold(_behind_marker(end.strip()), "marker", working.strip())
    if said := _stated(text, question):
        pattern = _BOX if _BOX.search(text) else _LABEL
        is_worked = any(c.isdigit() for c in pattern.split(text)[0])
        return Gold(_one(said), "box" if pattern is _BOX else "label", text if is_worked else "")
    if listed := _LIST.fullmatch(text):
        return Gold(_of_list(*listed.groups()), "list")
    return Gold(_alone(text), "given")


def _behind_marker(end: str) -> str:
    """The answer on the marker's line; what follows may state it again, but no other one."""
    line, _, rest = end.partition("\n")
    said = _stated(line) or ([_alone(line)] if not rest or _VALUE.match(line) else [])
    said += _stated(rest)
    if not said:
        raise ValueError(f"{shown(line, 80)} behind {MARKER} is no answer, and none follows")
    return _one(said)


def _stated(text: str, question: str = "") -> list[str]:
    """The answers that boxes state, else those that labels do."""
    text = CALCULATOR.sub("", text)
    if boxes := list(_BOX.finditer(text)):
        return list(dict.fromkeys(_braced(text[box.end() :]) for box in boxes))
    labels = list(_LABEL.finditer(text))
    is_option = _OPTION_B.search(text) or _OPTION_B.search(question)
    if is_option and any(label[0].strip("*_") == "A:" for label in labels):
        raise ValueError("A: may name an option")
    ends = [label.end() for label in labels]
    return [_alone(_phrase(text[end : end + 2 * MAX_CHARS])) for end in ends]


def _braced(text: str) -> str:
    """What a text has in the braces that it begins with."""
    if not text.startswith("{"):
        raise ValueError("its box has no braces")
    depth = 0
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[1 : brace.start()].strip()
    raise ValueError("its box does not end")


def _phrase(text: str) -> str:
    """A text's first sentence, or line, without what marks it."""
    line = text.strip(" *_`\n").partition("\n")[0]
    line = _LETTER.sub(r"\1", _SENTENCE_END.split(line, maxsplit=1)[0])
    return line.strip(" *_`").removesuffix(".").strip(" *_`")


def _of_list(mark: str, inner: str) -> str:
    """The one answer of a list as Python or JSON writes it, where a backslash is doubled."""
    if mark in inner:
        raise ValueError("it is a list of several answers")
    inner = inner if _LONE_BACKSLASH.search(inner) else inner.replace(r"\\", "\\")
    return _read(inner.strip(), "").answer


def _one(said: Sequence[str]) -> str:
    """The answer that all of these are. Raises ValueError if they differ."""
    different = {gold(answer, "").replace(",", ""): answer for answer in said}
    if len(different) > 1:
        raise ValueError(f"it states {' and '.join(map(shown, list(different.values())[:3]))}")
    return said[0]


def _alone(answer: str) -> str:
    """An answer as it is. Raises ValueError for what reads as a solution.

    That is a computation, a reason, a sentence about a number, several sentences or lines of words.
    """
    if len(answer) > MAX_CHARS:
        raise ValueError(f"it has {len(answer)} characters, over {MAX_CHARS}")
    has_lines = "\n" in answer and r"\begin" not in answer and re.search(r"[A-Za-z]{3}", answer)
    is_sentence = answer[:1].isupper() and answer.endswith(".") and re.search(r"\d", answer)
    if (
        has_lines
        or (is_sentence and _VERB.search(answer))
        or any(rule.search(answer) for rule in (_SENTENCE_END, _REASON, _SUM))
    ):
        raise ValueError("it is a solution that marks no answer")
    return answer
