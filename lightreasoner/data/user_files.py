"""Files that people bring: JSON lines and Parquet tables, as rows of plain values.

Text is UTF-8, with or without a byte order mark. Numbers are as they were written: a float32 of
0.1 is 0.1, a decimal of 7.50 is the text `7.50`.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner import untrusted
from lightreasoner.errors import LightReasonerError, ProblemsError

Row = dict[str, Any]

ROWS = 5_000_000
"""Of a file, so that rows of next to nothing fill no memory."""

COLUMNS = 200
BATCH = 100
"""Rows of a table that are read at once: a column may repeat a large value for next to nothing."""


def read_jsonl(
    path: Path, refusal: type[LightReasonerError] = ProblemsError
) -> Iterator[tuple[int, Row]]:
    """The objects of a JSONL file, each with its line. Raises `refusal`, which names the line."""
    lines = untrusted.read_text(path, refusal).split("\n")
    for number, line in enumerate(lines, start=1):
        if number > ROWS:
            raise refusal(f"{path}: has {len(lines):,} lines; at most {ROWS:,} are read")
        if not line.strip():
            continue
        try:
            row = untrusted.json_value(line, unique=True)
        except ValueError as error:
            raise refusal(
                f"{path}:{number}: not valid JSON ({getattr(error, 'msg', error)}); each line "
                "needs one JSON object"
            ) from error
        if not isinstance(row, dict):
            raise refusal(
                f"{path}:{number}: a {type(row).__name__}, not an object; each line needs one JSON "
                "object"
            )
        yield number, row


def read_parquet(path: Path) -> list[tuple[int, Row]]:
    """The rows of a Parquet file, each with its number, from 1. Raises ProblemsError."""
    try:
        with untrusted.open_file(path, ProblemsError, untrusted.TEXT_BYTES) as file:
            rows = rows_of(_table(pq.ParquetFile(file)))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, OverflowError, LookupError, pa.ArrowException) as error:
        raise ProblemsError(
            f"{path}: not a readable Parquet file ({untrusted.shown(str(error))}); write it again"
        ) from error
    return list(enumerate(rows, start=1))


def _table(file: pq.ParquetFile) -> pa.Table:
    """A file's table. Raises ValueError where it is larger than a text file may be.

    Its own account of its size is asked first; it says nothing of repetitions, and may lie.
    """
    found = file.metadata
    if found.num_rows > ROWS or found.num_columns > COLUMNS:
        raise ValueError(
            f"{found.num_rows:,} rows of {found.num_columns:,} columns; at most {ROWS:,} rows of "
            f"{COLUMNS} are read"
        )
    size = sum(found.row_group(n).total_byte_size for n in range(found.num_row_groups))
    batches = []
    for batch in file.iter_batches(BATCH) if size <= untrusted.TEXT_BYTES else ():
        batches.append(batch)
        size += batch.nbytes
        if size > untrusted.TEXT_BYTES:
            break
    if size > untrusted.TEXT_BYTES:
        raise ValueError(f"unpacked it has over {untrusted.TEXT_BYTES:,} bytes")
    return pa.Table.from_batches(batches, file.schema_arrow)


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table. Raises ValueError for two columns of one name."""
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"a column appears twice among {untrusted.listed(table.column_names)}")
    columns = [
        [_as_written(value, column.type) for value in column.to_pylist()]
        for column in table.itercolumns()
    ]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _as_written(value: Any, kind: pa.DataType) -> Any:
    """A value whose number is the shortest that its type stores as this one."""
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_as_written(each, kind.value_type) for each in value]
    if isinstance(value, Decimal):
        return format(value, "f")
    if value is not None and pa.types.is_floating(kind):
        return float(str(kind.to_pandas_dtype()(value)))
    return value
