"""Who is let in by what listens on this machine: a foreign page or another user, without the login,
against the servers as `up` starts them, and against the one that a run starts for itself.
"""

import base64
import contextlib
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psutil
import pytest
from checkout import ROOT
from ports import free_port
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from test_ui_browser import command, environ
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from flows import environment
from flows.servers import doors, local
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


HOSTILE = {
    "UVICORN_HOST": "0.0.0.0",
    "UVICORN_UDS": "/nowhere/socket",
    "MLFLOW_HOST": "0.0.0.0",
    "MLFLOW_UVICORN_OPTS": "--uds /nowhere/socket",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "PREFECT_SERVER_API_HOST": "0.0.0.0",
    "PREFECT_SERVER_API_AUTH_STRING": "",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "*",
}
"""Variables of a shell that would open the servers to other machines, pages or users."""


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


def test_only_the_mlflow_server_of_this_home_is_told_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, secret = environment.login(tmp_path).partition(":")
    for url, told in (("http://127.0.0.1:5001", None), ("http://127.0.0.1:5000", secret)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        environment.use_servers(tmp_path, "http://127.0.0.1:4200/api", "http://127.0.0.1:5000")
        assert os.environ.get("MLFLOW_TRACKING_PASSWORD") == told


def test_no_variable_of_the_shell_opens_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are not options of the servers, which `up` gives them."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    login = environment.login(tmp_path)
    ours = environment.environment_of_servers(tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:2")
    assert [name for name in ours if name.startswith(environment.OPENING)] == ["UVICORN_APP_DIR"]
    assert ours["PREFECT_SERVER_API_AUTH_STRING"] == login
    assert (
        ours["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:1,http://localhost:1"
    )
    assert f"{ours['MLFLOW_TRACKING_USERNAME']}:{ours['MLFLOW_TRACKING_PASSWORD']}" == login
    options = [
        f"{option} {value}"
        for service in local.services(tmp_path, local.at(tmp_path, 4200, 5000))[:2]
        for option, value in itertools.pairwise(service.arguments)
    ]
    assert options.count("--host 127.0.0.1") == 2


def basic(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


OURS, ADDRESS = basic("lightreasoner:secret"), "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (OURS, 200),
        ({**OURS, "Host": "localhost:5000"}, 200),
        ({**OURS, "Host": "localhost:8080"}, 200),  # by a tunnel of ssh
        ({**OURS, "Origin": ADDRESS}, 200),
        (basic("lightreasoner:wrong"), 401),
        (basic(":"), 401),
        (basic("lightreasoner:secret "), 401),
        ({"Authorization": "Bearer secret"}, 401),
        ({"Authorization": "Basic \xff"}, 401),
        ({**OURS, "Origin": EVIL}, 403),
        ({**OURS, "Origin": "null"}, 403),
        ({**OURS, "Origin": "http://127.0.0.1:5001"}, 403),  # another user's page, on this machine
        ({**OURS, "Origin": "http://localhost:5000"}, 403),
        ({**OURS, "Host": "evil.example:5000"}, 400),
        ({**OURS, "Host": "evil.example:5000", "Origin": "http://evil.example:5000"}, 400),
        ({**OURS, "Host": ""}, 400),
    ],
)
def test_only_the_login_and_the_servers_own_pages_are_let_in(
    headers: dict[str, str], status: int
) -> None:
    app = doors.by_name(doors.Login(PlainTextResponse("in"), "lightreasoner:secret"))
    client = TestClient(app, ADDRESS)
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    for method in ("GET", "POST"):
        answer = client.request(method, "/", headers=raw)
        assert answer.status_code == status
        assert (answer.text == "in") is (status == 200)
        assert answer.headers.get("www-authenticate", "").startswith("Basic") is (status == 401)


def test_health_needs_no_login() -> None:
    app = doors.by_name(doors.Login(PlainTextResponse("in"), "lightreasoner:secret"))
    assert TestClient(app, ADDRESS).get("/health").status_code == 200
    assert TestClient(app, ADDRESS).get("/healthy").status_code == 401


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
            status = 400 if "Host" in headers else 401
            assert answer.status_code == status, (who, method, path)
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
            start, env=environ(home) | HOSTILE, cwd=home.parent, check=True, capture_output=True
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
    path = "deployments/name/lightreasoner/pipeline"
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
def test_only_this_machine_can_connect(up: Path) -> None:
    """Whatever the shell of `up` had set."""
    servers = local.announced(up)
    assert servers is not None
    found = {
        (connection.laddr.ip, connection.laddr.port)
        for process in Manager(up).left()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip for ip, _ in found} == {"127.0.0.1"}
    ports = {int(address.rpartition(":")[2]) for address in (servers.prefect, servers.mlflow)}
    assert ports < {port for _, port in found}
    (runners,) = {port for _, port in found} - ports  # its runs show it a token each
    with socket.create_connection(("127.0.0.1", runners), timeout=30) as line:
        line.sendall(b"x" * 100 + b"\n")
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_another_name_opens_nothing_even_with_the_login(door: Door) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400 Bad Request"):
        door.ask("POST", "flows/count", json={}, headers={"Host": "evil.example:4200"})


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
    assert f"the line in {up / environment.LOGIN} is the password of Prefect's page; " in said


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
def test_mlflow_refuses_strangers_and_paths_that_lead_out(up: Path) -> None:
    """Its assistant among them, which runs programs for whoever asks on this machine."""
    servers = local.announced(up)
    assert servers is not None
    search = f"{servers.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    create = f"{servers.mlflow}/api/2.0/mlflow/experiments/create"
    assistant = f"{servers.mlflow}/ajax-api/3.0/mlflow/assistant/config"
    login = basic(environment.login(up))
    for page in (search, assistant, servers.mlflow):
        assert httpx.get(page).status_code == 401
        assert httpx.get(page, headers=login).status_code == 200
        assert httpx.get(page, headers={**login, "Host": "evil.example"}).status_code == 400
    for origin in (EVIL, "http://127.0.0.1:9", "null"):
        headers = {**login, "Origin": origin}
        assert httpx.post(create, headers=headers, json={"name": "x"}).status_code == 403
    assert httpx.post(create, json={"name": "x"}).status_code == 401
    assert httpx.post(create, headers=login, json={"name": "x"}).status_code == 200
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
        assert raw_status(servers.mlflow, path) == 401, path
        assert raw_status(servers.mlflow, path, login) == 400, path


def raw_status(address: str, path: str, headers: Mapping[str, str] = MappingProxyType({})) -> int:
    """The status of a path that no client has tidied up."""
    host = address.removeprefix("http://")
    given = {"Host": host, "Connection": "close", **headers}
    lines = [f"GET /{path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    with socket.create_connection(tuple(host.split(":"))) as line:  # type: ignore[arg-type]
        line.sendall("\r\n".join([*lines, "", ""]).encode())
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
