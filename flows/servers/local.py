"""Prefect's server, MLflow's server and the deployments' runner: where they are, how they run.

While `lightreasoner up` runs them, its process manager says where, and `run` uses them. They are on
loopback only, and on the databases that runs without a server write directly.
"""

import base64
import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path

from flows import environment
from flows.servers import databases
from flows.servers.manager import Manager, ServerError, Service
from lightreasoner.errors import DiskFullError
from lightreasoner.storage import artifacts

HOST = "127.0.0.1"
PREFECT_HEALTH, MLFLOW_HEALTH = "/api/health", "/health"
LEAST_FREE = 1 << 20
DEPLOYED = {
    "lightreasoner": "pipeline",
    "lightreasoner-compare": "comparison",
    "lightreasoner-table1": "table1",
    "lightreasoner-controls": "controls",
    "lightreasoner-sweep": "sweep",
    "lightreasoner-rounds": "rounds",
    "lightreasoner-evaluation": "evaluation",
}
"""What each flow does: it names its deployment, tags its runs, and is their kind in MLflow."""


@dataclass(frozen=True)
class Servers:
    """The addresses of the servers, and whose database MLflow's is: `home`'s or a `shared` one."""

    prefect: str
    mlflow: str
    database: str = "home"

    def __str__(self) -> str:
        return f"{self.prefect} {self.mlflow} {self.database}"


def at(home: Path, prefect_port: int, mlflow_port: int) -> Servers:
    """Servers on these ports. Raises ServerError if the ports are one."""
    if prefect_port == mlflow_port:
        raise ServerError(f"port {mlflow_port} is given to both servers; change --mlflow-port")
    is_own = environment.served_database(home) == environment.database(home)
    prefect, mlflow = (f"http://{HOST}:{port}" for port in (prefect_port, mlflow_port))
    return Servers(prefect, mlflow, "home" if is_own else "shared")


def announced(home: Path) -> Servers | None:
    """The servers that this home's `up` keeps running, which may be starting or failing."""
    addresses = Manager(home).call("getIdentification")
    return Servers(*addresses.split()) if addresses else None


def running(home: Path) -> Servers | None:
    """The servers that this home's `up` keeps running, if both answer."""
    servers = announced(home)
    if servers is None or not _answers(servers.prefect + PREFECT_HEALTH):
        return None
    return servers if _answers(servers.mlflow + MLFLOW_HEALTH) else None


def connect(home: Path) -> str:
    """Use the servers of this home if they run; one line that says where records go."""
    servers = running(home)
    if servers is not None:
        environment.use_servers(home, f"{servers.prefect}/api", servers.mlflow)
    elif environment.prefect_api() is None:
        environment.lock_own_prefect(home)
    api, mlflow = environment.prefect_api(), environment.tracking_uri(home)
    kept = environment.prefect_database()
    own = home / "prefect" if isinstance(kept, Path) else kept[0]  # its value may hold a password
    prefect = api.removesuffix("/api") if api else own
    hint = "" if api else "; no server runs, `lightreasoner up` shows them"
    return f"records: Prefect {prefect}, MLflow {mlflow}{hint}"


def pages(home: Path) -> str:
    """Where a browser finds the runs that `connect` sent somewhere; without a server, how to."""
    prefect = (environment.prefect_api() or "").removesuffix("/api")
    addresses = (prefect, environment.tracking_uri(home))
    return "  ".join(each for each in addresses if each.startswith("http")) or "lightreasoner up"


def track(home: Path) -> None:
    """Let MLflow's records go where `connect` says. Raises DatabaseError."""
    check_mlflow(home)
    from tasks.tracking import mlflow_runs

    mlflow_runs.configure(_records(home), home)


def look(home: Path) -> bool:
    """Let MLflow be read where `connect` says, and make nothing; whether anything is there.

    Raises DatabaseError.
    """
    check_mlflow(home)
    from tasks.tracking import mlflow_runs

    return mlflow_runs.look(_records(home), home)


def _records(home: Path) -> str:
    """The tracking URI.

    Where the server of this home's `up` serves the database under home, that is there whatever
    becomes of the server. One on a shared database gets copies, as a server elsewhere does.
    """
    uri, servers = environment.tracking_uri(home), announced(home)
    is_own = servers is not None and (servers.mlflow, servers.database) == (uri, "home")
    return environment.database(home) if is_own else uri


def check_prefect() -> None:
    """Raise ServerError if PREFECT_API_URL names a server that does not answer at all.

    Without one, raise DatabaseError if the database cannot be used.
    """
    api = environment.prefect_api()
    if api is None:
        check_prefect_database()
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


