"""Who is let in by what listens on this machine: a foreign page or another user, without the login,
against the servers as `up` starts them, and against the one that a run starts for itself.
"""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkout import ROOT
from ports import free_port
from test_ui_browser import command, environ
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from flows import environment
from flows.servers import local
from flows.servers.manager import Manager
from lightreasoner.errors import ConfigError

EVIL = "http://evil.example"
OWN_SERVER = """
import os, sys
from pathlib import Path
from flows import environment
from flows.servers import local, own_prefect
home = Path(os.environ["LIGHTREASONER_HOME"])
environment.prepare_environment(home)
local.connect(home)
own_prefect.start(home)
own_prefect.wait(home)
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.read_flows()
    print(client.api_url, flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_login_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    """Also by eight that ask at once; in a home that others could enter until now."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    with ThreadPoolExecutor(8) as pool:
        (made,) = set(pool.map(environment.login, [home] * 8))
    user, _, secret = made.partition(":")
    assert user == "lightreasoner"
    assert len(secret) == 32
    assert environment.login(home) == made
    assert environment.login(tmp_path / "other") != made
    assert mode(home) == 0o700
    assert mode(home / environment.LOGIN) == 0o600


def test_a_folder_of_all_users_is_no_home(tmp_path: Path) -> None:
    """/tmp is one: there anybody may put a login of his own in place before ours."""
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match="all users may write there; use a folder of your own"):
        environment.login(tmp_path)
    assert mode(tmp_path) == 0o1777


def test_only_the_server_of_this_home_is_told_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = "http://127.0.0.1:4200/api", "http://127.0.0.1:4201/api"
    for url, auth, told in (
        (None, None, environment.login(tmp_path)),
        (ours, None, environment.login(tmp_path)),
        (ours, "me:of another server", environment.login(tmp_path)),
        (theirs, None, None),
        (theirs, "me:mine", "me:mine"),
    ):
        with monkeypatch.context() as shell:
            for name, value in (("PREFECT_API_URL", url), ("PREFECT_API_AUTH_STRING", auth)):
                shell.setenv(name, "")  # so that it is put back
                shell.delenv(name)
                if value is not None:
                    shell.setenv(name, value)
            shell.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
            environment.use_servers(tmp_path, ours, "http://127.0.0.1:5000")
            assert os.environ["PREFECT_API_URL"] == (url or ours)
            assert os.environ.get("PREFECT_API_AUTH_STRING") == told


class Door:
    """A Prefect server, and those who knock."""

    def __init__(self, address: str, login: str):
        self.address, self.login = address, tuple(login.split(":", 1))

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As our own clients ask."""
        answer = httpx.request(
            method, f"{self.address}/api/{path}", auth=self.login, timeout=30, **options
        )
        answer.raise_for_status()
        return answer

    def knock(self, method: str, path: str, headers: dict[str, str], body: Any) -> httpx.Response:
        """As a page of another site does, or whoever else."""
        return httpx.request(
            method,
            f"{self.address}/api/{path}",
            headers={"Origin": EVIL, **headers},
            content=json.dumps(body),
            timeout=30,
        )


STRANGERS: dict[str, dict[str, str]] = {
    "page": {"Content-Type": "application/json"},
    "page that needs no preflight": {"Content-Type": "text/plain"},
    "page that took over a name": {"Content-Type": "application/json", "Host": "evil.example:4200"},
    "page that says it is ours": {"Content-Type": "application/json", "Origin": "null"},
    "wrong secret": {"Authorization": "Basic bGlnaHRyZWFzb25lcjp3cm9uZw=="},  # lightreasoner:wrong
    "no secret": {"Authorization": "Basic Og=="},  # a colon
    "another scheme": {"Authorization": "Bearer lightreasoner"},
}


def refuses_strangers(door: Door, asked: list[tuple[str, str, Any]]) -> None:
    for method, path, body in asked:
        for who, headers in STRANGERS.items():
            answer = door.knock(method, path, headers, body)
            assert answer.status_code == 401, (who, method, path)
            assert "access-control-allow-origin" not in answer.headers, who
        wish = {"Access-Control-Request-Method": method, "Origin": EVIL}
        assert httpx.options(f"{door.address}/api/{path}", headers=wish).status_code == 400


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a cold `lightreasoner up`."""
    home = tmp_path_factory.mktemp("doors") / "home"
    options = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    start = command("up", "--detach", "--params", str(ROOT / "params.yaml"), *options)
    try:
        done = subprocess.run(
            start, env=environ(home), cwd=home.parent, check=True, capture_output=True
        )
        (home.parent / "said").write_bytes(done.stdout + done.stderr)
        yield home
    finally:
        subprocess.run(command("down"), env=environ(home), cwd=home.parent, check=True)


