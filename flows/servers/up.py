"""`lightreasoner up`, `down`, `status`: the servers started in order, waited for, ended together.

Supervisor keeps the processes (manager.py); local.py says what they are and when they count as
ready.
"""

import contextlib
import fcntl
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import typer

from flows import environment
from flows.servers import local, manager
from flows.servers.local import HOST, Servers
from flows.servers.manager import Manager, ServerError, Service, State
from lightreasoner.config import Params
from lightreasoner.untrusted import printable_line

START_SECONDS = 300.0
POLL_SECONDS = 0.25


class _DownError(ServerError):
    """The services were ended by `down`."""


def serve(home: Path, params: Params, servers: Servers, detach: bool) -> None:
    """Run the servers and the runner until Ctrl-C, or in the background. Raises ServerError."""
    hold(home, servers, local.services(home, servers, params.model_dump_json()), detach)


def hold(home: Path, servers: Servers, services: Sequence[Service], detach: bool) -> None:
    """Start services in their order and wait until they are ready; then stay with them, or not.

    They end together: at Ctrl-C, SIGTERM, SIGHUP, `down`, or when one does not start or has ended
    for good, which raises ServerError. With `detach`, and once all are ready, they go on alone.
    """
    keeper = Manager(home)
    with _locked(home) as lock, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(keeper.stop)
        if keeper.stop():
            typer.echo("ended what an earlier `up` left behind")
        for service in services:
            if service.port:
                _check_free(service.port, f"--{service.name}-port")
        variables = environment.environment_of_servers(home, servers.prefect, servers.mlflow)
        try:
            keeper.start(str(servers), services, variables, lock if detach else 0)
            ready = _start(keeper, services)
            _print_addresses(servers, home, detach)
            if not detach:
                _follow(keeper, services, ready, forever=True)
            at_the_end.pop_all()
        except _DownError:
            typer.echo("stopped by `lightreasoner down`")
        except (KeyboardInterrupt, SystemExit):  # flows/cli/app.py makes the second of signals
            typer.echo("\nstopping")
            if detach:
                raise ServerError("stopped before all were ready") from None


def down(home: Path) -> bool:
    """End all services of this home and wait for it; whether there were any."""
    return Manager(home).stop()


def status(home: Path) -> bool:
    """Print whether each service is up; whether all are."""
    servers = local.announced(home)
    if servers is not None:
        return show(Manager(home), local.services(home, servers))
    typer.echo(
        "the process manager is gone; `lightreasoner down` or `up` ends what it left behind"
        if Manager(home).left()
        else f"nothing is running for {home}; `lightreasoner up` starts it"
    )
    return False


def show(keeper: Manager, services: Sequence[Service]) -> bool:
    """Print a line per service: state, process, address, log. Whether all run and are ready."""
    states, words = keeper.states(), []
    for service in services:
        state = states.get(service.name, State())
        if state.word == "running" and not service.ready(state.started):
            state = state._replace(word="not ready")
        typer.echo(_line(keeper, service, state))
        if state.ended and state.pid:
            when = datetime.fromtimestamp(state.ended).isoformat(" ", "seconds")
            typer.echo(f"         ended at {when}, started again; {keeper.log('manager')} says how")
        if state.word == "fatal":
            typer.echo(f"         {printable_line(keeper.tail(service.name))}")
        words.append(state.word)
    return all(word == "running" for word in words)


def _line(keeper: Manager, service: Service, state: State) -> str:
    seconds = timedelta(seconds=int(time.time() - state.started))
    life = f"pid {state.pid}, up {seconds}" if state.pid else "-"
    log = keeper.log(service.name)
    return f"{service.name:8} {state.word:10} {life:26} {service.address}  {log}"


def _check_free(port: int, option: str) -> None:
    """Raise ServerError if a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = manager.holder(port) or f"cannot be used ({error.strerror})"
            raise ServerError(
                f"port {port} on {HOST} {why}; end what uses it or give another one with {option}"
            ) from error


def _start(keeper: Manager, services: Sequence[Service]) -> dict[str, int]:
    """Start the services, one without a port when all before it are ready; their processes."""
    typer.echo("starting (under a minute; the first time also creates databases)")
    ready: dict[str, int] = {}
    for count, service in enumerate(services):
        if service.port is None:
            _follow(keeper, services[:count], ready)
        service.before()
        keeper.call("startProcess", service.name, False)
    _follow(keeper, services, ready)
    return ready


def _follow(
    keeper: Manager, services: Sequence[Service], ready: dict[str, int], forever: bool = False
) -> None:
    """Print who gets ready, again after a restart, and note its process; until all are, or forever.

    Raises ServerError if not all are after START_SECONDS, or the manager or one of them has ended
    for good, and _DownError after `down`.
    """
    end = time.monotonic() + START_SECONDS
    while waiting := [each for each in services if forever or each.name not in ready]:
        states = keeper.states()
        if not states:
            raise _ended(keeper)
        for one in services:
            word, pid, started, _ = states[one.name]
            if word == "fatal":
                raise ServerError(
                    f"{one.name} ended {manager.RETRIES + 1} times within {manager.STEADY_SECONDS} "
                    f"s of its start ({keeper.tail(one.name)}); see {keeper.log(one.name)}"
                )
            if word == "running" and ready.get(one.name) != pid and one.ready(started):
                word = "restarted" if one.name in ready else "ready"
                typer.echo(_line(keeper, one, State(word, pid, started)))
                ready[one.name] = pid
        if not forever and time.monotonic() > end:
            names = ", ".join(one.name for one in waiting)
            log = keeper.log(waiting[0].name)
            raise ServerError(f"not ready after {START_SECONDS:.0f} s: {names}; see {log}")
        time.sleep(POLL_SECONDS)


def _ended(keeper: Manager) -> ServerError:
    keeper.stop()
    known = f"the process manager has ended; see {keeper.log('manager')}"
    return ServerError(known) if keeper.killed() else _DownError()


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[int]:
    """Lock out a second `up` on this home for as long as this file is open somewhere.

    Raises ServerError where there is one.
    """
    environment.make(home)
    for name in ("up", "logs"):
        environment.private(home / name)
    with (home / "up" / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            servers = local.announced(home)
            known = f": Prefect {servers.prefect}, MLflow {servers.mlflow}" if servers else ""
            raise ServerError(
                f"already running{known}; `lightreasoner status` shows whether they are up, "
                "`lightreasoner down` stops them"
            ) from None
        yield file.fileno()


def _print_addresses(servers: Servers, home: Path, detach: bool) -> None:
    deployed = " or ".join(local.addresses())
    typer.echo(
        f"Prefect  {servers.prefect}/deployments  (start a run of {deployed})\n"
        f"MLflow   {servers.mlflow}\n"
        f"login    the line in {home / environment.LOGIN} is the password of Prefect's page; for "
        "MLflow's, its user and password, with a colon between them\n"
        f"logs     {home / 'logs'}"
    )
    typer.echo(
        "`lightreasoner status` shows whether they are up, `lightreasoner down` stops them."
        if detach
        else "Ctrl-C stops all of them."
    )
