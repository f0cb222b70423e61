"""Numbers spelled out in English, read exactly as the word2number package (1.1) reads them.

The official grading asks that package about every answer, so its oddities decide verdicts: any
other word is ignored ("one of the two" is 3), a lone "point" is 0, of five or more words in a
group only the first counts, and a final "thousand" is added in twice ("two million ten thousand"
is 2011010).
"""

_UNDER_TWENTY = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_DIGITS = {word: str(digit) for digit, word in enumerate(_UNDER_TWENTY.split()[:10])}
_SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
"""Largest first: a number names them in this order."""
_VALUES = {
    **{word: value for value, word in enumerate(_UNDER_TWENTY.split())},
    **{word: 10 * ten for ten, word in enumerate(_TENS.split(), start=2)},
    "hundred": 100,
    **_SCALES,
}


def number_from_words(text: str) -> int | float:
    """The number that a text spells out, its other words ignored.

    Raises ValueError if it spells out none, or one that word2number refuses.
    """
    text = text.replace("-", " ").lower()
    if text.isdigit():
        return int(text)
    words = [word for word in text.split() if word in _VALUES or word == "point"]
    if not words:
        raise ValueError(f"no number word in {text!r}")
    if any(words.count(word) > 1 for word in (*_SCALES, "point")):
        raise ValueError(f"a scale or a point comes twice in {text!r}")
    if "point" not in words:
        return _whole(words)
    point = words.index("point")
    return _whole(words[:point]) + _decimals(words[point + 1 :])


def _whole(words: list[str]) -> int:
    """The value of words without a point; 0 for none."""
    if len(words) <= 1:
        return sum(_VALUES[word] for word in words)
    positions = [words.index(scale) for scale in _SCALES if scale in words]
    if positions != sorted(positions):
        raise ValueError(f"scales out of order: {words}")
    starts = [0, *(place + 1 for place in positions)]
    total = sum(
        _VALUES[words[place]] * _group(words[start:place])
        for start, place in zip(starts, positions, strict=False)
    )
    if len(positions) == 1 and words[-1] in _SCALES:
        return total
    tail = max(start for start in starts if start < len(words))
    return total + _group(words[tail:])


def _group(words: list[str]) -> int:
    """The value of the words before, after or between scales. Raises ValueError for none."""
    if not words:
        raise ValueError("a scale without its number")
    values = [_VALUES[word] for word in words]
    match values:
        case [first, second]:
            return first * second if 100 in values else first + second
        case [hundreds, hundred, *rest] if len(rest) in (1, 2):
            return hundreds * hundred + sum(rest)
        case _:
            return values[0]


def _decimals(words: list[str]) -> float:
    """The fraction that digits after a point spell out; 0 if one of them is no digit."""
    if not words or any(word not in _DIGITS for word in words):
        return 0
    return float("0." + "".join(_DIGITS[word] for word in words))
