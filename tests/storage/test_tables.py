"""Tables from outside: each fault is one line with file, row, value, limit and remedy."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import tables, values

Limits = pytest.mark.timeout(30)
NAN, INF = float("nan"), float("inf")
SCHEMAS = {
    "trajectories": tables.TRAJECTORIES,
    "steps": tables.STEPS,
    "samples": tables.SAMPLES,
    "scores": tables.SCORES,
}
GOOD: dict[str, list[tuple[Any, ...]]] = {
    "trajectories": [("a", [1, 2], [3, 4], "stop"), ("b", [1], [], "length")],
    "steps": [
        ("a", 0, 0.5, 1.0, 1.0, 3, 3, [3], [-0.1], [-0.2]),
        ("a", 1, 0.0, 0.0, 1.0, 4, 3, [4, 3], [-0.1, -3.0], [-9.0, 0.0]),
    ],
    "samples": [("a", 0, [3, 4], [0.5, 0.5], 0.5), ("a", 1, [4], [1.0], None)],
    "scores": [
        ("s", "s/0", 0, "q", "p", "r", "2", "2", "correct", "2", "correct", 9, "stop"),
        ("s", "s/0", 1, "q", "p", "r", "2", None, "unparsed", None, "timeout", 0, "length"),
    ],
}


def table(name: str) -> pa.Table:
    schema = SCHEMAS[name]
    columns = zip(*GOOD[name], strict=True)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def changed(name: str, column: str, value: Any, row: int = 1) -> pa.Table:
    found = table(name)
    values = found[column].to_pylist()
    values[row] = value
    place = found.schema.get_field_index(column)
    return found.set_column(place, found.schema.field(column), pa.array(values, found[column].type))


def write(directory: Path, name: str, content: pa.Table) -> Path:
    pq.write_table(content, directory / f"{name}.parquet")
    return directory / f"{name}.parquet"


def refused(path: Path, name: str) -> str:
    with pytest.raises(ArtifactError) as caught:
        tables.read_table(path, SCHEMAS[name])
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < len(str(path)) + 500
    return said


@pytest.mark.parametrize("name", SCHEMAS)
def test_good_tables_are_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, table(name))
    assert tables.read_table(path, SCHEMAS[name]).equals(table(name))
    empty = write(tmp_path, name, SCHEMAS[name].empty_table())
    assert len(tables.read_table(empty, SCHEMAS[name])) == 0


def test_a_frame_of_more_text_than_an_arrow_array_holds_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.3 GiB of zeros, for which the system keeps no memory until one is written to."""
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 1 << 12)
    rows, length = 1 << 16, 37_000
    offsets = np.arange(rows + 1, dtype=np.int64) * length
    assert offsets[-1] > 2**31
    buffers = [pa.py_buffer(each) for each in (offsets, np.zeros(offsets[-1], np.uint8))]
    text = pa.LargeStringArray.from_buffers(rows, *buffers)
    columns = dict(zip(tables.SCORES.names, GOOD["scores"][0], strict=True))
    frame = pd.DataFrame(columns, index=range(rows))
    frame["response"] = pa.table({"response": text}).to_pandas()["response"]
    tables.write_table(frame, tables.SCORES, tmp_path / "scores.parquet")
    written = pq.ParquetFile(tmp_path / "scores.parquet")
    assert written.metadata.num_rows == rows
    assert written.read_row_group(15)["response"][-1].as_py() == "\0" * length


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_frame_in_pieces_has_the_bytes_of_one_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pa.concat_tables([table(name)] * 50).to_pandas()
    whole = pa.Table.from_pandas(frame, SCHEMAS[name])
    tables.write_table(whole, SCHEMAS[name], tmp_path / "whole.parquet")
    for size in (1, 7, 1_000):
        monkeypatch.setattr(tables, "ROWS_PER_PIECE", size)
        tables.write_table(frame, SCHEMAS[name], tmp_path / "pieces.parquet")
        assert (tmp_path / "pieces.parquet").read_bytes() == (
            (tmp_path / "whole.parquet").read_bytes()
        )


