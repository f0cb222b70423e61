"""The ids and tokens of a model, and whether two models share them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightreasoner.errors import ModelError
from lightreasoner.inference.model_files import configured, read_settings, reading
from lightreasoner.untrusted import shown

MOST_IDS = 1 << 31
"""What a table of ids can hold."""


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer.json: `ordinary` tokens, and `added` ones (special or not)."""

    path: Path

    @cached_property
    def _tree(self) -> dict[str, Any]:
        return read_settings(self.path / "tokenizer.json")

    @cached_property
    def added(self) -> dict[int, str]:
        """Added tokens by id."""
        with reading(self.path / "tokenizer.json"):
            added = self._tree.get("added_tokens", [])
            return _by_id((token["id"], token["content"]) for token in added)

    @cached_property
    def tokens(self) -> dict[int, str]:
        """All tokens by id."""
        with reading(self.path / "tokenizer.json"):
            vocab = self._tree["model"]["vocab"]
            if isinstance(vocab, list):  # a unigram model's pairs of token and score
                return _by_id((id_, token) for id_, (token, _) in enumerate(vocab)) | self.added
            return _by_id((id_, token) for token, id_ in vocab.items()) | self.added

    @property
    def ordinary(self) -> set[int]:
        """Ids of the model's own tokens, added ones left out."""
        return self.tokens.keys() - self.added.keys()


def _by_id(pairs: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """Tokens by id. Raises ValueError for ids that are none, and tokens that are no text."""
    found = {}
    for id_, token in pairs:
        if type(id_) is not int or not 0 <= id_ < MOST_IDS or not isinstance(token, str):
            raise ValueError(f"token {shown(token, 40)} has the id {shown(id_, 40)}")
        found[id_] = token
    return found


def check_pair(expert: Path, amateur: Path) -> list[int]:
    """The ids that mean the same token in both vocabularies, ascending.

    Every ordinary token must have the same id in both, else ModelError names the first id that
    differs. Added tokens may differ; those that do are left out, as are those that one of the
    models has no row for.
    """
    pair = Vocabulary(expert), Vocabulary(amateur)
    ours, theirs = (vocabulary.tokens for vocabulary in pair)
    for id_ in sorted(pair[0].ordinary | pair[1].ordinary):
        if ours.get(id_) != theirs.get(id_):
            raise ModelError(
                f"expert {expert} and amateur {amateur} differ in ordinary token {id_}: "
                f"{ours.get(id_)!r} against {theirs.get(id_)!r}; give models.expert and "
                "models.amateur of one vocabulary"
            )
    rows = min(vocabulary_size(expert), vocabulary_size(amateur))
    return sorted(id_ for id_, token in ours.items() if theirs.get(id_) == token and id_ < rows)


def differing_tokens(expert: Path, amateur: Path) -> dict[int, tuple[str | None, str | None]]:
    """Added tokens that the two vocabularies do not share: id to (expert's, amateur's)."""
    ours, theirs = Vocabulary(expert).tokens, Vocabulary(amateur).tokens
    return {
        id_: (ours.get(id_), theirs.get(id_))
        for id_ in sorted(ours.keys() | theirs.keys())
        if ours.get(id_) != theirs.get(id_)
    }


def vocabulary_size(path: Path) -> int:
    """How many token ids the model has a row for. Raises ModelError."""
    return configured(path / "config.json", "vocab_size")