def check_prefect_database(whole: bool = False) -> None:
    """Raise DatabaseError if Prefect's database cannot be used; waits for a locked one.

    `whole` looks at all of a SQLite database under home.
    """
    found = environment.prefect_database()
    if isinstance(found, Path):
        databases.check(found, "Prefect's record of earlier runs", whole)
    else:
        databases.check_server(*found)


def check_mlflow(home: Path, uri: str = "") -> None:
    """As `check_prefect_database`, of a tracking URI's, by default that of `connect`.

    For a server elsewhere that is the database under home, from which it gets copies.
    """
    uri, own = uri or _records(home), environment.database(home)
    path = Path((uri if uri.startswith("sqlite:") else own).removeprefix("sqlite:///"))
    databases.check(path, "MLflow's runs and registered models")


def check_served(home: Path) -> None:
    """Raise DatabaseError if the database that MLflow's server is to keep cannot be used."""
    served = environment.served_database(home)
    check_mlflow(home, served)
    databases.check_server(environment.BACKEND, served)


def check_space(home: Path) -> None:
    """Raise DiskFullError if the databases under home cannot grow."""
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE:
        raise DiskFullError(
            f"{home}: {free:,} bytes are free, but the databases need {LEAST_FREE:,}; make room, "
            "then run again: what was finished is in the store"
        )


def services(home: Path, servers: Servers, form: str = "") -> list[Service]:
    """The three, in the order of their start; it needs `form`, the parameters as JSON."""
    parameters = home / "up" / "params.json"
    ports = [int(address.rpartition(":")[2]) for address in (servers.prefect, servers.mlflow)]
    prefect, mlflow = (["--host", HOST, "--port", str(port)] for port in ports)
    return [
        Service(
            "prefect",
            servers.prefect,
            [
                *["-m", "uvicorn", "--factory", "flows.servers.doors:prefect"],
                *["--log-level", "warning", *prefect],
            ],
            lambda _since: _answers(servers.prefect + PREFECT_HEALTH),
            ports[0],
            lambda: _leave_second_interface_out(home),
        ),
        Service(
            "mlflow",
            servers.mlflow,
            [
                *["-m", "mlflow", "server", "--app-name", "lightreasoner"],
                *["--workers", "1", "--serve-artifacts", *mlflow],
            ],
            lambda _since: _answers(servers.mlflow + MLFLOW_HEALTH),
            ports[1],
            lambda: _make_database(home),
        ),
        Service(
            "runner",
            f"{servers.prefect}/deployments",
            ["-m", "flows.deployments", str(parameters)],
            lambda since: _polled(servers.prefect, environment.login(home), since),
            before=lambda: artifacts.write_text(parameters, form),
        ),
    ]


def _leave_second_interface_out(home: Path) -> None:
    """Put a link to nowhere in the way of the pages of Prefect's second interface.

    PREFECT_SERVER_UI_V2_ENABLED=false makes the first one the default only: a button still leads to
    the second, which asks a host outside (Prefect 3.8). Where the server cannot copy the pages
    there, which its log says, it offers neither.
    """
    pages = environment.interfaces(home) / "v2"
    pages.parent.mkdir(parents=True, exist_ok=True)
    if not pages.is_symlink():
        pages.symlink_to("not-offered")


def _make_database(home: Path) -> None:
    """Make MLflow's database; the server's processes break one that they make at the same time."""
    from tasks.tracking import route

    route.make_database(environment.served_database(home))


def _answers(address: str) -> bool:
    """Whether an address answers with success within two seconds."""
    try:
        _get(address)
    except (OSError, HTTPException):
        return False
    return True


def addresses() -> list[str]:
    """The deployments as Prefect's client takes them: flow/deployment."""
    return [f"{flow}/{name}" for flow, name in DEPLOYED.items()]


def _polled(prefect: str, login: str, since: float) -> bool:
    """Whether the runner that started at `since` has asked each deployment for work."""
    pages = (f"{prefect}/api/deployments/name/{each}" for each in addresses())
    try:
        found = [json.loads(_get(page, login)) for page in pages]
    except (OSError, HTTPException, ValueError):
        return False
    polls = [one["last_polled"] for one in found if one["status"] == "READY"]
    times = [datetime.fromisoformat(poll).timestamp() for poll in polls if poll]
    return len(times) == len(DEPLOYED) and min(times) >= since


def _get(address: str, login: str = "") -> bytes:
    """What an address answers; no proxy is asked. Raises OSError, also for a refusal."""
    token = base64.b64encode(login.encode()).decode()
    known = {"Authorization": f"Basic {token}"} if login else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, headers=known), timeout=2) as response:
        return bytes(response.read())
