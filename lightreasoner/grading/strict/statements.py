r"""Answers behind labels and phrases: "Answer: 7", "The answer is 7", "7 is the answer"."""

import re

from lightreasoner.grading.strict import sentences
from lightreasoner.grading.strict.boxes import BOX
from lightreasoner.grading.strict.sentences import Stated

MAX_CHARS = 1000
"""An answer in prose ends here at the latest."""

_SIGNS = r"(?:[^\w\n\\$(]{0,12}(?:[0-9]{1,2}[.)][ ])?[^\w\n\\$(]{0,6})"
"""What may stand before a label: list and quotation signs, bold or heading marks, an emoji."""
_LABEL = rf"""\#\#\#\#[ \t]*\n?
    |(?:^|\n){_SIGNS}(?:(?:final|correct|the|my|our|so|thus|therefore|hence),?[ ]){{0,3}}
        (?:answer|ans|final[ ]result|result|choice|(?-i:A))
        \**[ \t]*(?:[:：=]|[-=]>|[→⇒—–]|-(?=[ ]))\**[ \t\n]{{0,4}}
    |(?:^|\n){_SIGNS}(?:(?:final|the)[ ]){{0,2}}answer\**[ \t]*\n[ \t\n]{{0,4}}
    |(?:^|\n){_SIGNS}(?:respuesta|réponse|antwort|risposta|resposta|ответ|jibu)
        [ ]?\**[:：]\**[ \t]*
    |(?:respuesta|réponse|antwort|risposta|resposta)[ ](?:finale?[ ])?
        (?:es|est|ist|lautet|è|é)\b[ ]?:?[ ]*
    |答え(?:は|[:：])[ \t]*|(?:정답|답)(?:은|:)[ \t]*
    |答案(?:[是为][:：]?|[:：])[ \t]*|故选[:：]?[ \t]*"""
_ADVERBS = r"(?:[ ](?:therefore|thus|simply|then|just|now|indeed|option|choice))?"
_PHRASE = rf"""\banswer(?:[ ]choice)?\**[ ](?:is|was|equals|(?:would|will)[ ]be)\**:?
        {_ADVERBS}[:,]?(?:[ ]?(?:\.{{2,}}|…))?[ \t\n]{{0,4}}"""
_STRICT_PHRASE = r"""(?:\banswer|\bfinal[ ](?:result|value|total|amount|count|number))\**
        (?:[ ](?:(?:should|must|has[ ]to|ought[ ]to|can[ ]only|shall)[ ](?:thus[ ])?be|is
        |(?:comes|works|turns)[ ](?:out[ ])?(?:to|at|as)(?:[ ]be)?|becomes|equals|of|=)|[ ]?[:：=])
        [ ]?:?[ \t\n]{0,4}(?=[-+−(\\$*"]{0,4}[0-9A-E\\$(£€])"""
"""What states an answer only where a value follows."""
_MARKS = re.compile(f"{_LABEL}|{_PHRASE}|{_STRICT_PHRASE}", re.VERBOSE | re.IGNORECASE)
_LETTER_MARKS = re.compile(r"\b(?:choice|option) is:?[ \t\n]{0,4}", re.IGNORECASE)
_REVERSED = re.compile(
    r"(?:^|[\s(*])(?P<value>\\?[$]?[-−]?[0-9(\\][^.\n]{0,60}?|[A-E])\)?\**,? is "
    r"(?:thus |therefore )?(?:the|our|my) (?:final |correct |required |desired )?answer\b(?!\s*\?)",
)
_REMARK = re.compile(
    r"(?:therefore |thus |indeed |now )?(?:clear|correct|right|wrong|incorrect|obvious|unique|valid"
    r"|reasonable|consistent|given|found|as follows|in the|that|not)\b(?!\s*[:$\\0-9])",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s+(?:because|since|which|where|so that|as (?:we|it|the|this)|not|rather than|instead of)\b"
)
_NOT_BUT = re.compile(r"not [^.\n]{1,60}?,? but (?:rather |instead )?")
_ONLY_MARKS = re.compile(r"[\\\[\](){}$*\s.:]*")
_MATH = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"), ("**", "**"))


def last(text: str, letters: bool) -> Stated | None:
    """The last statement of an answer; None if nothing states one. `letters`: among options."""
    marks = list(_MARKS.finditer(text))
    if letters:
        marks += _LETTER_MARKS.finditer(text)
    found = [(mark.start(), mark.end(), "") for mark in marks]
    found += [(m.start(), m.end(), m["value"].strip("*( ")) for m in _REVERSED.finditer(text)]
    for start, end, value in sorted(found, key=lambda mark: mark[0], reverse=True):
        if refuted := _NOT_BUT.match(text, end):
            end = refuted.end()
        answer = value or statement(text[end : end + MAX_CHARS], letters)
        if answer and not _REMARK.match(answer):
            plain = unquoted(answer)
            end = end if value else text.find(answer, end) + len(answer)
            return Stated(start, end, plain if letters else sentences.distilled(plain))
    return None


def statement(text: str, letters: bool) -> str | None:
    """The answer at the start of a text: to the end of its formula, sentence or line.

    Among options it is the whole line, as an option may be several sentences.
    """
    text = text.strip()
    line = text.partition("\n")[0].strip()
    if BOX.search(line):
        return None
    for opener, closer in _MATH:
        end = text.find(closer, len(opener)) if text.startswith(opener) else -1
        # "$x$, $y$" and "$5 apples" are read on to the sentence's end
        if end > 0 and re.match(r"\s*(?:[.!\n]|$)", text[end + len(closer) :]):
            return text[len(opener) : end].strip() or None
    if letters:
        return line or None
    answer = _REASON.split(sentences.first(text), maxsplit=1)[0].strip()
    return None if _ONLY_MARKS.fullmatch(answer) else answer


def unquoted(text: str) -> str:
    """A text without the quotation marks or backquotes around the whole of it."""
    return re.sub(r"""\A(?:"([^"]*)"|“([^”]*)”|`([^`]*)`)\.?\Z""", r"\1\2\3", text)
