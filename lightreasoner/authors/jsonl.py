"""Sample sets in the JSONL of the authors' scripts (HKUDS/LightReasoner, commit fbd55c7).

A line is one sample:

    prompt_id       the question's text
    step            tokens of the response before this step: 0 is the first; theirs start at 1
    prefix          those tokens, decoded to text
    tokens          the label's tokens, each decoded alone
    token_ids       their ids
    weights         their weights, which sum to 1
    kl_divergence   KL(expert || amateur) of the step, nats

convert.py turns sample sets into such files and back.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner.data import user_files
from lightreasoner.data.problems import is_writable
from lightreasoner.errors import ArtifactError
from lightreasoner.untrusted import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIELDS: dict[str, type | tuple[type, ...]] = {
    "prompt_id": str,
    "step": int,
    "prefix": str,
    "tokens": list,
    "token_ids": list,
    "weights": list,
    "kl_divergence": (int, float),
}
WEIGHTS_SUM_WITHIN = 0.01
"""Weights computed in bfloat16 sum to 1 within a few thousandths."""


@dataclass(frozen=True)
class Line:
    """One sample; `number` is its line number, from 1."""

    number: int
    question: str
    step: int
    prefix: str
    token_ids: list[int]
    weights: list[float]
    kl: float


def write_line(line: Line, tokenizer: "PreTrainedTokenizerBase") -> str:
    """A sample as the JSON text of one line, its end included."""
    row = {
        "prompt_id": line.question,
        "step": line.step,
        "prefix": line.prefix,
        "tokens": [tokenizer.decode([id_]) for id_ in line.token_ids],
        "token_ids": line.token_ids,
        "weights": line.weights,
        "kl_divergence": line.kl,
    }
    return json.dumps(row) + "\n"


def read_samples(path: Path, tokenizer: "PreTrainedTokenizerBase") -> list[Line]:
    """All samples of a file.

    Raises ArtifactError that names file and line for a malformed row, or for a label whose tokens
    differ in this tokenizer.
    """
    vocabulary = Decoded(tokenizer)
    lines = []
    for number, row in user_files.read_jsonl(path, ArtifactError):
        try:
            fault = next(_faults(row), None)
        except OverflowError:
            fault = "an integer is too large for a float"
        if fault:
            raise ArtifactError(f"{path}:{number}: {fault}")
        vocabulary.check(row, f"{path}:{number}")
        lines.append(_line(number, row))
    if not lines:
        raise ArtifactError(f"{path}: no samples in the file; give at least one row")
    return lines


def _line(number: int, row: dict[str, Any]) -> Line:
    return Line(
        number,
        row["prompt_id"],
        row["step"],
        row["prefix"],
        row["token_ids"],
        [float(weight) for weight in row["weights"]],
        float(row["kl_divergence"]),
    )


def _faults(row: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a row; the later checks rely on the earlier ones."""
    for name, kind in FIELDS.items():
        if name not in row:
            yield f"{name} is missing; the fields are {', '.join(FIELDS)}"
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            yield f"{name} has the wrong type ({type(row[name]).__name__})"
    for name in ("prompt_id", "prefix"):
        if not is_writable(row[name]):
            yield f"{name} has half a surrogate pair (such as \\ud83d alone); fix the text"
    ids, weights = row["token_ids"], row["weights"]
    if not len(row["tokens"]) == len(ids) == len(weights) > 0:
        lengths = f"{len(row['tokens'])}, {len(ids)} and {len(weights)}"
        yield f"tokens, token_ids and weights have {lengths} entries; give equally many, not 0"
    if not all(isinstance(token, str) for token in row["tokens"]):
        yield "tokens must be texts"
    if not all(type(id_) is int for id_ in ids) or len(set(ids)) < len(ids):
        yield "token_ids must be distinct integers"
    if not all(type(weight) in (int, float) and weight >= 0 for weight in weights):
        yield "weights must be numbers >= 0"
    if not abs(sum(weights) - 1) <= WEIGHTS_SUM_WITHIN:
        yield f"weights sum to {sum(weights):.4g}; they must sum to 1 within {WEIGHTS_SUM_WITHIN}"
    if not math.isfinite(row["kl_divergence"]):
        yield f"kl_divergence must be finite, got {shown(row['kl_divergence'], 80)}"
    if not 0 <= row["step"] < 2**31:
        yield f"step must be >= 0, got {shown(row['step'], 80)}; the largest is {2**31 - 1}"


class Decoded:
    """The texts of single tokens, each decoded once."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self._tokenizer = tokenizer
        self._size = len(tokenizer)
        self._texts: dict[int, str] = {}

    def check(self, row: dict[str, Any], where: str) -> None:
        """Raise ArtifactError for a label whose ids and tokens do not match."""
        for id_, token in zip(row["token_ids"], row["tokens"], strict=True):
            if not 0 <= id_ < self._size:
                raise ArtifactError(
                    f"{where}: token id {shown(id_, 80)}, but the tokenizer's are 0 to "
                    f"{self._size - 1}; give the expert that wrote these samples"
                )
            if id_ not in self._texts:
                self._texts[id_] = self._tokenizer.decode([id_])
            if self._texts[id_] != token:
                theirs, ours = shown(token, 80), shown(self._texts[id_], 80)
                raise ArtifactError(
                    f"{where}: token {id_} is {theirs} in the file and {ours} in the tokenizer; "
                    "give the expert that wrote these samples"
                )
