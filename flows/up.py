"""`lightreasoner up`: Prefect's server, MLflow's server and the deployments' runner.

They run in the foreground on loopback, on the databases that `lightreasoner run` writes, and end
together. While they run, `<home>/servers.json` says where, and `run` uses them.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil
import typer

from flows import home
from lightreasoner import artifacts
from lightreasoner.config import Params
from lightreasoner.errors import LightReasonerError

HOST = "127.0.0.1"
START_SECONDS = 300.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.25
DEPLOYED = (
    "lightreasoner",
    "lightreasoner-compare",
    "lightreasoner-table1",
    "lightreasoner-sweep",
    "lightreasoner-evaluation",
)
"""The flows of flows/deployment.py, by name."""


class ServerError(LightReasonerError):
    """A server cannot be started."""


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and the process that holds them."""

    prefect: str
    mlflow: str
    pid: int

    def healthy(self) -> bool:
        """Whether both answer."""
        return _answers(f"{self.prefect}/api/health") and _answers(f"{self.mlflow}/health")


@dataclass(frozen=True)
class Service:
    """A process of ours and the file that it logs to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def running(where: Path) -> Servers | None:
    """The servers that `up` is running for this home, if they answer."""
    try:
        tree = json.loads((where / "servers.json").read_text(encoding="utf-8"))
        servers = Servers(**tree)
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    return servers if psutil.pid_exists(servers.pid) and servers.healthy() else None


def connect(where: Path) -> str:
    """Use the servers of this home if they run; one line that says where records go."""
    servers = running(where)
    if servers is not None:
        home.use_servers(f"{servers.prefect}/api", servers.mlflow)
    prefect = (home.prefect_api() or str(where / "prefect")).removesuffix("/api")
    return f"records: Prefect {prefect}, MLflow {home.tracking_uri(where)}"


def check_prefect() -> None:
    """Raise ServerError if PREFECT_API_URL names a server that does not answer at all."""
    api = home.prefect_api()
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


def serve(where: Path, params: Params, prefect_port: int, mlflow_port: int) -> None:
    """Run all three until Ctrl-C, SIGTERM or the end of one of them. Raises ServerError."""
    found = running(where)
    if found is not None:
        raise ServerError(f"already running: Prefect {found.prefect}, MLflow {found.mlflow}")
    _check_free(prefect_port, "--prefect-port")
    _check_free(mlflow_port, "--mlflow-port")
    servers = Servers(f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}", os.getpid())
    services: list[Service] = []
    try:
        with _ending_at_sigterm(), _announced(where, servers):
            _start(services, where, params, servers, (prefect_port, mlflow_port))
            _say(servers, where)
            while True:
                _check_alive(services)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        typer.echo("\nstopping")
    finally:
        _stop(services)


def _start(
    services: list[Service], where: Path, params: Params, servers: Servers, ports: tuple[int, int]
) -> None:
    """Start the servers, wait until they answer, then start the runner and wait for that."""
    environment = home.environment_with(f"{servers.prefect}/api", servers.mlflow)
    typer.echo("starting Prefect and MLflow (under a minute; the first time makes databases)")
    commands = {
        "prefect": ["prefect", "server", "start", "--host", HOST, "--port", str(ports[0])],
        "mlflow": ["mlflow", "server", "--host", HOST, "--port", str(ports[1]), *_mlflow(where)],
    }
    for name, command in commands.items():
        services.append(_launch(name, command, where, environment))
    _wait(services, [f"{servers.prefect}/api/health", f"{servers.mlflow}/health"])
    runner = ["flows.deployment", params.model_dump_json()]
    services.append(_launch("runner", runner, where, environment))
    deployments = f"{servers.prefect}/api/deployments/name"
    _wait(services, [f"{deployments}/{flow}/local" for flow in DEPLOYED])


def _mlflow(where: Path) -> list[str]:
    """MLflow's options: the database and the files that runs without a server use too.

    The database is made here: the server's processes break one that they make at the same time.
    """
    from tasks import tracking

    (where / "mlflow").mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{where / 'mlflow' / 'mlflow.db'}"
    tracking.make_database(database)
    return [
        "--backend-store-uri",
        database,
        "--artifacts-destination",
        str(where / "mlflow" / "artifacts"),
        "--serve-artifacts",
        "--workers",
        "1",
    ]


def _launch(name: str, module: Sequence[str], where: Path, environment: dict[str, str]) -> Service:
    """Start `python -m MODULE ...` as a session of its own, so that only we end it."""
    log = where / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(name, process, log)


def _wait(services: Sequence[Service], addresses: Sequence[str]) -> None:
    """Wait until every address answers. Raises ServerError at a process's end or the limit."""
    end = time.monotonic() + START_SECONDS
    for address in addresses:
        while not _answers(address):
            _check_alive(services)
            if time.monotonic() > end:
                raise ServerError(f"{address} does not answer after {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


def _check_alive(services: Sequence[Service]) -> None:
    for service in services:
        status = service.process.poll()
        if status is not None:
            text = service.log.read_text(encoding="utf-8", errors="replace").strip()
            last = text.splitlines()[-1] if text else "no output"
            raise ServerError(
                f"{service.name} ended with status {status} ({last}); see {service.log}"
            )


def _stop(services: Sequence[Service]) -> None:
    """End all, the last first, so that the runner can still tell Prefect what it cut short.

    Each gets SIGTERM with its children, and SIGKILL after STOP_SECONDS.
    """
    for service in reversed(services):
        _signal(service, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(STOP_SECONDS)
        _signal(service, signal.SIGKILL)
        service.process.wait()


def _signal(service: Service, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(service.process.pid, number)


@contextlib.contextmanager
def _announced(where: Path, servers: Servers) -> Iterator[None]:
    """Keep servers.json while the servers run; who reads it checks that they answer."""
    file = where / "servers.json"
    artifacts.write_text(file, json.dumps(asdict(servers)) + "\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _ending_at_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(servers: Servers, where: Path) -> None:
    typer.echo(
        f"Prefect  {servers.prefect}/deployments  (start a run of {' or '.join(DEPLOYED)})\n"
        f"MLflow   {servers.mlflow}\n"
        f"logs     {where / 'logs'}\n"
        "Ctrl-C stops all of them."
    )


def _check_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"port {port} on {HOST} is taken ({error.strerror}); end what uses it or give "
                f"another one with {option}"
            ) from error


def _answers(address: str) -> bool:
    """Whether an address answers with success within two seconds; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
