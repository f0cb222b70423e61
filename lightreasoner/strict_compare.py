r"""Whether a cleaned answer says the same as a cleaned gold answer.

Numbers are compared exactly, but for the tolerances that docs/grading.md gives; lists and sets
without order, tuples and intervals with their brackets; equations and inequalities up to a factor;
everything else by algebra (strict_algebra).
"""

import re
from fractions import Fraction
from itertools import pairwise

from lightreasoner import strict_algebra, strict_numbers
from lightreasoner.strict_forms import is_enclosed, split_top, split_unit, trim
from lightreasoner.strict_numbers import Number

MAX_ELEMENTS = 50
"""Longer lists are compared as strings only."""

MEASURED = "minerva_math"
"""The benchmark whose decimal golds are measured or rounded quantities."""
MEASURED_TOLERANCE = Fraction(1, 100)
APPROXIMATION_DIGITS = 5
"""So many printed digits stand for a gold answer that no decimal can print."""

_SEPARATOR = re.compile(
    r"[,;]|\\text\{\s*(?:,?\s*(?:and|or))\s*,?\s*\}|\s(?:and|or)\s|\\(?:lor|vee)\s"
)
_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
_APPROXIMATE = re.compile(r"\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z])")
_MEMBER = re.compile(r"[a-zA-Z]\s*\\in(?![a-zA-Z])\s*")
_NAME = re.compile(
    r"\\?[a-zA-Z]+'*(?:_(?:\{[^{}]*\}|\w))?"
    r"|\\text\{[^{}]*\}|[A-Za-z][A-Za-z ]*|\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)"
    r"|(?:m\s*)?\\(?:angle|triangle|overline|overarc|widehat|mathrm|dot|hat|vec|bar)\s*\{?\s*\w+\s*\}?"
    r"|(?P<function>\\?[a-zA-Z]+'*(?:_\{?\w\}?)?(?:\^\{?-?\w+\}?)?)\s*\((?P<argument>[^()]*)\)"
)
_LEAD = re.compile(
    r"^(?:\\text\{)?\s*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|result|total|solution)"
    r"(?:\s+is)?\s*[:=]?\s*\}?\s*(?=[^\s}a-zA-Z]|$)",
    re.IGNORECASE,
)
_RATIO = re.compile(r"\s*([0-9.]+)\s*(?::|\bto\b)\s*([0-9.]+)\s*(?::\s*([0-9.]+)\s*)?")
_ASKS_PERCENT = re.compile(
    r"(?:what|which|how|find|express|nearest|as an?)\b[^.?!]*\bpercent", re.I
)


