"""The process manager under `lightreasoner up`: Supervisor, spoken to over a socket under home.

    <home>/up/supervisord.conf   rewritten at every start
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Error, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from lightreasoner.errors import LightReasonerError
from lightreasoner.storage import artifacts

MARK = "LIGHTREASONER_UP"
NAME = "SUPERVISOR_PROCESS_NAME"  # Supervisor's own variable, in all processes but itself
RETRIES = 3
STEADY_SECONDS = 60
"""A service that ends sooner than this after its start counts as failed; RETRIES more are made."""
STOP_SECONDS = 10
LOG_MEGABYTES = 5
HOME_BYTES = 85
"""macOS takes 103 for a socket; Supervisor binds a name that is up to eight longer first."""
WORDS = {"STARTING": "running", "RUNNING": "running", "BACKOFF": "restarting", "FATAL": "fatal"}


class ServerError(LightReasonerError):
    """A server cannot be started, or has ended."""


@dataclass(frozen=True)
class Service:
    """A Python program to keep running, by its arguments.

    `ready` says whether it does its work; it gets its process's start (seconds since 1970).
    `port` is its own, given with --NAME-port; one without starts when those before it are ready.
    `before` is called before it starts.
    """

    name: str
    address: str
    arguments: Sequence[str]
    ready: Callable[[float], bool]
    port: int | None = None
    before: Callable[[], object] = lambda: None


class State(NamedTuple):
    """What the manager says of a service: running, restarting, fatal or stopped.

    `ended` is when its last process did, if there was one before (seconds since 1970).
    """

    word: str = "stopped"
    pid: int = 0
    started: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True)
class Manager:
    """The manager of one home; it may run, or not."""

    home: Path

    def start(
        self, name: str, services: Sequence[Service], variables: Mapping[str, str], lock: int = 0
    ) -> None:
        """Start the manager in the background, by this name, and no service yet.

        It keeps the file descriptor `lock` open as long as it lives. Raises ServerError.
        """
        home = str(self.home)
        if len(os.fsencode(home)) > HOME_BYTES or re.search(r"%|\s[;#]|\n", home):
            raise ServerError(
                f"LIGHTREASONER_HOME {home}: the process manager needs a path "
                f"of at most {HOME_BYTES} bytes without '%', ' ;' and ' #'; choose such a path"
            )
        programs = [_program(self, service, place) for place, service in enumerate(services)]
        path = self.home / "up" / "supervisord.conf"
        artifacts.write_text(path, "".join([_head(self, name), *programs]))
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)],
            env={**variables, MARK: self._mark()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=[lock] if lock else [],
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or "nothing said").splitlines()[0]
            raise ServerError(f"the process manager did not start ({said}); see {path}")

    def call(self, method: str, *arguments: object) -> Any:
        """What a method of Supervisor's XML-RPC answers; None where it is gone, or refuses."""
        transport = SupervisorTransport(None, None, f"unix://{self.home}/up/socket")
        try:
            with ServerProxy("http://localhost", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, HTTPException, Error):
            return None

    def states(self) -> dict[str, State]:
        """Every service's state by name; empty where the manager is gone or ending."""
        return {
            one["name"]: State(
                WORDS.get(one["statename"], "stopped"),
                one["pid"],
                _started(one["pid"]),
                one["stop"],
            )
            for one in self.call("getAllProcessInfo") or ()
        }

    def killed(self) -> bool:
        """Whether the manager, which has ended, did not do so in order."""
        return (self.home / "up" / "supervisord.pid").exists()

    def log(self, name: str) -> Path:
        """A service's output, or the manager's own account ("manager")."""
        return self.home / "logs" / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last three lines that a service printed, in one."""
        text, *_ = self.call("tailProcessStdoutLog", name, 0, 4096) or [""]
        return " / ".join(text.strip().splitlines()[-3:]) or "no output"

    def stop(self) -> bool:
        """End all, the last started first, and all that they left; whether there was anything."""
        found = self.left()
        _end((each for each in found if NAME not in _environment(each)), 4 * STOP_SECONDS)
        _end(self.left(), STOP_SECONDS)
        return bool(found)

    def left(self) -> list[psutil.Process]:
        """All processes of this home's `up`, by their environment, but this one."""
        others = (each for each in psutil.process_iter() if each.pid != os.getpid())
        return [each for each in others if _environment(each).get(MARK) == self._mark()]

    def _mark(self) -> str:
        return str(self.home.resolve())


def _head(manager: Manager, name: str) -> str:
    """Supervisor's configuration but for the programs."""
    os.umask(umask := os.umask(0))
    return f"""\
[supervisord]
identifier={name}
logfile={manager.log("manager")}
logfile_maxbytes={LOG_MEGABYTES}MB
logfile_backups=1
pidfile={manager.home}/up/supervisord.pid
nocleanup=true
umask={umask:03o}
[unix_http_server]
file={manager.home}/up/socket
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def _program(manager: Manager, service: Service, place: int) -> str:
    """A service in Supervisor's configuration."""
    launched = ["-m", __name__] if service.port else []
    return f"""\
[program:{service.name}]
command={shlex.join([sys.executable, *launched, *service.arguments])}
priority={place}
autostart=false
autorestart=true
startsecs={STEADY_SECONDS}
startretries={RETRIES}
stopwaitsecs={STOP_SECONDS}
stopasgroup=true
redirect_stderr=true
stdout_logfile={manager.log(service.name)}
stdout_logfile_maxbytes={LOG_MEGABYTES}MB
stdout_logfile_backups=2
"""


def launch(arguments: Sequence[str]) -> None:
    """Become a server's program, after the end of what its last process left: its port is needed.

    Supervisor starts servers by this. The runner is not one of them: runs go on without it.
    """
    left = Manager(Path(os.environ[MARK])).left()
    _end((each for each in left if _environment(each).get(NAME) == os.environ[NAME]), STOP_SECONDS)
    os.execv(sys.executable, [sys.executable, *arguments])


def _started(pid: int) -> float:
    """When a process started by the clock as it is now; Supervisor says it by the clock as it was
    then, and it may have been set back since."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time() if pid else 0.0
    return 0.0


def holder(port: int) -> str:
    """Who listens on a port of this machine; empty where that may not be known."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f"is taken by {psutil.Process(one.pid).name()} (pid {one.pid})"
    return ""


def _environment(process: psutil.Process) -> dict[str, str]:
    """A process's environment; empty where it is gone or another user's."""
    with contextlib.suppress(psutil.Error, OSError):
        return dict(process.environ())
    return {}


def _end(processes: Iterable[psutil.Process], seconds: float) -> None:
    """SIGTERM, and SIGKILL for those that are there after this many seconds."""
    waiting = list(processes)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in waiting:
            with contextlib.suppress(psutil.Error):
                end(process)  # psutil makes sure that the pid is still this process's
        _, waiting = psutil.wait_procs(waiting, seconds)


if __name__ == "__main__":
    launch(sys.argv[1:])
