"""Tokens as readable text: bytes over several tokens, what cannot be seen, other tokenizers."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from written_steps import write_tokenizer

from lightreasoner.inference import loading
from lightreasoner.inference.token_text import BYTES, HIDDEN, Texts, Token, visible

EXPERT = loading.MICROWORLD / "expert"
RAW = re.compile(r"⟨[0-9A-F]{2}( [0-9A-F]{2})*⟩")


@pytest.fixture(scope="module")
def by_byte(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    """A vocabulary of the 256 bytes, each with its own value as id; 256 is special."""
    letters = {byte: letter for letter, byte in BYTES.items()}
    directory = tmp_path_factory.mktemp("bytes")
    return Texts(write_tokenizer(directory, [letters[byte] for byte in range(256)]))


def texts(tokens: list[Token]) -> list[str]:
    return [token.text for token in tokens]


def test_a_character_over_three_tokens_stands_at_its_last(by_byte: Texts) -> None:
    """€ is E2 82 AC."""
    tokens = by_byte.running([*"a€ b".encode()])
    assert texts(tokens) == ["a", "⟨E2⟩", "⟨82⟩", "€", " ", "b"]
    assert by_byte.alone(0xAC) == Token("⟨AC⟩")


def test_bytes_that_never_become_a_character_are_shown_once(by_byte: Texts) -> None:
    assert texts(by_byte.running([0xE2, 0x82, 0x41, 0xFF, 0xE2])) == [
        "⟨E2⟩", "⟨82⟩", "A", "⟨FF⟩", "⟨E2⟩",
    ]  # fmt: skip


def test_a_special_token_ends_an_unfinished_character(by_byte: Texts) -> None:
    tokens = by_byte.running([0xE2, 256, 0xAC, 0x0A])
    assert texts(tokens) == ["⟨E2⟩", "<|end|>", "⟨AC⟩", "\n"]
    assert [token.special for token in tokens] == [False, True, False, False]


def test_an_id_without_a_token_is_named(by_byte: Texts) -> None:
    assert by_byte.alone(999) == Token("⟨id 999⟩")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b\n", "a b\n"),
        ("\t\r\x1b[31m", "⟨U+0009⟩⟨U+000D⟩⟨U+001B⟩[31m"),  # would colour a terminal
        ("a\u202eb\u200b", "a⟨U+202E⟩b⟨U+200B⟩"),  # would turn the line around
        ("\u00a0\u2028", "⟨U+00A0⟩⟨U+2028⟩"),
        ("\u0301", "◌\u0301"),
        ("é 数 😀", "é 数 😀"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_tokens_in_the_style_of_sentencepiece(tmp_path: Path) -> None:
    vocab, decoder = ["▁the", "<0xE2>", "<0x0A>", "é"], {"type": "Sequence", "decoders": []}
    tokens = Texts(write_tokenizer(tmp_path, vocab, decoder)).running([0, 3, 2, 1])
    assert texts(tokens) == [" the", "é", "\n", "⟨E2⟩"]


@given(text=st.text())
def test_any_text_can_be_read_back_from_its_bytes(by_byte: Texts, text: str) -> None:
    tokens = by_byte.running([*text.encode()])
    assert "".join(RAW.sub("", token) for token in texts(tokens)) == "".join(map(visible, text))


@given(ids=st.lists(st.integers(0, 300)))
def test_no_ids_give_a_text_that_hides_something(by_byte: Texts, ids: list[int]) -> None:
    tokens = by_byte.running(ids)
    assert len(tokens) == len(ids)
    for char in "".join(texts(tokens)):
        assert char in " \n" or unicodedata.category(char) not in HIDDEN | {"Cs"}


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=40))
def test_a_real_tokenizer_agrees(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(EXPERT / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    found = "".join(RAW.sub("", token) for token in texts(Texts(EXPERT).running(ids)))
    assert found == visible(decoded)
