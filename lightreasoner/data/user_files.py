"""Files that people bring: JSON, CSV, Parquet and Arrow, as rows of plain values.

Text is UTF-8, with or without a byte order mark. Numbers are as they were written: a float32 of
0.1 is 0.1, a decimal of 7.50 is the text `7.50`, and all that a CSV file holds is text.

An Arrow file may not be compressed, nor hold types of which a value counts many times: how much it
unpacks to stands nowhere. What `datasets` writes never is.
"""

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from lightreasoner import untrusted
from lightreasoner.errors import LightReasonerError, ProblemsError

Row = dict[str, Any]

ROWS = 5_000_000
"""Of a file, so that rows of next to nothing fill no memory."""

COLUMNS = 200
BATCH = 100
"""Rows of a table that are read at once: a column may repeat a large value for next to nothing."""

LINE_BYTES = 1 << 24
"""Of a CSV file's row."""

TOO_LARGE = "unpacked it has over {:,} bytes"


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


def read_json(path: Path) -> list[tuple[int, Row]]:
    """The objects of a list, each with its number, from 1; lines of objects are read as such.

    Raises ProblemsError.
    """
    text = untrusted.read_text(path, ProblemsError)
    if not text.lstrip().startswith("["):
        return list(read_jsonl(path))
    try:
        rows = untrusted.json_value(text, unique=True)
    except ValueError as error:
        raise ProblemsError(
            f"{path}: not valid JSON ({untrusted.one_line(error)}); give a list of objects"
        ) from error
    found = list(enumerate(rows, start=1))
    for number, row in found:
        if not isinstance(row, dict) or number > ROWS:
            raise ProblemsError(
                f"{path}:{number}: must be one of at most {ROWS:,} objects, got "
                f"{untrusted.shown(row, 80)}"
            )
    return found


def read_csv(path: Path) -> list[tuple[int, Row]]:
    """The rows of a CSV file, all values text, with their numbers in a spreadsheet, from 2.

    Raises ProblemsError.
    """
    with _opened(path, "CSV") as file:
        content = pa.py_buffer(file.read(untrusted.TEXT_BYTES))
        settings: dict[str, Any] = {
            "read_options": pc.ReadOptions(use_threads=False, block_size=LINE_BYTES),
            "parse_options": pc.ParseOptions(newlines_in_values=True),
        }
        names = pc.open_csv(pa.BufferReader(content), **settings).schema.names
        texts = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        batches = pc.open_csv(pa.BufferReader(content), convert_options=texts, **settings)
        return list(enumerate(rows_of(limited(batches.schema, batches)), start=2))


def read_parquet(path: Path) -> list[tuple[int, Row]]:
    """The rows of a Parquet file, each with its number, from 1. Raises ProblemsError."""
    with _opened(path, "Parquet") as file:
        return list(enumerate(rows_of(_table(pq.ParquetFile(file))), start=1))


def read_arrow(path: Path) -> list[tuple[int, Row]]:
    """The rows of an Arrow file, a stream or not, with their numbers, from 1.

    Raises ProblemsError.
    """
    with _opened(path, "Arrow") as file:
        check_arrow(file)
        batches = pa.ipc.open_stream(_begun(file))
        return list(enumerate(rows_of(limited(batches.schema, batches)), start=1))


def check_arrow(file: BufferedReader) -> None:
    """Refuse a file whose size in memory is not its own. Raises ValueError."""
    schema = pa.ipc.open_stream(_begun(file)).schema
    for column in schema:
        if _may_repeat(column.type):
            raise ValueError(f"a column has the type {column.type}; cast it")
    messages = pa.ipc.MessageReader.open_stream(_begun(file))
    with contextlib.suppress(StopIteration):
        while True:
            message = messages.read_next_message()
            if message.type not in ("schema", "record batch"):
                raise ValueError(f"it has a message of the kind {message.type}; write rows alone")
            if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("it is compressed; write it without, or as Parquet")


def _begun(file: BufferedReader) -> BufferedReader:
    """The file at its stream, which in a file of Arrow's own has a mark before it."""
    file.seek(0)
    if file.read(8) != b"ARROW1\0\0":
        file.seek(0)
    return file


def _may_repeat(kind: pa.DataType) -> bool:
    """Whether one stored value may be that of many rows, at any depth."""
    views = ("string_view", "binary_view", "list_view", "large_list_view")
    is_one = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return is_one or str(kind).partition("<")[0] in views or any(map(_may_repeat, inner))


def _is_compressed(message: bytes) -> bool:
    """Whether a record batch's message has RecordBatch.compression (Arrow's format/Message.fbs).

    It is a flatbuffer: a table begins with the way back to the list of where its fields are.
    """

    def place(table: int, field: int) -> int:
        listed = table - struct.unpack_from("<i", message, table)[0]
        (size,) = struct.unpack_from("<H", message, listed)
        at = 4 + 2 * field
        return table + struct.unpack_from("<H", message, listed + at)[0] if at < size else table

    header = place(struct.unpack_from("<I", message)[0], 2)
    batch = header + struct.unpack_from("<I", message, header)[0]
    return place(batch, 3) != batch


@contextlib.contextmanager
def _opened(path: Path, kind: str) -> Iterator[BufferedReader]:
    """A file within the limits; what its reader says of it becomes a ProblemsError."""
    with (
        untrusted.open_file(path, ProblemsError, untrusted.TEXT_BYTES) as file,
        readable(f"{path}: not a readable {kind} file"),
    ):
        yield file


@contextlib.contextmanager
def readable(fault: str) -> Iterator[None]:
    """Raises ProblemsError of a `fault` for all that pyarrow raises."""
    try:
        yield
    except (
        OSError, ValueError, OverflowError, LookupError, MemoryError, struct.error,
        pa.ArrowException,
    ) as error:  # fmt: skip
        said = untrusted.shown(str(error))
        raise ProblemsError(f"{fault} ({said}); write it again") from error


def _table(file: pq.ParquetFile) -> pa.Table:
    """A file's table; its own account of its size is asked first. Raises ValueError."""
    found = file.metadata
    _refuse_more(found.num_rows, found.num_columns)
    size = sum(found.row_group(n).total_byte_size for n in range(found.num_row_groups))
    if size > untrusted.TEXT_BYTES:
        raise ValueError(TOO_LARGE.format(untrusted.TEXT_BYTES))
    return limited(file.schema_arrow, file.iter_batches(BATCH))


def limited(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """The table of these batches. Raises ValueError where it is larger than a text file may be.

    A file's own account of its size says nothing of repetitions, and may lie.
    """
    kept, rows, size = [], 0, 0
    for batch in batches:
        kept.append(batch)
        batch.validate(full=True)
        rows, size = rows + len(batch), size + batch.nbytes
        _refuse_more(rows, len(schema))
        if size > untrusted.TEXT_BYTES:
            raise ValueError(TOO_LARGE.format(untrusted.TEXT_BYTES))
    _refuse_more(rows, len(schema))
    return pa.Table.from_batches(kept, schema)


def _refuse_more(rows: int, columns: int) -> None:
    if rows > ROWS or columns > COLUMNS:
        raise ValueError(
            f"{rows:,} rows of {columns:,} columns; at most {ROWS:,} rows of {COLUMNS} are read"
        )


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


FILES: dict[str, Callable[[Path], Iterable[tuple[int, Row]]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
"""How files are read, by the ends of their names; each row has its line, or its number."""
