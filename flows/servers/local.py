"""Prefect's server, MLflow's server and the deployments' runner: where they are, how they run.

While `lightreasoner up` runs them, `<home>/servers.json` says where, and `run` uses them. They are
on loopback only, and on the databases that runs without a server write directly.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path

import psutil

from flows import environment
from flows.servers.manager import ServerError, Service
from lightreasoner.errors import DiskFullError
from lightreasoner.storage import artifacts

HOST = "127.0.0.1"
LEAST_FREE = 1 << 20
DEPLOYED = (
    "lightreasoner",
    "lightreasoner-compare",
    "lightreasoner-table1",
    "lightreasoner-sweep",
    "lightreasoner-evaluation",
)
"""The flows of flows/deployments.py, by name."""


def at(prefect_port: int, mlflow_port: int) -> "Servers":
    """Servers on these ports, held by this process. Raises ServerError if the ports are one."""
    if prefect_port == mlflow_port:
        raise ServerError(f"port {mlflow_port} is given to both servers; change --mlflow-port")
    return Servers(f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}", os.getpid())


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and the process that holds them.

    That is `up` itself in the foreground and until all are ready, else the process manager.
    """

    prefect: str
    mlflow: str
    pid: int

    def healthy(self) -> bool:
        """Whether both answer."""
        return _answers(f"{self.prefect}/api/health") and _answers(f"{self.mlflow}/health")


