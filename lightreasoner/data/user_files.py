"""Files that people bring: JSON lines and Parquet tables, as rows of plain values.

Text is UTF-8, with or without a byte order mark. Numbers are as they were written: a float32 of
0.1 is 0.1, a decimal of 7.50 is the text `7.50`.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner.errors import LightReasonerError, ProblemsError

Row = dict[str, Any]


def read_jsonl(
    path: Path, refusal: type[LightReasonerError] = ProblemsError
) -> Iterator[tuple[int, Row]]:
    """The objects of a JSONL file, each with its line. Raises `refusal`, which names the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise refusal(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
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


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found: Row = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} appears twice")
        found[name] = value
    return found


def read_parquet(path: Path) -> list[tuple[int, Row]]:
    """The rows of a Parquet file, each with its number, from 1. Raises ProblemsError."""
    try:
        rows = rows_of(pq.ParquetFile(path).read())
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        first = " ".join(str(error).split())
        raise ProblemsError(f"{path}: not a readable Parquet file ({first})") from error
    return list(enumerate(rows, start=1))


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a table. Raises ValueError for two columns of one name."""
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"a column appears twice among {', '.join(table.column_names)}")
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