class Comparison:
    """The comparison of two cleaned texts for one question of one benchmark."""

    def __init__(self, question: str, benchmark: str) -> None:
        self.question = squeezed(question)
        self.asks_percent = _ASKS_PERCENT.search(question) is not None
        self.asks_ratio = re.search(r"\bratio", question, re.IGNORECASE) is not None
        self.is_measured = benchmark == MEASURED

    def is_equal(self, answer: str, gold: str) -> bool:
        """Whether the texts say the same, as a list of values or as one."""
        answer, gold = _without_lead(answer), _without_lead(gold)
        if not answer or not gold:
            return False
        if squeezed(answer) == squeezed(gold):
            return True
        a, b = strict_numbers.read(answer), strict_numbers.read(gold)
        if a and b:
            return self._same_number(a, b)
        bare, unit = split_unit(answer)
        bare_gold, gold_unit = split_unit(gold)
        if unit and gold_unit and unit != gold_unit:
            return False
        if (bare, bare_gold) != (answer, gold) and self.is_equal(bare, bare_gold):
            return True
        return self._same_text(answer, gold) or self._same_form(answer, gold)

    def _same_number(self, a: Number, b: Number) -> bool:
        values = {a.value}
        if self.asks_percent and a.percent != b.percent:
            values.add(a.value * 100 if a.percent else a.value / 100)
        return any(self._close(value, a, b) for value in values)

    def _close(self, value: Fraction, a: Number, b: Number) -> bool:
        if value == b.value:
            return True
        if b.step is not None and self._is_inexact(b):
            return self._rounds_to(value, b)
        if b.step is not None and b.significant_digits >= 3 and not a.is_terminating:
            return abs(value - b.value) <= b.step / 2
        if a.step is not None and not b.is_terminating:
            return _approximates(a, b.value)
        return False

    def _is_inexact(self, gold: Number) -> bool:
        return self.is_measured and gold.step is not None

    def _rounds_to(self, value: Fraction, gold: Number) -> bool:
        """Whether a value is a measured gold to the digits that the gold prints, and to 1%."""
        error = abs(value - gold.value)
        return error <= (gold.step or 0) / 2 and error <= MEASURED_TOLERANCE * abs(gold.value)

    def _same_text(self, answer: str, gold: str) -> bool:
        """Whether two plain texts are the same words; a single letter keeps its case."""
        if any(re.search(r"[\\^_={}]", text) for text in (answer, gold)):
            return False
        answer, gold = (re.sub(r"^\(([A-Z])\)$", r"\1", text) for text in (answer, gold))
        if answer == gold:
            return True
        if not re.search(r"[a-zA-Z]{2}", gold) or re.search(r"\d\s*[a-zA-Z]|[+*(]", gold):
            return False
        return words(answer) == words(gold)

    def _same_form(self, answer: str, gold: str) -> bool:
        if (ratio := self._ratio(gold)) is not None:
            return self._same_ratio(answer, ratio)
        if _APPROXIMATE.search(answer):
            return self._same_approximate(answer, gold)
        elements, golds = _elements(answer), _elements(gold)
        if len(elements) > 1 or len(golds) > 1:
            return self._same_elements(elements, golds)
        pieces, gold_pieces = split_top(answer, _UNION), split_top(gold, _UNION)
        if len(pieces) > 1 or len(gold_pieces) > 1:
            return self._same_elements(pieces, gold_pieces)
        return self._same_single(elements[0], golds[0])

    def _ratio(self, text: str) -> tuple[Fraction, ...] | None:
        match = _RATIO.fullmatch(text)
        if match is None:
            return None
        numbers = [strict_numbers.read(part) for part in match.groups() if part]
        return tuple(n.value for n in numbers) if all(numbers) else None  # type: ignore[union-attr]

    def _same_ratio(self, answer: str, gold: tuple[Fraction, ...]) -> bool:
        """Whether an answer is the ratio, or in proportion to it where a ratio is asked for."""
        names = split_top(answer, re.compile("="))
        ratio = self._ratio(names[-1])
        if ratio is None and len(gold) == 2:
            number = strict_numbers.read(names[-1])
            if number is None or not gold[1] or not self.asks_ratio:
                return False
            return self._same_number(number, Number(gold[0] / gold[1]))
        if ratio is None or len(ratio) != len(gold) or not all(map(self._is_name, names[:-1])):
            return False
        if ratio == gold or not self.asks_ratio:
            return ratio == gold
        return all(a * gold[0] == b * ratio[0] for a, b in zip(ratio, gold, strict=True))

    def _same_approximate(self, answer: str, gold: str) -> bool:
        """`a \\approx b`: the exact side counts, unless it is a name."""
        left, *_, right = split_top(answer, _APPROXIMATE)
        return self.is_equal(trim(right if self._is_name(trim(left)) else left), gold)

    def _same_elements(self, answers: list[str], golds: list[str]) -> bool:
        """Whether two lists hold the same elements, each as often, in any order."""
        if len(answers) != len(golds) or len(answers) > MAX_ELEMENTS:
            return False
        answers, golds = [trim(text) for text in answers], [trim(text) for text in golds]
        named = all(map(self._is_assignment, golds))
        if not named and all(map(self._is_assignment, answers)):
            answers = [split_top(text, re.compile("="))[-1] for text in answers]
        left = list(golds)
        for element in answers:
            match = next((gold for gold in left if self.is_equal(element, gold)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _is_assignment(self, text: str) -> bool:
        sides = split_top(text, _RELATION)
        return len(sides) == 2 and "=" in text and self._is_name(sides[0])

    def _same_single(self, answer: str, gold: str) -> bool:
        answer, gold = _unwrapped(answer), _unwrapped(gold)
        if _MEMBER.match(answer) and not _MEMBER.match(gold):
            return self.is_equal(_MEMBER.sub("", answer, count=1), gold)
        if _MEMBER.match(gold) and not _MEMBER.match(answer):
            return self.is_equal(answer, _MEMBER.sub("", gold, count=1))
        answer, gold = _as_interval(answer, gold), _as_interval(gold, answer)
        sides, gold_sides = split_top(answer, _RELATION), split_top(gold, _RELATION)
        if len(sides) > 1 or len(gold_sides) > 1:
            return self._same_relation(answer, gold, sides, gold_sides)
        brackets, gold_brackets = _brackets(answer), _brackets(gold)
        if brackets or gold_brackets:
            return brackets == gold_brackets and self._same_sequence(answer[1:-1], gold[1:-1])
        return self._same_value(answer, gold)

    def _same_sequence(self, answer: str, gold: str) -> bool:
        answers, golds = (split_top(text, re.compile("[,;]")) for text in (answer, gold))
        if len(answers) != len(golds) or len(answers) > MAX_ELEMENTS:
            return False
        return all(self.is_equal(trim(a), trim(b)) for a, b in zip(answers, golds, strict=True))

    def _same_relation(
        self, answer: str, gold: str, sides: list[str], gold_sides: list[str]
    ) -> bool:
        """Equations and inequalities, or one assignment `x = 7` and a value 7."""
        if len(gold_sides) == 1:
            return self._assigned(answer, sides, gold)
        if len(sides) == 1:
            return (
                len(gold_sides) == 2
                and "=" in gold
                and self._is_name(gold_sides[0])
                and (self.is_equal(answer, trim(gold_sides[1])))
            )
        signs, gold_signs = (_signs(text) for text in (answer, gold))
        if len(signs) == len(gold_signs) == 1:
            return self._same_equation(sides, signs[0], gold_sides, gold_signs[0])
        if len(signs) != len(gold_signs):
            return False
        return any(
            signs_ == gold_signs
            and all(map(self.is_equal, map(trim, sides_), map(trim, gold_sides)))
            for sides_, signs_ in (
                (sides, signs),
                (sides[::-1], [strict_algebra.FLIPPED.get(sign, sign) for sign in signs[::-1]]),
            )
        )

    def _same_equation(
        self, sides: list[str], sign: str, gold_sides: list[str], gold_sign: str
    ) -> bool:
        left, right = (trim(side) for side in sides)
        gold_left, gold_right = (trim(side) for side in gold_sides)
        if sign == gold_sign:
            renamed = _renamed(left, right, gold_left)
            same_name = squeezed(left) == squeezed(gold_left) or renamed is not None
            if same_name and self.is_equal(renamed or right, gold_right):
                return True
            if sign == "=" and {squeezed(left), squeezed(right)} == {
                squeezed(gold_left),
                squeezed(gold_right),
            }:
                return True
        return strict_algebra.is_same_relation(
            (left, sign, right), (gold_left, gold_sign, gold_right)
        )

    def _assigned(self, answer: str, sides: list[str], gold: str) -> bool:
        """`x = 7`, `f(x) = 7`, `4 + 3 = 7`, or `a + b = 7` where the question asks for a + b."""
        if any(sign != "=" for sign in _signs(answer)):
            return False
        *before, value = [trim(side) for side in sides]
        if not self.is_equal(value, gold):
            return False
        return all(
            self._is_name(side) or squeezed(side) in self.question or self.is_equal(side, value)
            for side in before
        )

    def _is_name(self, text: str) -> bool:
        match = _NAME.fullmatch(text.strip())
        return match is not None and strict_numbers.from_words(text) is None

    def _same_value(self, answer: str, gold: str) -> bool:
        """Single expressions: by algebra, or as decimals where one of them is one."""
        b, a = strict_numbers.read(gold), strict_numbers.read(answer)
        if a and b:
            return self._same_number(a, b)
        if b and (b.step is not None) and (self.is_measured or b.significant_digits >= 3):
            exact = _fraction_of(answer)
            if exact is None:
                return False
            if self.is_measured:
                return self._rounds_to(exact, b)
            return abs(exact - b.value) <= b.step / 2
        if a and a.step is not None:
            exact = _fraction_of(gold)
            if exact is not None and _approximates(a, exact):
                return True
        return strict_algebra.is_equal(answer, gold)


def _as_interval(text: str, other: str) -> str:
    r"""An inequality in one letter as the interval that it is, where the other text is an interval.

    `\mathbb{R}` is the interval of all numbers.
    """
    if not _brackets(other):
        return text
    if text == r"\mathbb{R}":
        return r"(-\infty,\infty)"
    sides, signs = [trim(side) for side in split_top(text, _RELATION)], _signs(text)
    if len(sides) == 3 and signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], [strict_algebra.FLIPPED.get(sign, "") for sign in signs[::-1]]
    if len(sides) == 2 and re.fullmatch("[a-z]", sides[1]) and signs[0] in strict_algebra.FLIPPED:
        sides, signs = sides[::-1], [strict_algebra.FLIPPED[signs[0]]]
    match len(sides), signs:
        case 3, [("<" | r"\le") as low, ("<" | r"\le") as high] if re.fullmatch("[a-z]", sides[1]):
            return f"{'(' if low == '<' else '['}{sides[0]},{sides[2]}{')' if high == '<' else ']'}"
        case 2, [("<" | r"\le") as high] if re.fullmatch("[a-z]", sides[0]):
            return rf"(-\infty,{sides[1]}{')' if high == '<' else ']'}"
        case 2, [(">" | r"\ge") as low] if re.fullmatch("[a-z]", sides[0]):
            return rf"{'(' if low == '>' else '['}{sides[1]},\infty)"
    return text


def squeezed(text: str) -> str:
    """The text without space, but for what keeps two numbers apart."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def words(text: str) -> str:
    """A text without case, space, braces and punctuation at its end."""
    return re.sub(r"[\s{}]|\\text", "", text).rstrip(".,;:!").casefold()


def _approximates(answer: Number, exact: Fraction) -> bool:
    """Whether a printed decimal is an exact value rounded or cut at its last digit."""
    if answer.step is None or answer.significant_digits < APPROXIMATION_DIGITS:
        return False
    error = abs(exact) - abs(answer.value)
    same_sign = (exact > 0) == (answer.value > 0)
    return same_sign and -answer.step / 2 <= error < answer.step


def _fraction_of(text: str) -> Fraction | None:
    number = strict_algebra.value(text)
    return None if number is None else Fraction(str(number))


def _without_lead(text: str) -> str:
    """The text without words that only announce the answer."""
    shorter = _LEAD.sub("", text, count=1)
    return trim(shorter) if shorter else text


def _elements(text: str) -> list[str]:
    r"""The elements of a list or set, each \pm as two; a tuple, an interval or a value is one."""
    text = text.strip()
    if text.startswith(r"\{") and text.endswith(r"\}"):
        text = text[2:-2]
    parts = [text] if strict_numbers.read(text) else split_top(text, _SEPARATOR)
    parts = [part for part in parts if part.strip()] or [text]
    return [signed for part in parts for signed in _both_signs(part)]


def _both_signs(text: str) -> list[str]:
    if not re.search(r"\\pm(?![a-zA-Z])", text):
        return [text]
    plus = re.sub(r"\\mp(?![a-zA-Z])", "-", re.sub(r"\\pm(?![a-zA-Z])", "+", text))
    minus = re.sub(r"\\mp(?![a-zA-Z])", "+", re.sub(r"\\pm(?![a-zA-Z])", "-", text))
    return [plus, minus]


def _unwrapped(text: str) -> str:
    """A single value without brackets that only group it: (48) is 48, [3] is 3."""
    text = trim(text)
    while is_enclosed(text, "(") or is_enclosed(text, "["):
        if len(split_top(text[1:-1], re.compile("[,;]"))) > 1:
            return text
        text = trim(text[1:-1])
    return text


def _brackets(text: str) -> str | None:
    """The outer pair of a tuple or an interval, such as "(]"; None for any other text."""
    if len(text) < 4 or text[0] not in "([" or text[-1] not in ")]":
        return None
    inner = text[1:-1]
    level = 0
    for character in inner:
        level += (character in "([") - (character in ")]")
        if level < 0:
            return None
    return text[0] + text[-1] if len(split_top(inner, re.compile("[,;]"))) > 1 else None


def _signs(text: str) -> list[str]:
    sides = split_top(text, _RELATION)
    signs, at = [], 0
    for side, _ in pairwise(sides):
        at += len(side)
        match = _RELATION.match(text, at)
        signs.append({r"\lt": "<", r"\gt": ">"}.get(match.group(), match.group()) if match else "")
        at = match.end() if match else at
    return signs


def _renamed(left: str, right: str, gold_left: str) -> str | None:
    """f(x) = .. in the letter of f(n) = ..; None unless both are one function of one letter."""
    a, b = _NAME.fullmatch(left), _NAME.fullmatch(gold_left)
    if not (a and b and a["function"] and a["function"] == b["function"]):
        return None
    old, new = a["argument"].strip(), b["argument"].strip()
    if not (re.fullmatch("[a-z]", old) and re.fullmatch("[a-z]", new)):
        return None
    return re.sub(rf"(?<![a-zA-Z\\]){old}(?![a-zA-Z])", new, right)
