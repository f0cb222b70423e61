"""The Parquet tables that pass between stages: their columns, and how they are written and read.

Bytes depend on the content alone (fixed schema, compression and order), so that equal results have
equal digests. Plain pandas and `datasets` open them. docs/sample-set.md describes the sample set.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner.errors import ArtifactError

Array = npt.NDArray[Any]
IDS = pa.list_(pa.int32())
VALUES = pa.list_(pa.float32())
ROWS_PER_GROUP = 1 << 16
FORMAT_VERSION = 1
"""Of all tables here; it grows when a column or a key of the metadata changes its meaning."""

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
        "k": pa.int32(),
        "question": pa.string(),
        "prompt": pa.string(),
        "response": pa.string(),
        "gold": pa.string(),
        "extracted": pa.string(),
        "strict": pa.string(),
        "pred": pa.string(),
        "qwen": pa.string(),
        "tokens": pa.int32(),
        "finish_reason": pa.string(),
    }
)


def write_table(
    frame: pd.DataFrame | pa.Table,
    schema: pa.Schema,
    path: Path,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a table with `metadata(provenance)`."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, schema)
    write_pieces([table], schema, path, provenance)


def write_pieces(
    pieces: Iterable[pa.Table],
    schema: pa.Schema,
    path: Path,
    provenance: dict[str, Any] | None = None,
) -> None:
    """As `write`, for a table in consecutive pieces of which few need be in memory at a time.

    Row groups have ROWS_PER_GROUP rows however the pieces are cut, and so the same bytes.
    """
    described = schema.with_metadata(metadata(provenance))
    with pq.ParquetWriter(path, described, compression="zstd") as writer:
        held = schema.empty_table()
        for piece in pieces:
            held = pa.concat_tables([held, piece.replace_schema_metadata(None)])
            while len(held) >= ROWS_PER_GROUP:
                _write_group(writer, held.slice(0, ROWS_PER_GROUP))
                held = held.slice(ROWS_PER_GROUP).combine_chunks()
        if len(held):
            _write_group(writer, held)


def _write_group(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    whole = rows.combine_chunks().replace_schema_metadata(writer.schema.metadata)
    writer.write_table(whole, row_group_size=ROWS_PER_GROUP)


def metadata(provenance: dict[str, Any] | None) -> dict[str, str]:
    """A file's metadata: `format_version`, and the provenance as JSON under `lightreasoner`."""
    return {
        "format_version": str(FORMAT_VERSION),
        "lightreasoner": json.dumps(provenance or {}, sort_keys=True),
    }


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table and check its version and columns.

    Raises ArtifactError if the version is newer than this code's or the columns are others.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the stage that writes it") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not a readable Parquet file ({error})") from error
    _refuse_newer(path, table.schema.metadata or {})
    if not table.schema.equals(schema, check_metadata=False):
        missing = sorted(set(schema.names) - set(table.schema.names))
        detail = f"columns {missing} are missing" if missing else "column types differ"
        raise ArtifactError(f"{path}: another format ({detail}); write it with this version")
    return table


def _refuse_newer(path: Path, found: dict[bytes, bytes]) -> None:
    """A file without a version, another program's say, passes: its columns are checked anyway."""
    version = found.get(b"format_version", b"0").decode(errors="replace")
    if not version.isdecimal():
        raise ArtifactError(f"{path}: format_version {version!r} is not a number; write it again")
    if int(version) > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version}, this version of lightreasoner reads up to "
            f"{FORMAT_VERSION}; update it, or write the file with this one"
        )


def provenance(path: Path) -> dict[str, Any]:
    """What `write` put into the file's metadata."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(b"lightreasoner", b"{}"))


def values_and_offsets(table: pa.Table, name: str) -> tuple[Array, Array]:
    """A list column flat: row i holds values[offsets[i]:offsets[i + 1]]."""
    column = table[name].combine_chunks()
    offsets = column.offsets.to_numpy()
    return column.flatten().to_numpy(), offsets - offsets[0]
