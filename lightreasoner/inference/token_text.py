"""Tokens as text that people can read: what a tokenizer.json says of its ids, nothing hidden.

Spaces and line breaks stay as they are. What a reader could not see, or what would change how the
text around it is shown (control and format characters, other spaces, line separators), becomes
`⟨U+200B⟩`; bytes that are no whole character become `⟨E2 82⟩`. So a text from here is safe in a
terminal, and on a page once it is escaped.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightreasoner.inference.model_files import read_settings
from lightreasoner.inference.vocabulary import Vocabulary

ESCAPED = "surrogateescape"  # Python's own way to carry bytes that are no UTF-8 in a text
NO_TEXT = re.compile("[\udc80-\udcff]+")
BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"}


@dataclass(frozen=True)
class Token:
    """A token's text, readable as above; `special` ones stand outside the text proper."""

    text: str
    special: bool = False


@dataclass(frozen=True)
class Texts:
    """The texts of a tokenizer's ids; `path` is the directory that holds its tokenizer.json."""

    path: Path

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.path)

    @cached_property
    def _is_byte_level(self) -> bool:
        """Whether tokens spell bytes in GPT-2's letters, by the tokenizer's own decoder."""
        tree = read_settings(self.path / "tokenizer.json")
        decoder = tree.get("decoder") or {}
        parts = [decoder, *decoder.get("decoders", ())]
        return any(part.get("type") == "ByteLevel" for part in parts)

    def alone(self, id_: int) -> Token:
        """One token without its neighbours: a part of a character is shown as its bytes."""
        return self.running([id_])[0]

    def plain(self, ids: Iterable[int]) -> str:
        """The text of consecutive tokens, without the special ones."""
        spelled = b"".join(self._bytes(id_) for id_ in ids if id_ not in self._vocabulary.added)
        return spelled.decode("utf-8", "replace")

    def running(self, ids: Iterable[int]) -> list[Token]:
        """Consecutive tokens, one for each id.

        A character whose bytes are spread over several tokens stands at the last of them; the
        others show their bytes.
        """
        found = []
        decoder = codecs.getincrementaldecoder("utf-8")(ESCAPED)
        shown = ""  # bytes of an unfinished character, which their own token has shown already
        for id_ in ids:
            special = self._vocabulary.added.get(id_)
            if special is not None:
                decoder.reset()
                shown = ""
                found.append(Token(visible(special), special=True))
                continue
            text = decoder.decode(self._bytes(id_)).removeprefix(shown)
            rest = decoder.getstate()[0].decode("ascii", ESCAPED)
            found.append(Token(visible(text + rest.removeprefix(shown))))
            shown = rest
        return found

    def _bytes(self, id_: int) -> bytes:
        """An ordinary token's bytes; of an id that the tokenizer does not have, its number."""
        token = self._vocabulary.tokens.get(id_)
        if token is None:
            return f"⟨id {id_}⟩".encode()
        if self._is_byte_level and all(char in BYTES for char in token):
            return bytes(BYTES[char] for char in token)
        byte = BYTE_FALLBACK.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.replace("▁", " ").encode()


def visible(text: str) -> str:
    """The text with what cannot be seen spelled out; bytes carried as surrogates, too."""
    shown = "".join(map(_visible, text))
    shown = NO_TEXT.sub(lambda run: f"⟨{run[0].encode('utf-8', ESCAPED).hex(' ').upper()}⟩", shown)
    # a mark that has nothing to stand on would join what is printed before it
    return f"◌{shown}" if unicodedata.category(shown[:1] or " ") in ("Mn", "Me") else shown


def _visible(char: str) -> str:
    if char in " \n" or unicodedata.category(char) not in HIDDEN:
        return char
    return f"⟨U+{ord(char):04X}⟩"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 for itself, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


BYTES = _byte_alphabet()