@pytest.mark.parametrize("name", SCHEMAS)
def test_rows_in_chunks_that_appear_twice_are_refused(tmp_path: Path, name: str) -> None:
    chunks = pa.concat_tables([table(name), table(name)])
    with pytest.raises(ArtifactError, match=r"row 3, .*appears twice"):
        values.check(tmp_path, chunks)
    values.check(tmp_path, pa.concat_tables([table(name).slice(0, 1), table(name).slice(1)]))


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("samples", "token_ids", None, "row 2, token_ids None: a value must be there"),
        ("samples", "weights", None, "row 2, weights None: a value must be there"),
        ("samples", "token_ids", [None], "row 2, token_ids nan: a number must be there"),
        ("samples", "weights", [None], "row 2, weights nan: a number must be there"),
        ("samples", "weights", [NAN], "row 2, weights nan: must be a finite number 0 to 1"),
        ("samples", "weights", [INF], "row 2, weights inf: must be a finite number 0 to 1"),
        ("samples", "weights", [-0.5], "row 2, weights -0.5: must be a finite number 0 to 1"),
        ("samples", "weights", [0.75], "row 2, weights [0.75]: must sum to 1, not 0.75"),
        ("samples", "weights", [0.5, 0.5], "must have as many entries as token_ids"),
        ("samples", "weights", [], "row 2, weights []: must have as many entries as token_ids"),
        ("samples", "token_ids", [], "row 2, token_ids []: must have an entry"),
        ("samples", "token_ids", [-1], "row 2, token_ids -1: must be a finite number >= 0"),
        ("samples", "step", -1, "row 2, step -1: must be a finite number >= 0"),
        ("samples", "step", 0, "row 2, problem_id, step ['a', 0]: appears twice"),
        ("samples", "step", None, "row 2, step None: a value must be there"),
        ("samples", "kl", NAN, "row 2, kl nan: must be a finite number >="),
        ("samples", "kl", -1.0, "row 2, kl -1.0: must be"),
        ("samples", "problem_id", None, "row 2, problem_id None"),
        ("steps", "kl", None, "row 2, kl None: a value must be there"),
        ("steps", "kl", INF, "row 2, kl inf"),
        ("steps", "expert_top1", -1, "row 2, expert_top1 -1"),
        ("steps", "token_ids", [3, 3], "row 2, token_ids 3: is there twice"),
        ("steps", "expert_log_probs", [-0.1], "must have as many entries as token_ids"),
        ("steps", "expert_log_probs", [1000.0, 0.0], "expert_log_probs 1000.0: must be a finite n"),
        ("steps", "amateur_log_probs", [-INF, 0.0], "amateur_log_probs -inf: must be a finite"),
        ("steps", "step", 0, "appears twice"),
        ("trajectories", "prompt_ids", [], "row 2, prompt_ids []: must have an entry"),
        ("trajectories", "completion_ids", None, "row 2, completion_ids None: a value"),
        ("trajectories", "completion_ids", [7, -5], "row 2, completion_ids -5"),
        ("trajectories", "problem_id", "a", "row 2, problem_id ['a']: appears twice"),
        ("trajectories", "finish_reason", "dunno", "'dunno': must be one of stop, length, impor"),
        ("scores", "strict", "right", "row 2, strict 'right': must be one of correct, wrong"),
        ("scores", "qwen", None, "row 2, qwen None"),
        ("scores", "k", 0, "row 2, problem_set, problem_id, k ['s', 's/0', 0]: appears twice"),
        ("scores", "tokens", -1, "row 2, tokens -1"),
        ("scores", "response", None, "row 2, response None"),
    ],
)
def test_a_value_that_no_stage_writes(
    tmp_path: Path, name: str, column: str, value: Any, said: str
) -> None:
    assert said in refused(write(tmp_path, name, changed(name, column, value)), name)


def test_a_sample_set_belongs_together(tmp_path: Path) -> None:
    write(tmp_path, "trajectories", table("trajectories"))
    for column, value, said in (
        ("problem_id", "x", "row 2, problem_id 'x': must be a trajectory's"),
        ("step", 3, "row 2, step 3: is past its trajectory's end"),
        ("problem_id", "b", "row 2, step 1: is past its trajectory's end"),
    ):
        write(tmp_path, "samples", changed("samples", column, value))
        with pytest.raises(ArtifactError) as caught:
            tables.read_sample_set(tmp_path)
        assert said in str(caught.value)
    write(tmp_path, "samples", changed("samples", "step", 2))  # as imported ones may be
    assert len(tables.read_sample_set(tmp_path)[0]) == 2
    write(tmp_path, "trajectories", tables.TRAJECTORIES.empty_table())
    with pytest.raises(ArtifactError, match="row 1, problem_id 'a'"):
        tables.read_sample_set(tmp_path)


def test_text_that_is_no_text(tmp_path: Path) -> None:
    """Parquet does not check it; pandas and Python would stumble later."""
    found = table("trajectories")
    raw = pa.array([b"a", b"\xff\xfe"], pa.binary()).view(pa.string())
    path = write(tmp_path, "trajectories", found.set_column(0, found.schema.field(0), raw))
    assert "not a readable Parquet file" in refused(path, "trajectories")


@pytest.mark.parametrize(
    "pandas",
    [
        b"{",
        b"[" * 5_000,
        b'{"columns": 7, "index_columns": ["gone"]}',
        b'{"index_columns": ["problem_id"], "column_indexes": [{}], "columns": [{}]}',
        b"\xff",
    ],
)
def test_bad_pandas_metadata_has_no_say(tmp_path: Path, pandas: bytes) -> None:
    path = write(tmp_path, "samples", table("samples").replace_schema_metadata({b"pandas": pandas}))
    frame = tables.read_table(path, tables.SAMPLES).to_pandas()
    assert [*frame.columns] == tables.SAMPLES.names


