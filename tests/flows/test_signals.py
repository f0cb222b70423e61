"""`lightreasoner run` without servers, ended by signals: nothing is left, the next goes on."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import standins
import yaml

from flows import environment
from lightreasoner.config import Params

CONSOLE = "from flows.cli.console import main; main()"
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture
def workspace(tmp_path: Path, tiny_params: Params) -> Path:
    """A folder with params.yaml of a pipeline that trains for minutes; the home is in it."""
    tree = tiny_params.model_dump(mode="json")
    tree["finetune"]["updates"] = 4000
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def start(workspace: Path) -> "subprocess.Popen[bytes]":
    """`lightreasoner run` in a process group of its own, as a terminal starts it."""
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environ.pop(name, None)
    environ |= {
        "LIGHTREASONER_HOME": str(workspace / "home"),
        "PREFECT_HOME": str(workspace / "home" / "prefect"),
    }
    with (workspace / "run.log").open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", CONSOLE, "run"],
            cwd=workspace,
            env=environ,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=standins.hear,
        )


def ours(workspace: Path) -> list[str]:
    """The command lines of all processes with this home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LIGHTREASONER_HOME") == str(workspace / "home"):
                found.append(" ".join(process.cmdline())[:200])
    return found


def checkpoints(workspace: Path, since: float = 0) -> list[int]:
    """The updates after which the fine-tuning in progress was saved; those saved since a time."""
    found = []
    for path in (workspace / "home" / "work").glob("**/checkpoint-*/trainer_state.json"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > since:
                found.append(int(path.parent.name.removeprefix("checkpoint-")))
    return found


def until(workspace: Path, process: "subprocess.Popen[bytes]", holds: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not holds():
        said = (workspace / "run.log").read_text(encoding="utf-8")
        assert process.poll() is None, said
        assert time.monotonic() < end, said
        time.sleep(0.1)


ENDS = {
    "terminated": (signal.SIGTERM, os.kill, 143, "CRASHED"),
    "terminal closed": (signal.SIGHUP, os.killpg, 129, "CRASHED"),
    "ctrl-c": (signal.SIGINT, os.killpg, 130, "CANCELLED"),
    "all terminated": (signal.SIGTERM, os.killpg, 143, None),  # Prefect's server among them
}


def newest(workspace: Path, database: str, query: str) -> str:
    """The newest row of a query in one of the home's databases."""
    with closing(sqlite3.connect(workspace / "home" / database)) as connection:
        ((found,),) = connection.execute(f"{query} DESC LIMIT 1").fetchall()
    return str(found)


def test_no_process_is_left_and_the_next_run_goes_on(workspace: Path) -> None:
    """Killed in training four ways, each time from the checkpoint of the time before.

    A terminal's Ctrl-C reaches every process of the run; measured 6 s until all had ended, with
    Prefect's own server among them 147 s.
    """
    for number, send, status, state in ENDS.values():
        before, began = max(checkpoints(workspace), default=0), time.time()
        process = start(workspace)
        until(workspace, process, lambda: checkpoints(workspace, began))  # noqa: B023
        assert min(checkpoints(workspace, began)) > before
        assert any("own_prefect" in line for line in ours(workspace))
        send(process.pid, number)
        assert process.wait(60) == status
        said = (workspace / "run.log").read_text(encoding="utf-8")
        assert not [line for line in said.splitlines() if line.startswith("error:")]
        assert ("interrupted; the same command goes on" in said) is (number == signal.SIGINT)
        assert (f"finetune: goes on at {before} of 4000 updates" in said) is (before > 0)
        runs = "SELECT status FROM runs ORDER BY start_time"
        assert newest(workspace, "mlflow/mlflow.db", runs) == "KILLED"
        states = "SELECT state_type FROM flow_run ORDER BY created"
        if state:
            assert newest(workspace, "prefect/prefect.db", states) == state
        assert ours(workspace) == []


def test_ctrl_c_while_prefect_starts(workspace: Path) -> None:
    process = start(workspace)
    until(workspace, process, lambda: any("own_prefect" in line for line in ours(workspace)))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert ours(workspace) == []
    assert "Traceback" not in (workspace / "run.log").read_text(encoding="utf-8")


def test_a_run_that_is_killed_leaves_no_server(workspace: Path) -> None:
    """SIGKILL, as of a machine without memory: nothing of the run's own is called."""
    process = start(workspace)
    until(workspace, process, lambda: any("own_prefect" in line for line in ours(workspace)))
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while ours(workspace):
        assert time.monotonic() < end, ours(workspace)
        time.sleep(0.1)
