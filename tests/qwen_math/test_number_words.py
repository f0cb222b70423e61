import pytest

from lightreasoner.qwen_math.number_words import number_from_words

# As word2number 1.1 answers, which 300,000 random sentences were compared with as well.
NUMBERS = [
    # spelled as they should be
    ("zero", 0),
    ("Twenty-one", 21),
    ("two hundred", 200),
    ("one hundred and five thousand", 105_000),
    ("one hundred twenty three thousand four", 123_004),
    ("three hundred million two", 300_000_002),
    ("two billion", 2_000_000_000),
    ("two point five", 2.5),
    # digits
    ("007", 7),
    # other words do not count, nor does a word with a full stop
    ("-five", 5),
    ("one of the two", 3),
    ("one hundred twenty-three.", 120),
    ("1 million", 1_000_000),
    # oddities
    ("the point", 0),
    ("one point", 1),
    ("point one ten", 0),
    ("one two three", 5),
    ("one two three four five", 1),
    ("two hundred hundred", 300),
    ("thousand", 1000),
    ("two million ten thousand", 2_011_010),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_reads_what_word2number_reads(text: str, number: float) -> None:
    assert number_from_words(text) == number
    assert type(number_from_words(text)) is type(number)


@pytest.mark.parametrize(
    "text",
    [
        # no number word
        "", "seven.", " 12 ", "½",
        # digits that are no integer
        "²",
        # twice, out of order, without a number
        "one thousand two thousand", "one point two point three", "thousand million",
        "thousand two", "million thousand",
    ],
)  # fmt: skip
def test_refuses_what_word2number_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        number_from_words(text)
