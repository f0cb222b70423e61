"""The process manager under `lightreasoner up`: Supervisor, spoken to over a socket under home.

    <home>/up/supervisord.conf   written anew at every start
    <home>/up/socket             mode 0700, in a folder of mode 0700
    <home>/logs/NAME.log         what a service prints, rotated; manager.log: who ended, and why

Supervisor starts, restarts and ends the processes. It knows neither health nor what outlives it:
up.py asks for the first, and every process carries MARK in its environment for the second, so that
what a killed manager leaves is found and nobody else's process can be hit.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from flows import environment
from lightreasoner.errors import LightReasonerError
from lightreasoner.storage import artifacts

MARK = "LIGHTREASONER_UP"
NAME = "SUPERVISOR_PROCESS_NAME"  # Supervisor's own variable
RETRIES = 3
STEADY_SECONDS = 60
"""A service that ends sooner than this after its start counts as failed; RETRIES more are made."""
STOP_SECONDS = 10
LOG_MEGABYTES = 5
SOCKET_BYTES = 95
"""macOS takes 103; Supervisor binds a name that is up to eight longer first."""

LAUNCHED = (sys.executable, "-m", "flows.servers.manager")
HEADER = "--- lightreasoner up, "
FACTORY = "supervisor.rpcinterface:make_main_rpcinterface"
STATES = {"STARTING": "running", "RUNNING": "running", "BACKOFF": "restarting", "FATAL": "fatal"}


class ServerError(LightReasonerError):
    """A server cannot be started, or has ended."""


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `ready` says whether it does its work; it gets its process's start (seconds since 1970).
    `needs` are the services that must be ready before it starts, `before` is called then.
    `option` is the command line's for the port in `address`; empty for who has no port of its own.
    """

    name: str
    address: str
    command: Sequence[str]
    ready: Callable[[float], bool]
    needs: Sequence[str] = ()
    before: Callable[[], None] = lambda: None
    option: str = ""


@dataclass(frozen=True)
class State:
    """What the manager says of a service: running, restarting, fatal or stopped."""

    word: str
    pid: int
    started: float


