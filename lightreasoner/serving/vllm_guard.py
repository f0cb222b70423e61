"""Runs a server until its caller is gone, then ends it with all its processes.

    python -m lightreasoner.serving.vllm_guard     a JSON line on stdin: the command, its
                                                   environment, its log and its folder,
                                                   which goes with it

The caller holds the other end of stdin: it closes with the caller, however that ends. vLLM's
processes start others, some in sessions of their own; the orphans among them become this one's
(Linux), so that none outlives it. Exits with the server's status.
"""

import contextlib
import ctypes
import json
import select
import shutil
import subprocess
import sys

import psutil

SUBREAPER = 36
"""prctl's PR_SET_CHILD_SUBREAPER."""

DEATH_SIGNAL, KILL = 1, 9
"""prctl's PR_SET_PDEATHSIG, and the signal: should this process be killed itself."""

GRACE = 10.0
"""Seconds for the server to end by itself."""

LOOK = 200
"""Milliseconds between two looks at the server."""


def main() -> None:
    """Run the command of stdin's first line until the server ends or stdin does."""
    command, environment, log, folder = json.loads(sys.stdin.buffer.readline())
    system = ctypes.CDLL(None)
    is_linux = sys.platform == "linux"
    if is_linux:
        system.prctl(SUBREAPER, 1, 0, 0, 0)
    with open(log, "ab") as output:  # noqa: PTH123, a path as text
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            preexec_fn=(lambda: system.prctl(DEATH_SIGNAL, KILL, 0, 0, 0)) if is_linux else None,
        )
    closed = select.poll()
    closed.register(sys.stdin, select.POLLHUP)
    while server.poll() is None and not closed.poll(LOOK):
        pass
    end(server)
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(server.returncode)


def end(server: "subprocess.Popen[bytes]") -> None:
    """Ask the server to end, then kill all that is left below this process."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(GRACE)
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was reaped since
                process.kill()
        psutil.wait_procs(left, timeout=1)


if __name__ == "__main__":
    main()
