"""Contamination: evaluated questions that share a run of words with what the tuning read.

A run of 8 words is seldom shared by chance, one of 13 hardly ever. Words are runs of letters and
digits, in lower case; a Chinese or Japanese character is a word. Of GSM8K's 1,319 test questions 80
share 8 words with its training questions, 3 share 13. It is a sign, not a proof: problems of one
template share words without one answer.

A question of fewer words than a run counts if it is the whole of a text: as a part of a longer one
so few words are met by chance. What all texts of a kind begin or end with does not count: in
prompts it is the style's words, and perhaps the problems' own, where all begin alike.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from lightreasoner.evaluation import gains
from lightreasoner.evaluation.pairing import Scores

LENGTHS = (8, 13)
"""Words of a run."""

WITHOUT = 8
"""The length by which a gain is counted again, without the questions that share such a run."""

ALONE = (
    r"\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
"""Chinese characters and Japanese syllables, which no space divides into words."""

WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+")
Run = tuple[str, ...]


def words(text: str) -> Run:
    """The words of a text in their order."""
    return tuple(WORD.findall(text.lower()))


def runs(read: Run, length: int) -> set[Run]:
    """All runs of so many words."""
    return {read[start : start + length] for start in range(len(read) - length + 1)}


def sharing(questions: Mapping[str, str], texts: Iterable[str], length: int) -> set[str]:
    """The ids of the questions that share a run of so many words with any of the texts, or that
    have fewer and are the whole of one.
    """
    read = {words(text) for text in texts}
    before = _common(read)
    after = _common({each[::-1] for each in read})[::-1]
    seen = {run for each in read for run in runs(each, length)}
    seen -= runs(before, length) | runs(after, length)
    whole = {part for each in read for part in _wholes(each, len(before), len(after), length)}
    asked = {id_: words(question) for id_, question in questions.items()}
    return {
        id_
        for id_, each in asked.items()
        if (each in whole if len(each) < length else not seen.isdisjoint(runs(each, length)))
    }


def _common(read: Collection[Run]) -> Run:
    """The words that all texts begin with; of a single text nothing says where they would end."""
    if len(read) < 2:
        return ()
    places = itertools.takewhile(lambda at: len(set(at)) == 1, zip(*read, strict=False))
    return tuple(first for first, *_ in places)


def _wholes(read: Run, before: int, after: int, length: int) -> Iterator[Run]:
    """What is shorter than a run of a text without some or all of its first `before` and its last
    `after` words: where all problems begin alike, how many of them are theirs is not known."""
    for start in range(before + 1):
        ends = max(len(read) - after, start + 1), min(len(read), start + length - 1)
        for end in range(ends[0], ends[1] + 1):
            yield read[start:end]


def of(base: Scores, tuned: Scores, read: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """For each set: how many questions share runs with what was read, and the gain without them.

    `read` names the kinds of texts. `shared` holds counts by length and kind, `any` those of all
    kinds together. `without` is `gains.gain`'s by the strict verdict and its `n`, None if no
    question is left.
    """
    before, after = gains.by_set(base.rows), gains.by_set(tuned.rows)
    texts = {kind: list(each) for kind, each in read.items()}
    found = {}
    for name, rows in base.rows.groupby("problem_set", sort=False):
        questions = dict(zip(rows["problem_id"], rows["question"], strict=True))
        ids = {
            length: {kind: sharing(questions, each, length) for kind, each in texts.items()}
            for length in LENGTHS
        }
        shared = set().union(*ids[WITHOUT].values())
        kept = [each[~each["problem_id"].isin(shared)] for each in (before[name], after[name])]
        found[name] = {
            "n": len(questions),
            "shared": {
                str(length): {kind: len(each) for kind, each in kinds.items()}
                | {"any": len(set().union(*kinds.values()))}
                for length, kinds in ids.items()
            },
            "without": _gain(*kept),
        }
    return found


def _gain(before: Any, after: Any) -> dict[str, Any] | None:
    if before.empty:
        return None
    gain = gains.gain({"kept": before}, {"kept": after}, (), "strict")["scores"]["kept"]
    return {"n": int(before["problem_id"].nunique()), **gain}
