"""Shards: a long table made in pieces, each whole or not at all, so that a kill loses little.

    <scratch>/plan.json       how the rows are cut; written first, and kept to by every resume
    <scratch>/00007.sha256    that of a piece: Parquet's own checksums are of its pages alone
    <scratch>/00007.parquet   one finished piece; the rename that names it is its done-marker

A resume reads the pieces that are there, makes again what is missing or damaged, and so computes
every piece in the same company as an uninterrupted run would: the bytes come out the same.
"""

import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lightreasoner import untrusted
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts, sealed, tables

Piece = tuple[range, pa.Table]
"""A range of inputs, and the rows made of them."""

log = logging.getLogger(__name__)

SHARE = 20
SMALLEST, LARGEST = 64, 128
# About a minute's work: two cores reach 1e11 FLOP/s, a GPU 1e13 at the least.
LARGEST_FLOP = {"cpu": 6e12, "cuda": 6e14}
PLAN_KEY = b"lightreasoner.plan"


def shard_size(total: int, flop: float, device: str) -> int:
    """Inputs per shard: a twentieth of the job, but 64 to 128, so that batches stay worth it.

    `flop` is an estimate of the work per input; a shard has no more than about a minute of it.
    """
    fitting = int(LARGEST_FLOP.get(device, LARGEST_FLOP["cpu"]) / flop)
    return max(1, min(fitting, max(SMALLEST, min(LARGEST, total // SHARE))))


@dataclass(frozen=True)
class Shards:
    """The pieces under `scratch` of a table that is computed for `total` inputs, `size` at a time.

    The first plan is kept: a resume's other `size` changes nothing.
    """

    scratch: Path
    schema: pa.Schema
    total: int
    size: int

    def compute(
        self, pieces: Callable[[Sequence[range]], Iterable[Piece]], on_done: Callable[[int], None]
    ) -> Iterator[pa.Table]:
        """Make every piece that is missing, then yield all of them in order.

        `pieces(ranges)` makes the rows of each range of inputs, in any order; `on_done(inputs)`
        gets how many are finished, before the first and after each piece.
        """
        plan_id, ranges = self._plan()
        whole = [self._read(index, plan_id) is not None for index in range(len(ranges))]
        done = sum(len(inputs) for inputs, is_whole in zip(ranges, whole, strict=True) if is_whole)
        on_done(done)
        missing = {inputs: index for index, inputs in enumerate(ranges) if not whole[index]}
        for inputs, table in pieces(list(missing)):
            self._write(missing[inputs], plan_id, table)
            done += len(inputs)
            on_done(done)
        for index in range(len(ranges)):
            table = self._read(index, plan_id)
            assert table is not None, "a piece that was just verified"
            yield table

    def _plan(self) -> tuple[str, list[range]]:
        path = self.scratch / "plan.json"
        plan = _read_plan(path)
        if plan is None or plan.total != self.total:
            _make_room(path)
            plan = _Plan(uuid.uuid4().hex, self.total, self.size)
            artifacts.write_text(path, sealed.closed(asdict(plan)))
        starts = range(0, plan.total, plan.size)
        return plan.id, [range(at, min(at + plan.size, plan.total)) for at in starts]

    def _path(self, index: int) -> Path:
        return self.scratch / f"{index:05d}.parquet"

    def _read(self, index: int, plan_id: str) -> pa.Table | None:
        """A finished piece; None if it is missing, damaged or another plan's."""
        path = self._path(index)
        if not path.exists():
            return None
        try:
            seal = untrusted.read_text(path.with_suffix(".sha256"), ArtifactError)
            if seal != artifacts.file_sha256(path):
                raise ArtifactError(f"{path}: not as it was written")
            table = tables.read_parquet(path)
        except (ArtifactError, FileNotFoundError) as error:
            log.warning("%s; making it again", error)
            return None
        is_ours = (table.schema.metadata or {}).get(PLAN_KEY) == plan_id.encode()
        if not is_ours or not table.schema.equals(self.schema, check_metadata=False):
            log.warning("%s belongs to another run; making it again", path)
            return None
        return table.replace_schema_metadata(None)

    def _write(self, index: int, plan_id: str, table: pa.Table) -> None:
        path = self._path(index)
        unfinished = path.with_suffix(".new")
        table = table.replace_schema_metadata({PLAN_KEY: plan_id.encode()})
        pq.write_table(table, unfinished, compression="zstd", write_page_checksum=True)
        artifacts.sync(unfinished)
        _make_room(path.with_suffix(".sha256"))
        artifacts.write_text(path.with_suffix(".sha256"), artifacts.file_sha256(unfinished))
        _make_room(path)
        unfinished.replace(path)
        artifacts.sync(path.parent)


@dataclass(frozen=True)
class _Plan:
    id: str
    total: int
    size: int


def _read_plan(path: Path) -> _Plan | None:
    """The plan; None if there is none, or one that is damaged."""
    try:
        tree = sealed.opened(untrusted.read_text(path, ArtifactError))
        return _Plan(tree["id"], tree["total"], tree["size"])
    except (FileNotFoundError, ArtifactError, LookupError, ValueError):
        return None


def _make_room(path: Path) -> None:
    """Remove a folder from where a file is to be; a rename replaces all else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