def announced(where: Path) -> Servers | None:
    """What servers.json says; the servers may be gone."""
    try:
        return Servers(**json.loads((where / "servers.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
        return None


def running(where: Path) -> Servers | None:
    """The servers that `up` is running for this home, if they answer."""
    servers = announced(where)
    alive = servers is not None and psutil.pid_exists(servers.pid) and servers.healthy()
    return servers if alive else None


def connect(where: Path) -> str:
    """Use the servers of this home if they run; one line that says where records go."""
    servers = running(where)
    if servers is not None:
        environment.use_servers(where, f"{servers.prefect}/api", servers.mlflow)
    elif environment.prefect_api() is None:
        environment.lock_own_prefect(where)
    api, mlflow = environment.prefect_api(), environment.tracking_uri(where)
    prefect = api.removesuffix("/api") if api else str(where / "prefect")
    hint = "" if api else "; no server runs, `lightreasoner up` shows them"
    return f"records: Prefect {prefect}, MLflow {mlflow}{hint}"


def pages(where: Path) -> str:
    """Where a browser finds the runs that `connect` sent somewhere; without a server, how to."""
    addresses = [
        (environment.prefect_api() or "").removesuffix("/api"),
        environment.tracking_uri(where),
    ]
    return "  ".join(each for each in addresses if each.startswith("http")) or "make up"


def track(where: Path) -> None:
    """Let MLflow's records go where `connect` says.

    The server of this home's `up` serves the database under home; whatever becomes of it in
    mid-run, records go there.
    """
    from tasks.tracking import mlflow_runs

    mlflow_runs.configure(*_records(where))


def look(where: Path) -> bool:
    """Let MLflow be read where `connect` says, and make nothing; whether anything is there."""
    from tasks.tracking import mlflow_runs

    return mlflow_runs.look(*_records(where))


def _records(where: Path) -> tuple[str, Path, bool]:
    """The tracking URI, home, and whether the server there serves home's database."""
    uri, places = environment.tracking_uri(where), announced(where)
    return uri, where, places is not None and places.mlflow == uri


def check_prefect() -> None:
    """Raise ServerError if PREFECT_API_URL names a server that does not answer at all."""
    api = environment.prefect_api()
    if api is None:
        return
    try:
        urllib.request.urlopen(f"{api}/health", timeout=5).close()
    except urllib.error.HTTPError:
        return  # it answers; Prefect's client has the credentials
    except (OSError, ValueError) as error:
        raise ServerError(
            f"PREFECT_API_URL {api}: no answer ({error}); start that server, or unset the variable "
            "to run without one"
        ) from error


def start_own_prefect(where: Path) -> None:
    """Start Prefect's server of a run without servers; it ends with this process.

    A terminal sends Ctrl-C, and the end of its connection, to every process of the run. That
    server would go first, and Prefect waits for minutes for one that is gone. So it starts in a
    thread that blocks both, which it inherits; this process ends it when all is said.
    """
    if environment.prefect_api() is not None:
        return
    environment.wait_briefly_for_prefect()
    (where / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect makes no parent, and hangs
    from prefect.client.orchestration import get_client

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
        with contextlib.suppress(RuntimeError, AttributeError, OSError, HTTPException):
            get_client(sync_client=True)  # else the flow starts one, and says why it cannot

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join()


def check_space(where: Path) -> None:
    """Raise DiskFullError if the databases under home cannot grow."""
    free = shutil.disk_usage(where).free
    if free < LEAST_FREE:
        raise DiskFullError(
            f"{where}: {free:,} bytes are free, and the databases need {LEAST_FREE:,}; make room, "
            "then run again: what was finished is in the store"
        )


def announce(where: Path, servers: Servers) -> None:
    """Write servers.json; who reads it checks that they answer."""
    artifacts.write_text(where / "servers.json", json.dumps(asdict(servers)) + "\n")


def withdraw(where: Path) -> None:
    """Remove servers.json."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (where / "servers.json").unlink()


def services(where: Path, servers: Servers, form: str = "") -> list[Service]:
    """The three, in the order of their start; it needs `form`, the parameters as JSON."""
    parameters = where / "up" / "params.json"
    ports = [address.rpartition(":")[2] for address in (servers.prefect, servers.mlflow)]
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    tracking = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", ports[1]]
    return [
        Service(
            "prefect",
            servers.prefect,
            [*server, "--port", ports[0]],
            lambda _since: _answers(f"{servers.prefect}/api/health"),
            before=lambda: _leave_second_interface_out(where),
            option="--prefect-port",
        ),
        Service(
            "mlflow",
            servers.mlflow,
            [*tracking, *_mlflow(where)],
            lambda _since: _answers(f"{servers.mlflow}/health"),
            before=lambda: _make_database(where),
            option="--mlflow-port",
        ),
        Service(
            "runner",
            f"{servers.prefect}/deployments",
            [sys.executable, "-m", "flows.deployments", str(parameters)],
            lambda since: all(
                _polled(servers.prefect, environment.login(where), flow, since) for flow in DEPLOYED
            ),
            needs=("prefect", "mlflow"),
            before=lambda: artifacts.write_text(parameters, form),
        ),
    ]


def _leave_second_interface_out(where: Path) -> None:
    """Put a link to nowhere in the way of the pages of Prefect's second interface.

    PREFECT_SERVER_UI_V2_ENABLED=false makes the first one the default only: a button still leads to
    the second, which asks a host outside (Prefect 3.8). Where the server cannot copy the pages
    there, which its log says, it offers neither.
    """
    pages = environment.interfaces(where) / "v2"
    pages.parent.mkdir(parents=True, exist_ok=True)
    if not pages.is_symlink():
        pages.symlink_to("not-offered")


def _mlflow(where: Path) -> list[str]:
    """MLflow's options: the database and the files that runs without a server use too."""
    return [
        "--backend-store-uri",
        environment.database(where),
        "--artifacts-destination",
        str(where / "mlflow" / "artifacts"),
        "--serve-artifacts",
        "--workers",
        "1",
    ]


def _make_database(where: Path) -> None:
    """Make MLflow's database; the server's processes break one that they make at the same time."""
    from tasks.tracking import route

    (where / "mlflow").mkdir(parents=True, exist_ok=True)
    route.make_database(environment.database(where))


def _polled(prefect: str, login: str, flow: str, since: float) -> bool:
    """Whether the runner that started at `since` has asked this flow's deployment for work."""
    try:
        found = json.loads(_get(f"{prefect}/api/deployments/name/{flow}/local", login))
    except (OSError, HTTPException, ValueError):
        return False
    last = found["last_polled"]
    recent = last is not None and datetime.fromisoformat(last).timestamp() >= since
    return recent and found["status"] == "READY"


def _answers(address: str) -> bool:
    """Whether an address answers with success within two seconds."""
    try:
        _get(address)
    except (OSError, HTTPException):
        return False
    return True


def _get(address: str, login: str = "") -> bytes:
    """What an address answers; no proxy is asked. Raises OSError, also for a refusal."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    if login:
        token = base64.b64encode(login.encode()).decode()
        opener.addheaders = [("Authorization", f"Basic {token}")]
    with opener.open(address, timeout=2) as response:
        return bytes(response.read())
