r"""Whether a cleaned answer says the same as a cleaned gold answer.

Numbers are compared exactly, but for the tolerances that docs/grading.md gives; lists and sets
without order, tuples and intervals with their brackets; equations and inequalities up to a factor;
everything else by algebra (algebra.py).
"""

import re
from fractions import Fraction

from lightreasoner.grading.strict import algebra, number_words, numerals, questions
from lightreasoner.grading.strict.forms import split_top, trim
from lightreasoner.grading.strict.intervals import MEMBER, UNION, same_set
from lightreasoner.grading.strict.numerals import Number
from lightreasoner.grading.strict.shapes import (
    NAME,
    RELATION,
    alternatives,
    are_same_words,
    based,
    in_radians,
    outer_brackets,
    relation_signs,
    split_elements,
    squeezed,
    time_of_day,
    with_argument_of,
    without_grouping,
    without_lead,
    without_qualifier,
)
from lightreasoner.grading.strict.units import split_unit

MAX_ELEMENTS = 50
"""Longer lists are compared as strings only."""

MEASURED = "minerva_math"
"""The benchmark whose decimal golds are measured or rounded quantities."""
QUANTITIES = ("gsm8k", "svamp", "asdiv", MEASURED)
"""The benchmarks whose numbers are no factors, so that a single letter behind one is a unit."""
ROUNDED_TOLERANCE = Fraction(1, 100)
ROUNDED_DIGITS = 3
"""A gold decimal of this many digits may be a rounded fraction or root elsewhere, too."""
APPROXIMATION_DIGITS = 5
"""This many printed digits stand for a gold answer that no decimal can print."""

_APPROXIMATE = re.compile(r"\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z])")
_ASIDE = re.compile(r"(?<=\S)\s*\(\s*\\(?:approx|simeq)(?![a-zA-Z])[^()]*\)$")
"""What a value is about, behind the value: 12\\pi (\\approx 37.7)."""
_RATIO = re.compile(r"\s*([0-9.]+)\s*(?::|\bto\b)\s*([0-9.]+)\s*(?::\s*([0-9.]+)\s*)?")