def test_types_that_pass_for_others(tmp_path: Path) -> None:
    good = table("trajectories")
    names = good["problem_id"]
    for column in (
        names.combine_chunks().dictionary_encode(),
        names.cast(pa.binary()),
        names.cast(pa.large_string()),
        pa.ExtensionArray.from_storage(pa.json_(), names.combine_chunks()),
        pa.array([None, None]),
    ):
        field = pa.field("problem_id", column.type)
        path = write(tmp_path, "trajectories", good.set_column(0, field, column))
        assert "column types differ" in refused(path, "trajectories")
    path = write(tmp_path, "trajectories", good.append_column("problem_id", names))
    assert "another format" in refused(path, "trajectories")


def with_key(tmp_path: Path, key: bytes, value: bytes) -> Path:
    return write(tmp_path, "samples", table("samples").replace_schema_metadata({key: value}))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"[" * 100_000, "nested over 100 deep"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested over 100 deep"),
        (b'{"alpha": ' + b"9" * 5_000 + b"}", "a whole number of 5,000 digits"),
        (b"\xff", "utf-8"),
        (b"[]", "must be an object, got []"),
        (b'{"alpha_min": "0.1"}', "alpha_min cannot be '0.1'"),
        (b'{"threshold": []}', "threshold cannot be []"),
        (b'{"score": 7}', "score cannot be 7"),
        (b'{"generate": {"style": {}}}', "style cannot be {}"),
    ],
)
def test_provenance_that_is_none(tmp_path: Path, value: bytes, said: str) -> None:
    path = with_key(tmp_path, b"lightreasoner", value)
    with pytest.raises(ArtifactError) as caught:
        tables.provenance(path)
    assert str(caught.value).startswith(f"{path}: its provenance is malformed (")
    assert said in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize("version", [b"next", b"9" * 5_000, b"\xff", b"", b"x" * 100_000])
def test_a_version_that_is_none(tmp_path: Path, version: bytes) -> None:
    assert "format_version" in refused(with_key(tmp_path, b"format_version", version), "samples")


@pytest.mark.parametrize(
    "schema", [b"", b"AAAA", b"\xff", base64.b64encode(os.urandom(400)), b"/" * 4_000]
)
def test_a_schema_of_arrows_that_is_none(tmp_path: Path, schema: bytes) -> None:
    """Refused, or not heeded; never followed."""
    metadata = table("samples").schema.with_metadata({b"ARROW:schema": schema})
    path = tmp_path / "samples.parquet"
    with pq.ParquetWriter(path, metadata, store_schema=False) as writer:
        writer.write_table(table("samples").cast(metadata))
    try:
        found = tables.read_table(path, tables.SAMPLES)
    except ArtifactError:
        assert "not a readable Parquet file" in refused(path, "samples")
    else:
        assert found.equals(table("samples"))


@Limits
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a named pipe"),
        (Path.mkdir, "a directory"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (Path.touch, "not a readable Parquet file"),
        (lambda path: path.write_bytes(b"PAR1" * 9), "not a readable Parquet file"),
        (lambda path: None, "no such file; run the stage"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    path = tmp_path / "samples.parquet"
    make(path)
    assert said in refused(path, "samples")
    with pytest.raises(ArtifactError, match=said):
        tables.provenance(path)


def test_a_flipped_byte_of_a_checked_page(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    pq.write_table(
        table("samples"), path, compression=None, use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    weights = pq.read_metadata(path).row_group(0).column(3)
    content[weights.data_page_offset + weights.total_compressed_size - 3] ^= 1  # of the last one
    path.write_bytes(content)
    assert "not a readable Parquet file" in refused(path, "samples")


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four megabytes of one letter, in a kilobyte of the file; and more rows than there can be."""
    rows = pa.table([["a" * 4_000_000], [[1]], [[1]], ["stop"]], schema=tables.TRAJECTORIES)
    path = tmp_path / "trajectories.parquet"
    pq.write_table(rows, path, compression="zstd", write_statistics=False)
    assert path.stat().st_size < 10_000
    assert len(tables.read_table(path, tables.TRAJECTORIES)) == 1
    monkeypatch.setattr(tables, "TABLE_BYTES", 4_000_000)
    monkeypatch.delattr(pq.ParquetFile, "read")
    assert "bytes unpacked; at most 4,000,000 are read" in refused(path, "trajectories")


def test_the_sample_set_is_what_pandas_reads(tmp_path: Path) -> None:
    """The check leaves a good table as it is, in one piece or several."""
    path = tmp_path / "samples.parquet"
    pq.write_table(table("samples"), path, row_group_size=1)
    assert tables.read_table(path, tables.SAMPLES).to_pylist() == table("samples").to_pylist()
    assert json.loads(json.dumps(tables.provenance(path))) == {}
