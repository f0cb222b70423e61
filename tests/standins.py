"""Services for the tests of `up`, and `up` with them as a process of its own.

python standins.py HOME SERVICES        SERVICES is a JSON list of [name, port, delay, life]
"""

import json
import signal
import sys
import urllib.request
from pathlib import Path

from flows.cli import app
from flows.servers import up
from flows.servers.local import Servers
from flows.servers.manager import Manager, ServerError, Service

SERVER = str(Path(__file__).with_name("standin_server.py"))


def answers(port: int) -> bool:
    """Whether a server is there."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
    except OSError:
        return False
    return True


def service(home: Path, name: str, port: int, delay: float = 0, life: float = 0) -> Service:
    """A stand-in. "last" needs the others, as the runner does, which has no port of its own."""
    arguments = [SERVER, str(port), name, str(home / "order.txt"), str(delay), str(life)]
    return Service(
        name,
        f"http://127.0.0.1:{port}",
        arguments,
        lambda _since: answers(port),
        None if name == "last" else port,
    )


def hold(home: Path, services: list[Service], detach: bool) -> None:
    """`up` with these services."""
    servers = Servers(services[0].address, services[-1].address)
    up.hold(home, servers, services, detach)


def state(home: Path, services: list[Service]) -> bool:
    """`status` of these services."""
    return up.show(Manager(home), services)


def hear() -> None:
    """In a new process: be ended by Ctrl-C and a closed terminal, whatever the tests' own shell,
    in the background or under nohup, has its children ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def main(folder: str, rows: str) -> None:
    """`up` in the foreground; an error ends it as the command line has it."""
    home = Path(folder)
    app._end_in_order()
    try:
        hold(home, [service(home, *row) for row in json.loads(rows)], detach=False)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