@pytest.fixture(scope="module")
def door(up: Path) -> Door:
    servers = local.announced(up)
    assert servers is not None
    return Door(servers.prefect, environment.login(up))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_foreign_page_runs_nothing(door: Door, tmp_path: Path) -> None:
    """What a page did while the door was open: a pull step that runs a shell, then a run."""
    made = tmp_path / "made by a page"
    path = "deployments/name/lightreasoner/local"
    deployment = door.ask("GET", path).json()
    shell = {"prefect.deployments.steps.run_shell_script": {"script": f"touch '{made}'"}}
    this = f"deployments/{deployment['id']}"
    refuses_strangers(
        door,
        [
            ("GET", path, {}),
            ("PATCH", this, {"pull_steps": [shell]}),
            ("POST", f"{this}/create_flow_run", {}),
            ("POST", "work_pools/", {"name": "evil", "type": "process"}),
            ("DELETE", this, {}),
        ],
    )
    assert door.ask("GET", path).json()["pull_steps"] == deployment["pull_steps"]
    assert door.ask("POST", "flow_runs/count", json={}).json() == 0
    assert not made.exists()
    # The same request opens with the login, so it is the lock that held.
    door.ask("PATCH", this, json={"pull_steps": deployment["pull_steps"]})
    for name in ("127.0.0.1", "localhost"):
        origin = door.address.replace("127.0.0.1", name)
        wish = {"Access-Control-Request-Method": "PATCH", "Origin": origin}
        assert httpx.options(f"{door.address}/api/{this}", headers=wish).status_code == 200


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_websocket_needs_the_login(door: Door) -> None:
    for path, words in (("events/in", {"token": "wrong"}), ("events/out", {}), ("logs/out", {})):
        address = f"{door.address.replace('http', 'ws')}/api/{path}"
        with connect(address, subprotocols=["prefect"], origin=EVIL, proxy=None) as opened:  # type: ignore[arg-type]
            opened.send(json.dumps({"type": "auth", **words}))
            with pytest.raises(ConnectionClosed):
                opened.recv(timeout=30)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_login_stands_in_its_file_alone(up: Path) -> None:
    """Neither in what is printed, logged or kept, nor in a command line, which all users read."""
    _, _, secret = environment.login(up).partition(":")
    assert [mode(up / name) for name in (".", "logs", "up")] == [0o700] * 3
    files = [file for file in up.parent.rglob("*") if file.is_file()]
    assert [file.name for file in files if secret.encode() in file.read_bytes()] == [
        environment.LOGIN
    ]
    processes = Manager(up).left()
    assert len(processes) >= 4
    assert not [each for each in processes if secret in " ".join(each.cmdline())]
    said = (up.parent / "said").read_text(encoding="utf-8")
    assert f"the line in {up / environment.LOGIN} is the password of Prefect's page" in said


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_our_own_clients_have_the_login(up: Path, door: Door) -> None:
    """`status` asks Prefect whether the runner polls; a server by another name is told nothing."""
    done = subprocess.run(command("status"), env=environ(up), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    address = door.address.replace("127.0.0.1", "localhost")
    shell = {**environ(up), "PREFECT_API_URL": f"{address}/api"}
    run = command("run", "--params", str(ROOT / "params.yaml"))
    done = subprocess.run(run, env=shell, cwd=up.parent, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: PREFECT_API_URL {address}/api: the server requires a login (401); set "
        "PREFECT_API_AUTH_STRING to its `user:secret`"
    )


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_mlflow_refuses_foreign_names_and_paths_that_lead_out(up: Path) -> None:
    servers = local.announced(up)
    assert servers is not None
    search = f"{servers.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    create = f"{servers.mlflow}/api/2.0/mlflow/experiments/create"
    assert httpx.get(search).status_code == 200
    assert httpx.get(search, headers={"Host": "evil.example"}).status_code == 403
    assert httpx.post(create, headers={"Origin": EVIL}, json={"name": "x"}).status_code == 403
    files = "2.0/mlflow-artifacts/artifacts"
    for path in (
        f"api/{files}/..%2f..%2fmlflow.db",
        f"api/{files}/%2e%2e/%2e%2e/mlflow.db",
        f"api/{files}/..%252f..%252fmlflow.db",
        f"ajax-api/{files}/..%2f..%2fmlflow.db",
        f"api/{files}/%2fetc/passwd",
        f"api/{files}?path=../..",
        "get-artifact?path=../../mlflow.db&run_uuid=x",
    ):
        assert raw_status(servers.mlflow, path) == 400, path


def raw_status(address: str, path: str) -> int:
    """The status of a path that no client has tidied up."""
    host = address.removeprefix("http://")
    with socket.create_connection(tuple(host.split(":"))) as line:  # type: ignore[arg-type]
        line.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(line.recv(100).split()[1])


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_server_of_a_run_of_its_own_is_locked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        [sys.executable, "-c", OWN_SERVER],
        env=environ(home),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        with contextlib.closing(process.stdin):  # type: ignore[type-var]
            address = process.stdout.readline().partition("/api")[0]
            door = Door(address, environment.login(home))
            asked = [("POST", "flow_runs/filter", {}), ("POST", "flows/", {"name": "evil"})]
            refuses_strangers(door, asked)
            assert door.ask("POST", "flows/count", json={}).json() == 0