class Comparison:
    """The comparison of two cleaned texts for one question of one benchmark."""

    def __init__(self, question: str, benchmark: str) -> None:
        self.question = question
        self.asks_percent = questions.asks_percent(question)
        self.asks_ratio = re.search(r"\bratios?\b", question, re.IGNORECASE) is not None
        self.counted = questions.counted_factor(question)
        self.is_measured = benchmark == MEASURED
        self.takes_letters = benchmark in QUANTITIES

    def is_equal(self, answer: str, gold: str) -> bool:
        """Whether the texts say the same, as a list of values or as one."""
        answer, gold = without_lead(answer), without_lead(gold)
        if not answer or not gold:
            return False
        if squeezed(answer) == squeezed(gold):
            return True
        if self.counted and (count := re.match(rf"(.*[0-9a-z]) {self.counted}s?\b", answer)):
            return self.is_equal(count[1], gold)
        a, b = numerals.parse_number(answer), numerals.parse_number(gold)
        if a and b:
            return self._same_number(a, b)
        if (clock := time_of_day(gold)) and time_of_day(answer):
            return time_of_day(answer) == clock
        if (same := self._same_in_base(answer, gold)) is not None:
            return same
        bare, unit = split_unit(
            answer, letters=self.takes_letters and numerals.parse_number(gold) is not None
        )
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
        if self._is_rounded(b) and (self.is_measured or not a.is_terminating):
            return _rounds_to(value, b)
        return not b.is_terminating and _approximates(a, b.value)

    def _is_rounded(self, gold: Number) -> bool:
        """Whether a gold decimal may stand for a value near it; 145.0 is the integer."""
        if gold.step is None or self.is_measured:
            return self.is_measured and gold.step is not None
        return gold.significant_digits >= ROUNDED_DIGITS and gold.value.denominator != 1

    def _same_in_base(self, answer: str, gold: str) -> bool | None:
        """Whether two numbers are the same digits in the same base; None if neither has one.

        Without a base the gold answer is decimal, or in the base that the question names.
        """
        a, b = based(answer), based(gold)
        if b is not None and "=" not in answer:
            return b in (a, based(f"{answer}_{{{b[1]}}}"))
        if a is None:
            return None
        is_named = re.search(rf"base[^0-9a-z]*{a[1]}(?![0-9])", self.question, re.IGNORECASE)
        return a[0] == gold and (a[1] == 10 or is_named is not None)

    def _same_text(self, answer: str, gold: str) -> bool:
        """Whether two plain texts are the same words; a single letter keeps its case."""
        if any(re.search(r"[\\^_={}]", text) for text in (answer, gold)):
            return False
        answer, gold = (re.sub(r"^\(([A-Z])\)$", r"\1", text) for text in (answer, gold))
        if answer == gold:
            return True
        if not re.search(r"[a-zA-Z]{2}", gold) or re.search(r"\d\s*[a-zA-Z]|[+*(]", gold):
            return False
        return are_same_words(answer, gold)

    def _same_form(self, answer: str, gold: str) -> bool:
        values = alternatives(answer)
        if len(values) > 1 and all(self.is_equal(trim(value), gold) for value in values):
            return True
        if (shorter := without_qualifier(answer)) != answer:
            return self.is_equal(shorter, without_qualifier(gold))
        if aside := _ASIDE.search(answer):
            return self.is_equal(trim(answer[: aside.start()]), gold)
        if len(split_top(answer, _APPROXIMATE)) > 1:
            return self._same_approximate(answer, gold)
        if MEMBER.match(answer) and not MEMBER.match(gold):
            return self.is_equal(MEMBER.sub("", answer, count=1), gold)
        if (ratio := self._ratio(gold)) is not None:
            return self._same_ratio(answer, ratio)
        if sets := same_set(answer, gold):
            return self._same_elements(*sets)
        elements, golds = split_elements(answer), split_elements(gold)
        if len(elements) > 1 or len(golds) > 1:
            return self._same_elements(elements, golds)
        pieces, gold_pieces = split_top(answer, UNION), split_top(gold, UNION)
        if len(pieces) > 1 or len(gold_pieces) > 1:
            return self._same_elements(pieces, gold_pieces)
        return self._same_single(elements[0], golds[0])

    def _ratio(self, text: str) -> tuple[Fraction, ...] | None:
        match = _RATIO.fullmatch(text)
        if match is None:
            return None
        numbers = [numerals.parse_number(part) for part in match.groups() if part]
        return tuple(n.value for n in numbers) if all(numbers) else None  # type: ignore[union-attr]

    def _same_ratio(self, answer: str, gold: tuple[Fraction, ...]) -> bool:
        """Whether an answer is the ratio, or in proportion to it where a ratio is asked for."""
        names = split_top(answer, re.compile("="))
        ratio = self._ratio(names[-1])
        if ratio is None and len(gold) == 2:
            number = numerals.parse_number(names[-1])
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
            names = {self._unindexed(text.partition("=")[0]) for text in answers}
            answers = [split_top(text, re.compile("="))[-1] for text in answers]
            # values of different unknowns stand in their order
            if len(names) > 1:
                return all(map(self.is_equal, map(trim, answers), golds))
        elif named and not all(map(self._is_assignment, answers)):
            if len({squeezed(text.partition("=")[0]) for text in golds}) > 1:
                return False
            golds = [trim(split_top(text, re.compile("="))[-1]) for text in golds]
        left = list(golds)
        for element in answers:
            match = next((gold for gold in left if self.is_equal(element, gold)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _unindexed(self, name: str) -> str:
        """A name; without its number if that only numbers the values: x_1 and x_2."""
        name = squeezed(name)
        is_asked = re.sub(r"[{}]", "", name) in re.sub(r"[{}\s]", "", self.question)
        return name if is_asked else re.sub(r"_\{?[0-9]\}?$", "", name)

    def _is_assignment(self, text: str) -> bool:
        sides = split_top(text, RELATION)
        return len(sides) == 2 and "=" in text and self._is_name(sides[0])

    def _same_single(self, answer: str, gold: str) -> bool:
        answer, gold = without_grouping(answer), without_grouping(gold)
        if MEMBER.match(answer) and not MEMBER.match(gold):
            return self.is_equal(MEMBER.sub("", answer, count=1), gold)
        if MEMBER.match(gold) and not MEMBER.match(answer):
            return self.is_equal(answer, MEMBER.sub("", gold, count=1))
        sides, gold_sides = split_top(answer, RELATION), split_top(gold, RELATION)
        if len(sides) > 1 or len(gold_sides) > 1:
            return self._same_relation(answer, gold, sides, gold_sides)
        brackets, gold_brackets = outer_brackets(answer), outer_brackets(gold)
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
        signs, gold_signs = (relation_signs(text) for text in (answer, gold))
        if len(signs) == len(gold_signs) == 1:
            return self._same_equation(sides, signs[0], gold_sides, gold_signs[0])
        if len(signs) != len(gold_signs):
            return False
        return any(
            signs_ == gold_signs
            and all(map(self.is_equal, map(trim, sides_), map(trim, gold_sides)))
            for sides_, signs_ in (
                (sides, signs),
                (sides[::-1], [algebra.FLIPPED.get(sign, sign) for sign in signs[::-1]]),
            )
        )

    def _same_equation(
        self, sides: list[str], sign: str, gold_sides: list[str], gold_sign: str
    ) -> bool:
        left, right = (trim(side) for side in sides)
        gold_left, gold_right = (trim(side) for side in gold_sides)
        if sign == gold_sign:
            renamed = with_argument_of(left, right, gold_left)
            same_name = squeezed(left) == squeezed(gold_left) or renamed is not None
            if same_name and self.is_equal(renamed or right, gold_right):
                return True
            if sign == "=" and {squeezed(left), squeezed(right)} == {
                squeezed(gold_left),
                squeezed(gold_right),
            }:
                return True
        return algebra.is_same_relation((left, sign, right), (gold_left, gold_sign, gold_right))

    def _assigned(self, answer: str, sides: list[str], gold: str) -> bool:
        """`x = 7`, `f(x) = 7`, `4 + 3 = 7`, or `a + b = 7` where the question asks for a + b."""
        if any(sign != "=" for sign in relation_signs(answer)):
            return False
        *before, value = [trim(side) for side in sides]
        if not self.is_equal(value, gold):
            return False
        return all(
            self._is_name(side) or self._is_asked_for(side) or self.is_equal(side, value)
            for side in before
        )

    def _is_asked_for(self, side: str) -> bool:
        """Whether the question's text holds an expression, not as a side of an equation.

        A number stands for itself only, so it is never what is asked for.
        """
        side = squeezed(side)
        if not re.search("[a-zA-Z]", side):
            return False
        spaced = r"\s*".join(map(re.escape, side))
        found = rf"(?<![a-zA-Z0-9+*/^=<>(-])(?<![+=-] ){spaced}(?![a-zA-Z0-9]|\s*[+*/^=<>-])"
        return re.search(found, self.question) is not None

    def _is_name(self, text: str) -> bool:
        match = NAME.fullmatch(text.strip())
        return match is not None and number_words.integer(text) is None

    def _same_value(self, answer: str, gold: str) -> bool:
        """Single expressions: by algebra, or as decimals where one of them is one."""
        b, a = numerals.parse_number(gold), numerals.parse_number(answer)
        if a and b:
            return self._same_number(a, b)
        if b and self._is_rounded(b):
            exact = _fraction_of(answer)
            return exact is not None and _rounds_to(exact, b)
        if a and a.step is not None:
            exact = _fraction_of(gold)
            if exact is not None and _approximates(a, exact):
                return True
        return algebra.is_equal(*in_radians(answer, gold), positive=self.is_measured)


def _rounds_to(value: Fraction, gold: Number) -> bool:
    """Whether a value is a rounded gold to the digits that the gold prints, and to 1%."""
    error = abs(value - gold.value)
    return error <= (gold.step or 0) / 2 and error <= ROUNDED_TOLERANCE * abs(gold.value)


def _approximates(answer: Number, exact: Fraction) -> bool:
    """Whether a printed decimal is an exact value rounded or cut at its last digit."""
    if answer.step is None or answer.significant_digits < APPROXIMATION_DIGITS:
        return False
    error = abs(exact) - abs(answer.value)
    same_sign = (exact > 0) == (answer.value > 0)
    return same_sign and -answer.step / 2 <= error < answer.step


def _fraction_of(text: str) -> Fraction | None:
    number = algebra.value(text)
    return None if number is None else Fraction(str(number))