@dataclass(frozen=True)
class Manager:
    """The manager of one home; it may run, or not."""

    home: Path

    @property
    def folder(self) -> Path:
        """Where its configuration and its socket lie."""
        return self.home / "up"

    def log(self, name: str) -> Path:
        """A service's output, or the manager's own account ("manager")."""
        return self.home / "logs" / f"{name}.log"

    def tail(self, name: str, lines: int = 10) -> list[str]:
        """The last lines that a service printed since the last `up`, without blank ones."""
        try:
            text = self.log(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        _, found, text = text.rpartition(HEADER)
        printed = text.splitlines()[1 if found else 0 :]
        return [line.rstrip() for line in printed if line.strip()][-lines:]

    def start(self, services: Sequence[Service], variables: Mapping[str, str]) -> None:
        """Start the manager in the background, and no service yet. Raises ServerError."""
        configuration = self._configuration(services)
        for folder in (self.folder, self.log("manager").parent):
            environment.private(folder)
        for service in services:
            with self.log(service.name).open("a", encoding="utf-8") as file:
                file.write(f"{HEADER}{time.strftime('%F %T')}\n")
        path = self.folder / "supervisord.conf"
        artifacts.write_text(path, configuration)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)],
            env={**variables, MARK: self._mark()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or "nothing said").splitlines()[0]
            raise ServerError(f"the process manager did not start ({said}); see {path}")

    def begin(self, name: str) -> None:
        """Start one service. Raises ServerError if the manager is gone or cannot."""
        try:
            self._call("startProcess", name, False)
        except (OSError, HTTPException, Error) as error:
            raise ServerError(
                f"{name} was not started ({error}); see {self.log('manager')}"
            ) from error

    def states(self) -> dict[str, State]:
        """Every service's state by name; empty where the manager is gone or ending."""
        try:
            found = self._call("getAllProcessInfo")
        except (OSError, HTTPException, Error):
            return {}
        return {
            one["name"]: State(STATES.get(one["statename"], "stopped"), one["pid"], one["start"])
            for one in found
        }

    def pid(self) -> int | None:
        """The manager's process; None where it is gone or ending."""
        try:
            return int(self._call("getPID"))
        except (OSError, HTTPException, Error):
            return None

    def stop(self) -> bool:
        """End all, the last started first, and all that they left; whether there was anything."""
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(OSError, HTTPException, Error):
                self._call("shutdown")
            with contextlib.suppress(psutil.Error):  # TimeoutExpired, too: the rest is killed
                psutil.Process(pid).wait(4 * STOP_SECONDS)
        rest = self.left()
        _end(rest)
        return pid is not None or bool(rest)

    def left(self) -> list[psutil.Process]:
        """All processes of this home's `up`, by their environment, but this one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark() and process.pid != os.getpid():
                    found.append(process)
        return found

    def _mark(self) -> str:
        return str(self.home.resolve())

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.folder / 'socket'}")
        with ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _configuration(self, services: Sequence[Service]) -> str:
        os.umask(mask := os.umask(0))
        sections = [
            _section(
                "supervisord",
                logfile=self.log("manager"),
                logfile_maxbytes=f"{LOG_MEGABYTES}MB",
                logfile_backups=1,
                pidfile=self.folder / "supervisord.pid",
                childlogdir=self.log("manager").parent,
                nocleanup="true",
                umask=f"{mask:03o}",
            ),
            _section("unix_http_server", file=self._socket(), chmod="0700"),
            _section("rpcinterface:supervisor", **{"supervisor.rpcinterface_factory": FACTORY}),
        ]
        programs = [self._program(service, place) for place, service in enumerate(services)]
        return "".join(sections + programs)

    def _socket(self) -> Path:
        socket = self.folder / "socket"
        excess = len(os.fsencode(socket)) - SOCKET_BYTES
        if excess > 0:
            raise ServerError(
                f"{self.home} is {excess} bytes too long a path for the process manager's socket; "
                "set LIGHTREASONER_HOME to a shorter one"
            )
        return socket

    def _program(self, service: Service, place: int) -> str:
        return _section(
            f"program:{service.name}",
            command=shlex.join([*(LAUNCHED if service.option else ()), *service.command]),
            priority=place,
            autostart="false",
            autorestart="true",
            startsecs=STEADY_SECONDS,
            startretries=RETRIES,
            stopwaitsecs=STOP_SECONDS,
            stopasgroup="true",
            killasgroup="true",
            redirect_stderr="true",
            stdout_logfile=self.log(service.name),
            stdout_logfile_maxbytes=f"{LOG_MEGABYTES}MB",
            stdout_logfile_backups=2,
        )


def launch(command: Sequence[str]) -> None:
    """Become a service's program, after the end of what its last process left: its port is needed.

    Supervisor starts servers by this. The runner is not one of them: runs go on without it.
    """
    name = os.environ[NAME]
    _end([process for process in Manager(Path(os.environ[MARK])).left() if _is(process, name)])
    os.execv(command[0], list(command))


def _is(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return bool(process.environ().get(NAME) == name)
    return False


def holder(port: int) -> psutil.Process | None:
    """The process that listens on a port of this machine, where that may be known."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return process
    return None


def _end(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL for those that are there after STOP_SECONDS."""
    for number in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                getattr(process, number)()  # psutil makes sure that the pid is still this process's
        _, processes = psutil.wait_procs(processes, STOP_SECONDS)


def _section(name: str, **options: object) -> str:
    """A section of the manager's configuration. Raises ServerError for what has a meaning there."""
    for value in options.values():
        if re.search(r"%|\s[;#]|\n", str(value)):
            raise ServerError(
                f"the process manager cannot take {str(value)!r}, with its '%', ' ;' or ' #'; set "
                "LIGHTREASONER_HOME to a path without"
            )
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in options.items()), "", ""])


if __name__ == "__main__":
    launch(sys.argv[1:])
