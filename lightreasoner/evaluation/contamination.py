"""Contamination: evaluated questions that share a run of words with what the tuning read.

A run of 8 words is seldom shared by chance, one of 13 hardly ever. Words are runs of letters and
digits, in lower case: of GSM8K's 1,319 test questions 80 share 8 words with its training questions,
3 share 13. It is a sign, not a proof: problems of one template share words without one answer.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lightreasoner.evaluation import gains
from lightreasoner.evaluation.pairing import Scores

LENGTHS = (8, 13)
"""Words of a run."""

WITHOUT = 8
"""The length by which a gain is counted again, without the questions that share such a run."""

WORD = re.compile(r"\w+")
Run = tuple[str, ...]


def runs(text: str, length: int) -> set[Run]:
    """All runs of so many words in a text."""
    words = WORD.findall(text.lower())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def sharing(questions: Mapping[str, str], texts: Iterable[str], length: int) -> set[str]:
    """The ids of the questions that share a run of so many words with any of the texts."""
    seen = {run for text in texts for run in runs(text, length)}
    return {
        id_ for id_, question in questions.items() if not seen.isdisjoint(runs(question, length))
    }


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
