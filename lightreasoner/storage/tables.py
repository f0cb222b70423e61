"""The Parquet tables that pass between stages: their columns, and how they are written and read.

Bytes depend on the content alone (fixed schema, compression and order), so that equal results have
equal digests. Plain pandas and `datasets` open them. docs/sample-set.md describes the sample set.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner import untrusted
from lightreasoner.errors import ABSENT, ArtifactError
from lightreasoner.storage import values

Array = npt.NDArray[Any]
IDS = pa.list_(pa.int32())
VALUES = pa.list_(pa.float32())
ROWS_PER_GROUP = 1 << 16
ROWS_PER_PIECE = 1 << 12
"""Of a frame that become Arrow's at once: one of its arrays holds 2 GiB of text."""

FORMAT_VERSION = 1
"""Of all tables here; it grows when a column or a key of the metadata changes its meaning."""

TABLE_BYTES = 1 << 34
"""Of a table, on disk or in memory: 16 GiB, a hundred million steps."""

SAID = 200
"""How many characters of pyarrow's own words an error quotes."""

AGAIN = "run the stage that writes it again"

NUMBER = (int, float)
READ: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("generate", "score", "import"), dict),
    **dict.fromkeys(("alpha", "beta", "alpha_min"), NUMBER),
    **dict.fromkeys(("threshold", "quantile", "pull"), (*NUMBER, type(None))),
    **dict.fromkeys(("style", "label", "tokenizer"), str),
    "reference": list,
}
"""The keys of provenance that are read, wherever they stand, and the kinds of their values."""

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
    pieces = [frame] if isinstance(frame, pa.Table) else _pieces(frame, schema)
    write_pieces(pieces, schema, path, provenance)


def _pieces(frame: pd.DataFrame, schema: pa.Schema) -> Iterator[pa.Table]:
    """Copies of a few rows: a slice has its column's offsets, which may not fit the schema's."""
    for start in range(0, len(frame), ROWS_PER_PIECE):
        rows = np.arange(start, min(start + ROWS_PER_PIECE, len(frame)))
        yield pa.Table.from_pandas(frame.take(rows), schema)


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
    """Read a table and check its version, its columns and their values (values.py).

    Raises ArtifactError, also if the file claims to be larger than TABLE_BYTES.
    """
    table = read_parquet(path)
    _refuse_newer(path, table.schema.metadata or {})
    if not table.schema.equals(schema, check_metadata=False):
        missing = sorted(set(schema.names) - set(table.schema.names))
        detail = f"columns {missing} are missing" if missing else "column types differ"
        raise ArtifactError(f"{path}: another format ({detail}); write it with this version")
    table = table.cast(schema)  # without the file's own metadata, which pandas would follow
    values.check(path, table)
    return table


def read_sample_set(directory: Path) -> tuple[pa.Table, pa.Table]:
    """Samples and the trajectories that they point into. Raises ArtifactError."""
    paths = [directory / f"{name}.parquet" for name in ("samples", "trajectories")]
    samples, trajectories = read_table(paths[0], SAMPLES), read_table(paths[1], TRAJECTORIES)
    values.check_sample_set(paths[0], samples, trajectories)
    return samples, trajectories


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file with all that it says of itself. Raises ArtifactError."""
    with _opened(path) as file:
        table = file.read()
        table.validate(full=True)  # that text is UTF-8, for one
        return table


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file that does not claim to be larger than TABLE_BYTES, and is what it claims."""
    try:
        with untrusted.open_file(path, ArtifactError, TABLE_BYTES) as file:
            opened = pq.ParquetFile(file, page_checksum_verification=True)
            _refuse_larger(path, opened.metadata)
            yield opened
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {ABSENT}") from None
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        said = untrusted.shown(" ".join(str(error).split()), SAID)
        raise ArtifactError(f"{path}: not a readable Parquet file ({said}); {AGAIN}") from error


def _refuse_larger(path: Path, found: pq.FileMetaData) -> None:
    """Refuse what is too large once it is unpacked, by what the file says, before it is.

    What it says of a column is not asked for: pyarrow 25 ends the process if that is damaged.
    """
    groups = [found.row_group(index) for index in range(found.num_row_groups)]
    sizes = [group.total_byte_size for group in groups] + [4 * group.num_rows for group in groups]
    if min(sizes, default=0) < 0 or sum(sizes) > TABLE_BYTES:
        raise ArtifactError(
            f"{path}: claims {sum(sizes):,} bytes unpacked; at most {TABLE_BYTES:,} are read"
        )


def _refuse_newer(path: Path, found: dict[bytes, bytes]) -> None:
    """A file without a version, another program's say, passes: its columns are checked anyway."""
    version = found.get(b"format_version", b"0").decode(errors="replace")
    if not version.isdecimal() or len(version) > len("1000000"):
        said = untrusted.shown(version, 40)
        raise ArtifactError(f"{path}: format_version {said} is not a small number; {AGAIN}")
    if int(version) > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version}, this version of lightreasoner reads up to "
            f"{FORMAT_VERSION}; update it, or write the file with this one"
        )


def count(path: Path) -> int:
    """How many rows a table has. Raises ArtifactError."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def provenance(path: Path) -> dict[str, Any]:
    """What `write` put into the file's metadata. Raises ArtifactError."""
    with _opened(path) as file:
        text = (file.schema_arrow.metadata or {}).get(b"lightreasoner", b"{}")
    try:
        tree = untrusted.json_value(text)
        _check_provenance(tree)
    except ValueError as error:
        said = error if str(error).isprintable() else untrusted.shown(str(error), SAID)
        raise ArtifactError(f"{path}: its provenance is malformed ({said}); {AGAIN}") from error
    return tree


def _check_provenance(tree: Any) -> None:
    """What is read of provenance has its kind. Raises ValueError."""
    if not isinstance(tree, dict):
        raise ValueError(f"must be an object, got {untrusted.shown(tree, 60)}")
    for name, kind in READ.items():
        if name in tree and (not isinstance(tree[name], kind) or isinstance(tree[name], bool)):
            raise ValueError(f"{name} cannot be {untrusted.shown(tree[name], 60)}")
        if kind is dict and name in tree:
            _check_provenance(tree[name])


def values_and_offsets(table: pa.Table, name: str) -> tuple[Array, Array]:
    """A list column flat: row i holds values[offsets[i]:offsets[i + 1]]."""
    column = table[name].combine_chunks()
    offsets = column.offsets.to_numpy()
    return column.flatten().to_numpy(), offsets - offsets[0]
