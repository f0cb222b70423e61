"""Shards: nothing finished is computed again, damage is found, the bytes come out the same."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.storage import tables
from lightreasoner.storage.shards import Piece, Shards, shard_size

SCHEMA = pa.schema({"value": pa.int64()})


class Job:
    """Squares of 0 to total - 1; dies before the shard that starts at `dies_at`."""

    def __init__(self, scratch: Path, total: int = 10, size: int = 3, dies_at: int = -1):
        self.shards = Shards(scratch, SCHEMA, total, size)
        self.dies_at, self.made, self.heard = dies_at, list[range](), list[int]()

    def pieces(self, ranges: Sequence[range]) -> Iterator[Piece]:
        for inputs in ranges:
            if inputs.start == self.dies_at:
                raise KeyboardInterrupt
            self.made.append(inputs)
            yield inputs, pa.table([[n * n for n in inputs]], schema=SCHEMA)

    def run(self) -> list[int]:
        pieces = self.shards.compute(self.pieces, self.heard.append)
        return pa.concat_tables(pieces)["value"].to_pylist()


def test_all_pieces_in_order(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.run() == [n * n for n in range(10)]
    assert job.made == [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]
    assert job.heard == [0, 3, 6, 9, 10]


def test_a_restart_computes_what_is_missing_by_the_first_plan(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Job(tmp_path, dies_at=6).run()
    again = Job(tmp_path, size=7)
    assert again.run() == [n * n for n in range(10)]
    assert again.made == [range(6, 9), range(9, 10)]
    assert again.heard == [6, 9, 10]


def test_another_job_has_another_plan(tmp_path: Path) -> None:
    Job(tmp_path, total=4).run()
    assert Job(tmp_path, total=5).run() == [0, 1, 4, 9, 16]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    """One bit of the data pages: only the page's checksum can tell."""
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    """Right columns, right number of rows, another run's plan."""
    other = Job(path.parent / "other")
    other.run()
    for name in (path.name, f"{path.stem}.sha256"):
        (path.parent / "other" / name).replace(path.with_name(name))


def of_other_columns(path: Path) -> None:
    pq.write_table(pa.table({"other": [1]}), path)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "more").mkdir(parents=True)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [truncated, flipped, foreign, of_other_columns, a_pipe, a_folder])
def test_a_harmed_piece_is_made_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: object
) -> None:
    Job(tmp_path).run()
    assert callable(harm)
    harm(tmp_path / "00001.parquet")
    again = Job(tmp_path)
    assert again.run() == [n * n for n in range(10)]
    assert again.made == [range(3, 6)]
    (line,) = caplog.messages
    assert "00001.parquet" in line
    assert line.endswith("making it again")


@pytest.mark.parametrize("name", ["plan.json", "00001.parquet", "00001.sha256"])
def test_no_byte_that_a_disk_loses_changes_a_row(tmp_path: Path, name: str) -> None:
    """A plan's size with another digit would cut the pieces in other places."""
    Job(tmp_path).run()
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for at in range(len(whole[tmp_path / name])):
        for path, content in whole.items():
            path.write_bytes(content)
        changed = bytearray(whole[tmp_path / name])
        changed[at] ^= 1 << at % 8
        (tmp_path / name).write_bytes(changed)
        assert Job(tmp_path).run() == [n * n for n in range(10)], at


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [a_pipe, a_folder])
def test_a_plan_that_is_no_file_is_made_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    Job(tmp_path).run()
    harm(tmp_path / "plan.json")
    assert Job(tmp_path).run() == [n * n for n in range(10)]


@pytest.mark.parametrize(
    "plan",
    [
        "{",
        "[" * 100_000,
        '{"id": "x", "total": 10, "size": 0}',
        '{"id": "x", "total": 10, "size": -3}',
        '{"id": "x", "total": "10", "size": 3}',
        '{"id": 7, "total": 10, "size": 3}',
        '{"id": "x", "total": 10, "size": ' + "9" * 5_000 + "}",
        '{"id": "x"}',
        '{"id": "x", "total": 10, "size": 3}',
        "7",
    ],
)
def test_a_broken_plan_is_made_again(tmp_path: Path, plan: str) -> None:
    Job(tmp_path).run()
    (tmp_path / "plan.json").write_text(plan)
    assert Job(tmp_path).run() == [n * n for n in range(10)]


@given(st.integers(1, 10**6))
def test_a_shard_is_a_twentieth_within_bounds(total: int) -> None:
    size = shard_size(total, 1.0, "cpu")
    assert 64 <= size <= 128
    assert size <= max(64, total / 20)


@pytest.mark.parametrize(("flop", "size"), [(1e9, 64), (1e12, 6), (1e14, 1)])
def test_a_shard_is_a_minute_at_most(flop: float, size: int) -> None:
    """6e12 FLOP: a minute of two cores."""
    assert shard_size(300, flop, "cpu") == size


@pytest.mark.parametrize("cuts", [[5], [1, 1, 3], [2, 3], [4, 0, 1]])
def test_bytes_do_not_depend_on_the_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int]
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 2)
    whole = pa.table([list(range(5))], schema=SCHEMA)

    def pieces(sizes: list[int]) -> Iterable[pa.Table]:
        start = 0
        for size in sizes:
            yield whole.slice(start, size)
            start += size

    tables.write_table(whole, SCHEMA, tmp_path / "whole")
    tables.write_pieces(pieces(cuts), SCHEMA, tmp_path / "pieces")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert pq.read_metadata(tmp_path / "whole").num_row_groups == 3
