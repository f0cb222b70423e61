"""Workers on Ray: the same pieces as in one process; what goes wrong there is said here."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from lightreasoner.config import Compute, Evaluate, Generate, Score
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ModelError
from lightreasoner.evaluation import evaluate
from lightreasoner.inference import worker_pool
from lightreasoner.inference.worker_pool import crew
from lightreasoner.progress import Silent
from lightreasoner.sampling import generate, score
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.storage.shards import Piece, Shards

# Ray leaves its own processes' handles to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
ONE = Compute(device="cpu", dtype="float32", batch_size=4)
TWO = ONE.model_copy(update={"workers": 2})


@pytest.fixture(autouse=True)
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    worker_pool._lock()  # before Ray is imported
    from ray import cloudpickle

    # Ray's processes cannot import a test.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    gc.collect()


@dataclass
class Squares:
    """Squares of a range; ends badly, in a way of its own, at `bad`."""

    bad: int = -1
    how: str = "raises"
    size: int = 3

    def __post_init__(self) -> None:
        if self.how == "never starts":
            raise ModelError("no such model")

    def __call__(self, inputs: range) -> pa.Table:
        if inputs.start == self.bad and self.how == "raises":
            raise ModelError("logits are not finite")
        if inputs.start == self.bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return pa.table({"n": [n * n for n in inputs], "process": [os.getpid()] * len(inputs)})


RANGES = [range(start, start + 3) for start in range(0, 12, 3)]


ASK = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info()
"""


def asked(address: str, token: dict[str, str]) -> str:
    """What Ray answers a program of this user's that knows this token, or none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", ASK, address]
    done = subprocess.run(command, env=kept | token, capture_output=True, text=True, timeout=60)
    return done.stderr.strip() or "all it wanted"


def listened_on() -> set[str]:
    """The addresses that this process and all below it listen on."""
    here = psutil.Process()
    ours = [one for each in (here, *here.children(True)) for one in each.net_connections("inet")]
    return {one.laddr.ip for one in ours if one.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_pieces_come_from_other_processes_that_nobody_else_reaches() -> None:
    """All of Ray's ports are on loopback, and take no call without this run's token."""
    import ray

    with crew(Squares, TWO) as workers:
        found = dict(workers.pieces(RANGES))
        assert workers.size == 3
        addresses = {address.removeprefix("::ffff:") for address in listened_on()}
        server = ray.get_runtime_context().gcs_address
        mode = {"RAY_AUTH_MODE": "token"}
        assert asked(server, mode | {"RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}) == (
            "all it wanted"
        )
        for token in ({}, mode | {"RAY_AUTH_TOKEN": "0" * 64}):
            assert "InvalidAuthToken" in asked(server, token)
    assert addresses == {"127.0.0.1"}
    assert found.keys() == set(RANGES)
    for inputs, table in found.items():
        assert table["n"].to_pylist() == [n * n for n in inputs]
        assert os.getpid() not in table["process"].to_pylist()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("make", "workers", "said"),
    [
        (Squares, 999, r"compute.workers 999: Ray has \d+ CPUs, and each worker takes one; lower"),
        (partial(Squares, how="never starts"), 2, "^no such model$"),
        (partial(Squares, 6), 2, "^logits are not finite$"),
        (partial(Squares, 6, "dies"), 2, "a worker of compute.workers died.* pieces are kept"),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(
    make: partial[Squares], workers: int, said: str
) -> None:
    compute = ONE.model_copy(update={"workers": workers})
    with pytest.raises(ModelError, match=said), crew(make, compute) as found:
        list(found.pieces(RANGES))


@pytest.mark.nightly
def test_a_killed_worker_costs_the_shards_that_were_being_made(tmp_path: Path) -> None:
    """Its own, and at most the one of the worker beside it; the next run makes these alone."""
    shards = Shards(tmp_path, pa.schema({"n": pa.int64(), "process": pa.int64()}), 12, 3)
    with (
        pytest.raises(ModelError, match=r"a worker of compute.workers died"),
        crew(partial(Squares, 9, "dies"), TWO) as workers,
    ):
        list(shards.compute(workers.pieces, lambda done: None))
    asked = list[range]()

    def again(ranges: Sequence[range]) -> Iterator[Piece]:
        asked.extend(ranges)
        return ((inputs, Squares()(inputs)) for inputs in ranges)

    found = pa.concat_tables(shards.compute(again, lambda done: None))
    assert found["n"].to_pylist() == [n * n for n in range(12)]
    assert RANGES[3] in asked
    assert len(asked) <= 2


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("generate", marks=pytest.mark.slow),
        *(pytest.param(each, marks=pytest.mark.nightly) for each in ("score", "evaluate")),
    ],
)
def test_the_stages_write_the_same_with_two_workers(
    stage: str, tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    """Trajectories and responses to the byte; sums of one thread and of two differ in the last
    bits (README.md)."""
    some = [Problem(f"p{n}", f"{n} + {n}", str(2 * n), "") for n in range(12)]
    problems.write_problems(some, tmp_path / "problems.jsonl")
    (tmp_path / "test.jsonl").write_text(
        "".join(f'{{"question": "{p.question}", "answer": "{p.answer}"}}\n' for p in some)
    )
    paths = {"expert": tiny_expert, "amateur": tiny_amateur, "problems": tmp_path}
    given = {name: artifacts.of(path) for name, path in paths.items()}
    asked = Evaluate(source=str(tmp_path / "test.jsonl"), problem_sets=("test",), max_new_tokens=8)

    def write(stage: str, compute: Compute, name: str) -> Path:
        out = tmp_path / name
        out.mkdir()
        work = Workspace(out, tmp_path / f"{name}-shards", compute)
        if stage == "generate":
            generate.write(given, Generate(max_new_tokens=8), work, Silent())
        elif stage == "evaluate":
            evaluate.write(given, asked, work, Silent())
        else:
            score.write(given, Score(), work, Silent())
        return out

    if stage == "score":
        given["trajectories"] = artifacts.of(write("generate", ONE, "trajectories"))
    one, two = write(stage, ONE, "one"), write(stage, TWO, "two")
    if stage != "score":
        file = {"generate": "trajectories.parquet", "evaluate": "scores.parquet"}[stage]
        assert (one / file).read_bytes() == (two / file).read_bytes()
        return
    ours, theirs = (tables.read_table(each / "steps.parquet", tables.STEPS) for each in (one, two))
    assert ours.select(["problem_id", "step"]) == theirs.select(["problem_id", "step"])
    np.testing.assert_allclose(ours["kl"].to_numpy(), theirs["kl"].to_numpy(), rtol=1e-5, atol=1e-6)
