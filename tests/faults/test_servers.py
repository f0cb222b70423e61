"""Runs, their own Prefect and servers killed: nothing stays, and what comes next succeeds."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import ledger
import psutil
import pytest
import standins
from checkout import ROOT
from mlflow import MlflowClient
from place import CONSOLE, WITNESS, Place
from ports import free_port

from flows import environment
from flows.servers import databases, local, own_prefect
from flows.servers.manager import Manager
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH
from tasks.tracking import route

OWN_PREFECT = """
from flows import environment
from flows.servers import own_prefect
home = environment.make(environment.home())
environment.prepare_environment(home)
environment.lock_own_prefect(home)
own_prefect.start(home)
own_prefect.wait(home)
"""
"""What a run does before its flow begins."""

WITHIN = own_prefect.STOP_SECONDS + 20
"""Seconds, on a busy machine."""


def until(holds: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def schema(path: Path) -> list[str]:
    """All tables and indexes of a database, a line of SQL each column and constraint, whose order
    Prefect does not fix; and which migration was the last."""
    with contextlib.closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        made = opened.execute("SELECT name, sql FROM sqlite_master").fetchall()
        (last,) = opened.execute("SELECT version_num FROM alembic_version").fetchall()
    lines = [
        f"{name}: {line.strip(', ')}" for name, sql in made for line in (sql or "").split("\n")
    ]
    return [*sorted(lines), *last]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_kills_while_prefect_makes_its_database(tmp_path: Path) -> None:
    """Each start goes on where the one before was killed, by itself or with its server."""
    whole, place = Place(tmp_path / "whole"), Place(tmp_path / "killed")
    for each in (whole, place):
        each.home.mkdir(parents=True)
    clock = time.monotonic()
    whole.start(sys.executable, "-c", OWN_PREFECT).succeeds()
    seconds, moments = time.monotonic() - clock, ledger.chance("prefect's database")
    for number in range(12):
        with ledger.trial("SIGKILL as the database is made", "run"):
            program = place.start(sys.executable, "-c", OWN_PREFECT)
            program.wait(moments.uniform(0.1, seconds))
            program.send(signal.SIGKILL, group=number % 2 == 1)
            program.wait()
            assert place.is_left_alone(WITHIN), place.processes()
    place.start(sys.executable, "-c", OWN_PREFECT).succeeds()
    found, wanted = (schema(each.home / "prefect" / "prefect.db") for each in (place, whole))
    assert found == wanted


@pytest.mark.slow
def test_a_killed_runs_server_ends_where_its_start_hangs(tmp_path: Path) -> None:
    """On a database that is locked it starts for a minute, and hears SIGTERM only after that.

    Its status is 1, or uvicorn's 3 where the minute was over first.
    """
    (tmp_path / "prefect").mkdir()
    database = tmp_path / "prefect" / "prefect.db"
    with (
        contextlib.closing(sqlite3.connect(database, isolation_level=None)) as holder,
        socket.create_server((local.HOST, 0)) as door,
    ):
        holder.execute("BEGIN EXCLUSIVE")
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.servers.own_prefect", str(door.fileno())],
            env={**os.environ, "PREFECT_HOME": str(database.parent)},
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[door.fileno()],
        )
        opened = psutil.Process(server.pid).open_files
        until(lambda: str(database) in [file.path for file in opened()])
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(WITHIN) in (1, 3)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_run_killed_at_any_moment_leaves_no_process(tmp_path: Path, tiny_params: Params) -> None:
    """Its own Prefect, the grading process and its workers end with it; the next run goes on."""
    place = Place(tmp_path).make(tiny_params)
    clock = time.monotonic()
    place.start(*CONSOLE, "run").succeeds()
    seconds, moments = time.monotonic() - clock, ledger.chance("run")
    shutil.rmtree(place.home / "store")
    for _ in range(12):
        with ledger.trial("SIGKILL, no process is left", "run"):
            program = place.start(*CONSOLE, "run")
            program.wait(moments.uniform(0.1, seconds))
            program.send(signal.SIGKILL)
            program.wait()
            assert place.is_left_alone(WITHIN), place.processes()
    place.start(*CONSOLE, "run").succeeds()
    for name in ("prefect/prefect.db", "mlflow/mlflow.db"):
        databases.check(place.home / name, "records", whole=True)


GRADING = r"""
from lightreasoner.data.problems import Problem
from lightreasoner.grading.grade import grade
from lightreasoner.grading.types import Answer
towers = [rf"\boxed{{9^{{9^{{9^{{{n}}}}}}}}}" for n in range(200)]
grade([Answer(text, Problem(text, "q", "4", ""), "math") for text in towers], workers=2)
"""
"""Answers that take seconds each."""


@pytest.mark.slow
def test_the_process_that_grades_ends_with_who_asked(tmp_path: Path) -> None:
    """Otherwise it graded to the end, for as long as hundreds of hard answers take."""
    place = Place(tmp_path)
    place.home.mkdir()
    with ledger.trial("SIGKILL while answers are graded", "evaluate"):
        program = place.start(sys.executable, "-c", GRADING)
        until(lambda: len(place.processes()) >= 5)  # itself, pool, two workers, their server
        time.sleep(4)  # it reads all answers first, then decides one after the other
        program.send(signal.SIGKILL)
        program.wait()
        assert place.is_left_alone(WITHIN), place.processes()


STAGE_OF_DVC = f"""
import os, subprocess
subprocess.run(["sh", "-c", {shlex.join(CONSOLE)!r} + " evaluate-base"],
    env=os.environ | {{"DVC_STAGE": "evaluate_base"}})
