"""No process of ours asks an outside host: the real thing, with the network cut off."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cut_network
import pytest
import yaml
from checkout import TESTS
from ports import free_port

from flows import environment
from lightreasoner.config import Params

CONSOLE = "from flows.cli.console import main; main()"
ASK = """
import socket
for address in (("192.0.2.1", 443), ("2001:db8::1", 443), ("127.0.0.1", 9)):
    try:
        socket.create_connection(address, timeout=5)
    except OSError:
        pass
try:
    socket.getaddrinfo("outside.example", 443)
except OSError:
    pass
"""
SESSION = """
import subprocess, sys, time
import httpx
from flows import environment
prefect, mlflow = sys.argv[1:]
def call(*arguments):
    done = subprocess.run([sys.executable, "-c", CONSOLE, *arguments])
    assert done.returncode == 0, arguments
CONSOLE = "from flows.cli.console import main; main()"
call("up", "--detach", "--prefect-port", prefect, "--mlflow-port", mlflow)
try:
    login = tuple(environment.login(environment.home()).split(":"))
    api = httpx.Client(base_url=f"http://127.0.0.1:{prefect}/api", auth=login, timeout=60)
    found = api.get("deployments/name/lightreasoner/pipeline").json()["id"]
    made = api.post(
        f"deployments/{found}/create_flow_run", json={"state": {"type": "SCHEDULED"}}
    ).json()["id"]
    state = "SCHEDULED"
    while state in ("SCHEDULED", "PENDING", "RUNNING"):
        time.sleep(1)
        state = api.get(f"flow_runs/{made}").json()["state"]["type"]
    assert state == "COMPLETED", state
    call("status")
finally:
    call("down")
"""


def can_cut() -> bool:
    """Whether this machine lets us have a network namespace with its routes."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    first = ["unshare", "-rn", "ip", *cut_network.ROUTES[0].split()]
    return subprocess.run(first, capture_output=True).returncode == 0


cut = pytest.mark.skipif(not can_cut(), reason="needs unshare, ip and the right to use them")


@pytest.fixture
def folder(tmp_path: Path, tiny_params: Params) -> Path:
    """A folder with params.yaml of a pipeline of seconds."""
    tree = tiny_params.model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def asked(folder: Path, *command: str) -> list[str]:
    """Run Python with the network cut; what it asked for outside. The command must succeed."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME"))}
    environ = {
        **kept,
        "PYTHONPATH": str(environment.ROOT),
        "LIGHTREASONER_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    report = folder / "asked.txt"
    cut_off = ["unshare", "-rn", sys.executable, str(TESTS / "cut_network.py"), str(report)]
    done = subprocess.run(
        [*cut_off, sys.executable, *command],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return report.read_text(encoding="utf-8").splitlines()


@cut
def test_who_asks_outside_is_seen(tmp_path: Path) -> None:
    found = asked(tmp_path, "-c", ASK)
    assert found[:2] == ["192.0.2.1 port 443", "2001:db8::1 port 443"]
    nameserver = "nameserver" in Path("/etc/resolv.conf").read_text(encoding="utf-8")
    assert not nameserver or any("outside.example" in line for line in found[2:])


@cut
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_run_asks_nobody(folder: Path) -> None:
    assert asked(folder, "-c", CONSOLE, "run") == []


@cut
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_up_and_a_run_by_its_api_ask_nobody(folder: Path) -> None:
    assert asked(folder, "-c", SESSION, str(free_port()), str(free_port())) == []
