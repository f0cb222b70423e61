"""Prefect's server of a run without servers: on the database under home, as long as the run takes.

It starts before Prefect is imported here, so that both load at the same time, and the run waits for
it only when its flow begins. Prefect would start one itself, but not before it has imported the
whole server into the run, too, which takes as long again.
"""

import atexit
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from flows import environment
from flows.servers import local
from flows.servers.manager import ServerError

STOP_SECONDS = 10


def start(home: Path) -> None:
    """Start the server and point Prefect at it; it ends with this process.

    Connections wait in its socket, which is open at once, until it can answer them. A terminal
    sends Ctrl-C, and the end of its connection, to every process of the run. The server would go
    first, and Prefect waits for minutes for one that is gone; so it inherits that both are blocked,
    and this process ends it when everything is done. If this one is killed, a pipe between both
    closes, and the server ends by itself.
    """
    (home / "logs").mkdir(parents=True, exist_ok=True)
    (home / "prefect").mkdir(exist_ok=True)  # Prefect makes no parent
    unheard = {signal.SIGINT, signal.SIGHUP}
    with socket.create_server((local.HOST, 0)) as door, log(home).open("ab") as file:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, unheard)
        try:
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.servers.own_prefect", str(door.fileno())],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                pass_fds=[door.fileno()],
            )
            atexit.register(_stop, server)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        environment.use_own_prefect(f"http://{local.HOST}:{door.getsockname()[1]}/api")


def wait(home: Path) -> None:
    """Return when the server answers.

    Raises ServerError if it ends or takes too long, DiskFullError if that is why.
    """
    api, seconds = environment.own_prefect()
    server = urlsplit(api)
    asking = HTTPConnection(server.netloc, timeout=seconds)
    try:
        asking.request("GET", f"{server.path}/health")
        asking.getresponse()
    except (OSError, HTTPException) as error:
        local.check_space(home)
        local.check_prefect_database(whole=True)
        raise ServerError(
            f"Prefect's server of this run did not start within {seconds:g} s ({error}); "
            f"{log(home)} says why"
        ) from error
    finally:
        asking.close()


def log(home: Path) -> Path:
    """Where the servers of runs put what goes wrong."""
    return home / "logs" / "own-prefect.log"


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    assert server.stdin is not None
    server.stdin.close()


def _end_with_the_run() -> None:
    """Wait for the end of the run, whose pipe is never written to, and have SIGTERM end this.

    It does not end a server that is starting on a database that is locked, for one.
    """
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def serve(door: socket.socket) -> None:
    """Answer who comes through this socket until SIGTERM."""
    gc.disable()  # what an import makes stays
    import uvicorn

    from flows.servers import doors

    app = doors.prefect(ephemeral=True)
    gc.freeze()
    gc.enable()
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on")).run(sockets=[door])


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_run, name="end with the run", daemon=True).start()
    serve(socket.socket(fileno=int(sys.argv[1])))
