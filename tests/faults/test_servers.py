"""Runs, their own Prefect and servers killed: nothing stays, and what comes next succeeds."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ledger
import psutil
import pytest
from place import CONSOLE, Place

from flows.servers import databases, local, own_prefect
from lightreasoner.config import Params

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
    """On a database that is locked it starts for a minute, and hears SIGTERM only after that."""
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
        assert server.wait(WITHIN) == 1


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
        assert place.is_left_alone(15), place.processes()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_stage_with_several_workers_leaves_no_process(
    tmp_path: Path, tiny_params: Params
) -> None:
    """Ray's servers and workers, killed with the stage at six moments; all listen on loopback."""
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
    shutil.rmtree(place.home / "store" / "generate")
    for _ in range(6):
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
