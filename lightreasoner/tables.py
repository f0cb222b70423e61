"""The Parquet tables that pass between stages: their columns, and how they are written and read.

Bytes depend on the content alone (fixed schema, compression and order), so that equal results have
equal digests. Plain pandas and `datasets` open them.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner.errors import ArtifactError

IDS = pa.list_(pa.int32())
VALUES = pa.list_(pa.float32())

TRAJECTORIES = pa.schema(
    {
        "problem_id": pa.string(),
        "prompt_ids": IDS,
        "completion_ids": IDS,
        "finish_reason": pa.string(),
    }
)
STEPS = pa.schema(
    {
        "problem_id": pa.string(),
        "step": pa.int32(),
        "kl": pa.float32(),
        "expert_entropy": pa.float32(),
        "amateur_entropy": pa.float32(),
        "expert_top1": pa.int32(),
        "amateur_top1": pa.int32(),
        "token_ids": IDS,
        "expert_log_probs": VALUES,
        "amateur_log_probs": VALUES,
    }
)
SAMPLES = pa.schema(
    {
        "problem_id": pa.string(),
        "step": pa.int32(),
        "token_ids": IDS,
        "weights": VALUES,
        "kl": pa.float32(),
    }
)
SCORES = pa.schema(
    {
        "problem_set": pa.string(),
        "problem_id": pa.string(),
        "question": pa.string(),
        "response": pa.string(),
        "extracted": pa.string(),
        "gold": pa.string(),
        "verdict": pa.string(),
        "tokens": pa.int32(),
        "finish_reason": pa.string(),
    }
)


def write(
    frame: pd.DataFrame | pa.Table,
    schema: pa.Schema,
    path: Path,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a table; `provenance` goes into the file's metadata under `lightreasoner`."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, schema)
    metadata = {"lightreasoner": json.dumps(provenance or {}, sort_keys=True)}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table and check its columns. Raises ArtifactError if they are not `schema`'s."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the stage that writes it") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not a readable Parquet file ({error})") from error
    if not table.schema.equals(schema, check_metadata=False):
        missing = sorted(set(schema.names) - set(table.schema.names))
        detail = f"columns {missing} are missing" if missing else "column types differ"
        raise ArtifactError(f"{path}: another format ({detail}); write it with this version")
    return table


def provenance(path: Path) -> dict[str, Any]:
    """What `write` put into the file's metadata."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(b"lightreasoner", b"{}"))
