"""Scored steps, samples and a tokenizer by hand, for what shows trajectories.

Problem `set/p0` has the steps 0 to 2, `set/p1` 0 and 1; KL in nats, tokens as TOKENS spells them:

    p0 0  0.1  expert <b> 5/8, Ġ& 2/8   p0 1  1.0  sample: Ġ& 3/4, â 1/4   p0 2  0.3  Ċ
    p1 0  0.0  <b>                      p1 1  5.0  sample: <|end|>

The amateur's first choice at p0 1 was not stored.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightreasoner.storage import tables

TOKENS = ["Q", "1", "2", "â", "Ĥ¬", "<b>", "Ġ&", "Ċ"]
END = 8
ALPHA_MIN = 0.01
PROVENANCE = {"alpha": 0.2, "beta": 0.4, "threshold": 0.4, "label": "contrast"}
TRAJECTORIES = [
    ("set/p0", [0, 7], [5, 6, 7], "length"),
    ("set/p1", [0, 5], [5, END], "stop"),
]
STEPS = [
    ("set/p0", 0, 0.1, 0.5, 0.75, 5, 5, {5: (5 / 8, 1 / 2), 6: (2 / 8, 1 / 4)}),
    ("set/p0", 1, 1.0, 0.5, 0.75, 6, 1, {6: (3 / 4, 1 / 8), 3: (1 / 4, 1 / 16)}),
    ("set/p0", 2, 0.3, 0.5, 0.75, 7, 7, {7: (1.0, 1.0)}),
    ("set/p1", 0, 0.0, 0.5, 0.75, 5, 5, {5: (1.0, 1.0)}),
    ("set/p1", 1, 5.0, 0.5, 0.75, END, 2, {END: (1.0, 0.01), 2: (0.5, 0.9)}),
]
SAMPLES = [
    ("set/p0", 1, {6: 0.75, 3: 0.25}, 1.0),
    ("set/p1", 1, {END: 1.0}, 5.0),
]


def write_tokenizer(directory: Path, tokens: list[str] = TOKENS, decoder: Any = None) -> Path:
    """A byte-level tokenizer.json whose last token, <|end|>, is special."""
    tree = {
        "added_tokens": [{"id": len(tokens), "content": "<|end|>", "special": True}],
        "model": {"vocab": {token: id_ for id_, token in enumerate(tokens)}},
        "decoder": decoder or {"type": "ByteLevel"},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    return directory


def write_steps(
    directory: Path, steps: list[Any] = STEPS, trajectories: list[Any] = TRAJECTORIES
) -> Path:
    directory.mkdir(exist_ok=True)
    rows = [
        (
            *row[:-1],
            list(row[-1]),
            *([float(np.log(pair[side])) for pair in row[-1].values()] for side in (0, 1)),
        )
        for row in steps
    ]
    _write(rows, tables.STEPS, directory / "steps.parquet", {"alpha_min": ALPHA_MIN})
    _write(trajectories, tables.TRAJECTORIES, directory / "trajectories.parquet")
    return directory


def write_samples(directory: Path, samples: list[Any] = SAMPLES, **provenance: object) -> Path:
    directory.mkdir(exist_ok=True)
    rows = [(id_, step, list(label), list(label.values()), kl) for id_, step, label, kl in samples]
    _write(rows, tables.SAMPLES, directory / "samples.parquet", PROVENANCE | provenance)
    return directory


def _write(
    rows: list[Any], schema: pa.Schema, path: Path, provenance: dict[str, Any] | None = None
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in schema]
    tables.write_table(pa.table(columns, schema), schema, path, provenance)