"""


@pytest.mark.slow
def test_a_stage_ends_with_the_dvc_that_was_killed(tmp_path: Path, tiny_params: Params) -> None:
    """In the place of DVC stands a program that starts the stage as DVC does."""
    evaluated = tiny_params.evaluate.model_copy(update={"max_new_tokens": 800})
    place = Place(tmp_path).make(tiny_params.model_copy(update={"evaluate": evaluated}))
    with ledger.trial("SIGKILL of DVC alone", "evaluate_base"):
        program = place.start(sys.executable, "-c", STAGE_OF_DVC)
        until(lambda: [*(place.home / "work").glob("*/shards")] or program.wait(0) is not None)
        assert program.wait(0) is None, place.said()
        program.send(signal.SIGKILL)
        program.wait()
        assert place.is_left_alone(20), place.processes()
    assert [*(place.home / "work").glob("*/shards")]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_stage_with_several_workers_leaves_no_process(
    tmp_path: Path, tiny_params: Params
) -> None:
    """Ray's servers and workers, killed with the stage at three moments; all listen on loopback."""
    compute = tiny_params.compute.model_copy(update={"workers": 2})
    place = Place(tmp_path).make(tiny_params.model_copy(update={"compute": compute}))
    moments = ledger.chance("workers")
    place.start(*CONSOLE, "prepare").succeeds()
    addresses, clock = set[str](), time.monotonic()
    program = place.start(*CONSOLE, "generate")
    while program.wait(0.2) is None:
        addresses |= listened_on(program.pid)
    seconds = time.monotonic() - clock
    assert addresses == {"127.0.0.1"}
    for made in ("store/generate", "data/trajectories"):
        shutil.rmtree(place.home / made)
    for _ in range(3):
        with ledger.trial("SIGKILL of a stage with two workers", "generate"):
            program = place.start(*CONSOLE, "generate")
            program.wait(moments.uniform(seconds / 4, seconds))
            program.send(signal.SIGKILL)
            program.wait()
            assert place.is_left_alone(90), place.processes()
    place.start(*CONSOLE, "generate").succeeds()


def listened_on(pid: int) -> set[str]:
    """The addresses that a process and all below it listen on."""
    found = set()
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for each in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                there = [one for one in each.net_connections("inet") if one.status == "LISTEN"]
                found |= {one.laddr.ip.removeprefix("::ffff:") for one in there}
    return found


