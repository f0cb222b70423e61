"""Sample sets as other trainers read them: a row per trajectory, tokenised, labels per position.

The layout of axolotl's offline knowledge distillation (`axolotl.integrations.kd`, 0.19). Its loss
holds the logits at position i, which say the token i + 1, against the targets at i, unshifted: as
`rows.py` has positions.

    input_ids, attention_mask   the ids up to the last sample, then its likeliest token
    labels                      one position later, as trainers shift them: the likeliest token of
                                each soft label, -100 elsewhere
    target_token_ids            (seq, k): the soft label's ids; k is the longest label's length
    target_logprobs             (seq, k): the logs of its weights, float32, at temperature 1
    target_mask                 (seq, k): 1 where an entry is a label's of positive weight

Entries of no label are id 0, log probability -1e9, mask 0, as axolotl's collator pads.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts, aside, tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import dataset_card
from lightreasoner.tuning.rows import TrainingRow, read_rows

FILE = "train.parquet"
NO_LABEL, NO_LOG_PROB = -100, -1e9
PIECE = 256
"""Rows that are laid out at a time."""

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "labels": pa.list_(pa.int32()),
        "target_token_ids": pa.list_(pa.list_(pa.int32())),
        "target_logprobs": pa.list_(pa.list_(pa.float32())),
        "target_mask": pa.list_(pa.list_(pa.int8())),
    }
)


def export(samples_dir: Path, out: Path) -> int:
    """Write a sample set into the new directory `out`, with a card; returns how many rows.

    A trajectory without a sample is left out. Raises ArtifactError for a set that cannot be read,
    or is empty.
    """
    rows = read_rows(samples_dir, "trajectory")
    if not rows:
        raise ArtifactError(f"{samples_dir}: has no samples to export; lower select.beta")
    width = max(len(ids) for row in rows for ids, _ in row.labels)
    provenance = tables.provenance(samples_dir / "samples.parquet")
    samples = sum(len(row.positions) for row in rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside.beside(out) as work:
        new = work / "new"
        new.mkdir()
        tables.write_pieces(_pieces(rows, width), SCHEMA, new / FILE, provenance)
        card = dataset_card.of_layout(provenance, samples, len(rows), width)
        artifacts.write_text(new / dataset_card.FILE, card)
        artifacts.place(Artifact(new, ""), out)
    return len(rows)


def _pieces(rows: list[TrainingRow], width: int) -> Iterator[pa.Table]:
    for start in range(0, len(rows), PIECE):
        piece = [layout(row, width) for row in rows[start : start + PIECE]]
        yield pa.Table.from_pylist(piece, SCHEMA)


def layout(row: TrainingRow, width: int) -> dict[str, Any]:
    """A row by column, with `width` entries per position."""
    ids = np.array([*row.input_ids, 0], np.int32)
    labels = np.full(len(ids), NO_LABEL, np.int32)
    target_ids = np.zeros((len(ids), width), np.int32)
    log_probs = np.full((len(ids), width), NO_LOG_PROB, np.float32)
    mask = np.zeros((len(ids), width), np.int8)
    for position, (tokens, weights) in zip(row.positions, row.labels, strict=True):
        label, shares = np.array(tokens), np.array(weights, np.float64)
        labels[position + 1] = label[shares.argmax()]
        kept = shares > 0  # the log of 0 would make other trainers' losses NaN
        entries = np.s_[position, : kept.sum()]
        target_ids[entries] = label[kept]
        log_probs[entries] = np.log(shares[kept])
        mask[entries] = 1
    ids[-1] = labels[-1]
    columns = ids, np.ones_like(ids), labels, list(target_ids), list(log_probs), list(mask)
    return dict(zip(SCHEMA.names, columns, strict=True))