@pytest.mark.slow
def test_the_clock_is_set_back_under_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervisor's own account of a start, an hour from now, would let no runner count as ready,
    which must have asked for work since."""
    with tempfile.TemporaryDirectory(prefix="lr ") as folder:
        home = Path(folder).resolve() / "home"
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (WITNESS, ROOT))))
        monkeypatch.setenv("FAULTS_CLOCK", "3600")
        before, service = time.time(), standins.service(home, "first", free_port())
        try:
            standins.hold(home, [service], detach=True)
            account = Manager(home).call("getProcessInfo", "first")
            assert account["start"] > before + 3000
            started = Manager(home).states()["first"].started
            assert before - 5 < started <= time.time()
        finally:
            Manager(home).stop()


@dataclass(frozen=True)
class Served:
    """The servers of `up` in a place, and its Prefect's API."""

    place: Place
    api: httpx.Client

    def kill(self) -> None:
        """Prefect and MLflow, as the machine's memory runs out; they are started again."""
        states = Manager(self.place.home).states()
        for name in ("prefect", "mlflow"):
            psutil.Process(states[name].pid).kill()

    def is_training(self) -> bool:
        with contextlib.suppress(FileNotFoundError):  # a stage's work is being removed
            return any((self.place.home / "work").glob("**/checkpoint-*"))
        return False

    def forget(self) -> None:
        """The next run computes all again."""
        shutil.rmtree(self.place.home / "store")

    def begin(self) -> str:
        """A run of the deployment, by its form's API."""
        found = self.api.get("deployments/name/lightreasoner/pipeline").json()["id"]
        path, new = f"deployments/{found}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        return str(self.api.post(path, json=new).raise_for_status().json()["id"])

    def state(self, run: str) -> str:
        """A run's state; empty while the server is away."""
        with contextlib.suppress(httpx.HTTPError, KeyError):
            return str(self.api.get(f"flow_runs/{run}").json()["state"]["type"])
        return ""

    def end(self, run: str) -> str:
        """The state in which a run ends."""
        until(lambda: self.state(run) in ENDS, 600)
        return self.state(run)


ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture
def served(tiny_params: Params) -> Iterator[Served]:
    """`up`, for a pipeline that trains for a while; its folder is short, as sockets' paths are."""
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        yield from serve(Path(folder), tiny_params)


def serve(folder: Path, tiny_params: Params) -> Iterator[Served]:
    tree = tiny_params.model_dump(mode="json")
    tree["finetune"]["updates"] = 300
    place, port = Place(folder).make(config.parse(tree, "test")), free_port()
    ports = ("--prefect-port", str(port), "--mlflow-port", str(free_port()))
    place.start(*CONSOLE, "up", "--detach", *ports).succeeds()
    login = tuple(environment.login(place.home).split(":"))
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api", auth=login, timeout=60
        ) as client:
            yield Served(place, client)
    finally:
        place.start(*CONSOLE, "down").succeeds()
        assert place.is_left_alone(WITHIN), place.processes()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_both_servers_are_killed_under_a_run(served: Served) -> None:
    """It ends well, or in a line after which the next one does; MLflow has each run once."""
    place = served.place
    with ledger.trial("both servers killed", "run under up"):
        program = place.start(*CONSOLE, "run")
        until(served.is_training)
        served.kill()
        status = program.wait(600)
        print(place.said())
        assert status in (0, 2)
        assert "Traceback" not in place.said()
        until(lambda: local.running(place.home))
        place.start(*CONSOLE, "run").succeeds()
        check_runs(place.home, program_failed=status != 0)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_both_servers_are_killed_under_a_run_of_the_deployment(served: Served) -> None:
    with ledger.trial("both servers killed", "deployment"):
        run = served.begin()
        until(served.is_training)
        served.kill()
        end = served.end(run)
        print(end)
        assert served.end(served.begin()) == "COMPLETED"
        check_runs(served.place.home, program_failed=end != "COMPLETED")


def check_runs(home: Path, program_failed: bool) -> None:
    """MLflow has both pipelines: the disturbed one ended as it did, the next with all stages."""
    client = MlflowClient(environment.database(home))
    experiment = route.experiment_of(client)
    found = client.search_runs([experiment], "tags.kind = 'pipeline'", order_by=["start_time"])
    wanted = ["FAILED" if program_failed else "FINISHED", "FINISHED"]
    assert [run.info.status for run in found] == wanted
    last = f"tags.`mlflow.parentRunId` = '{found[-1].info.run_id}'"
    stages = client.search_runs([experiment], last)
    assert {run.info.run_name for run in stages} == {stage.name for stage in GRAPH}
    assert {run.info.status for run in stages} == {"FINISHED"}
    assert int(client.get_model_version_by_alias("tiny", "candidate").version) == 1
