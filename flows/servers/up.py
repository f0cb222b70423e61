"""`lightreasoner up`, `down`, `status`: the servers started in order, waited for, ended together.

Supervisor keeps the processes (manager.py); local.py says what they are and when they count as
ready.
"""

import contextlib
import errno
import fcntl
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from flows import environment
from flows.servers import local, manager
from flows.servers.local import DEPLOYED, HOST, Servers
from flows.servers.manager import Manager, ServerError, Service, State
from lightreasoner.config import Params

START_SECONDS = 300.0
POLL_SECONDS = 0.25


def serve(where: Path, params: Params, places: Servers, detach: bool) -> None:
    """Run the servers and the runner until Ctrl-C, or in the background. Raises ServerError."""
    hold(where, places, local.services(where, places, params.model_dump_json()), detach)


def hold(where: Path, places: Servers, services: Sequence[Service], detach: bool) -> None:
    """Start services in their order and wait until they are ready; then stay with them, or not.

    They end together: at Ctrl-C, SIGTERM, SIGHUP, `down`, or when one does not start or has ended
    for good, which raises ServerError. With `detach`, and once all are ready, they go on alone.
    """
    _check_ports(where, services)
    keeper = Manager(where)
    with _alone(keeper), contextlib.ExitStack() as at_the_end:
        if keeper.stop():
            typer.echo("ended what an earlier `up` had left")
        at_the_end.callback(down, where)
        try:
            with _interrupted_by_signals():
                local.announce(where, places)
                keeper.start(
                    services,
                    environment.environment_of_servers(where, places.prefect, places.mlflow),
                )
                _start(keeper, services)
                _say(places, where, detach)
                if not detach:
                    _follow(keeper)
                local.announce(where, replace(places, pid=keeper.pid() or 0))
                at_the_end.pop_all()
        except KeyboardInterrupt:
            typer.echo("\nstopping")
            if detach:
                raise ServerError("stopped before all were ready") from None
        except ServerError:
            if local.announced(where) is not None:
                raise
            typer.echo("stopped by `lightreasoner down`")


def down(where: Path) -> bool:
    """End all services of this home and wait for it; whether there were any."""
    local.withdraw(where)
    return Manager(where).stop()


def status(where: Path) -> bool:
    """Print how each service does; whether all are well."""
    places = local.announced(where)
    if places is None:
        typer.echo(f"nothing runs for {where}; `lightreasoner up` starts it")
        return False
    return show(Manager(where), local.services(where, places))


def show(keeper: Manager, services: Sequence[Service]) -> bool:
    """Print a line a service: state, process, address, log. Whether all run and are ready."""
    states = keeper.states()
    words = []
    for service in services:
        state = states.get(service.name, State("stopped", 0, 0.0))
        well = state.word != "running" or service.ready(state.started)
        words.append(state.word if well else "not ready")
        seconds = timedelta(seconds=int(time.time() - state.started))
        life = f"pid {state.pid}, up {seconds}" if state.pid else "-"
        line = f"{service.name:8} {words[-1]:10} {life:26} {service.address}"
        typer.echo(f"{line}  {keeper.log(service.name)}")
        if state.word == "fatal":
            typer.echo(f"         {' / '.join(keeper.tail(service.name, 3))}")
    if not states and keeper.left():
        typer.echo("the process manager is gone; `lightreasoner down` or `up` ends what it left")
    return all(word == "running" for word in words)


def _check_ports(where: Path, services: Sequence[Service]) -> None:
    """Raise ServerError if a port is taken by another process than this home's own."""
    for service in services:
        if service.option:
            _check_free(where, int(service.address.rpartition(":")[2]), service.option)


def _check_free(where: Path, port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            found = manager.holder(port)
            if found is not None and found in Manager(where).left():
                return
            taken = "is taken" if error.errno == errno.EADDRINUSE else "cannot be had"
            by = f" by {found.name()} (pid {found.pid})" if found else f" ({error.strerror})"
            raise ServerError(
                f"port {port} on {HOST} {taken}{by}; end what uses it or give another one with "
                f"{option}"
            ) from error


def _start(keeper: Manager, services: Sequence[Service]) -> None:
    """Start the services, each as soon as those that it needs are ready, and wait for all."""
    waiting = list(services)
    typer.echo("starting (under a minute; the first time makes databases)")
    for service in services:
        _wait(keeper, waiting, service.needs)
        service.before()
        keeper.begin(service.name)
    _wait(keeper, waiting, [service.name for service in services])


def _wait(keeper: Manager, waiting: list[Service], names: Sequence[str]) -> None:
    """Wait until those of `waiting` that are named are ready and strike them off it.

    Raises ServerError at START_SECONDS, and if one ends for good.
    """
    end = time.monotonic() + START_SECONDS
    with Console().status("") as line:
        while wanted := [service for service in waiting if service.name in names]:
            states = _states(keeper)
            waits = {one.name: f"{time.time() - states[one.name].started:.0f} s" for one in wanted}
            line.update("waiting for " + ", ".join(f"{name} {s}" for name, s in waits.items()))
            for one in wanted:
                if states[one.name].word == "running" and one.ready(states[one.name].started):
                    waiting.remove(one)
                    done = f"{one.name:8} ready after {waits[one.name]:>5}  {one.address}"
                    line.console.print(done, markup=False, highlight=False, soft_wrap=True)
            if time.monotonic() > end:
                raise ServerError(
                    f"not ready after {START_SECONDS:.0f} s: {', '.join(waits)}; see "
                    f"{keeper.log(wanted[0].name)}"
                )
            time.sleep(POLL_SECONDS)


def _follow(keeper: Manager) -> None:
    """Stay with the services and say which was started again. Raises ServerError at their end."""
    pids = {name: state.pid for name, state in _states(keeper).items()}
    while True:
        time.sleep(POLL_SECONDS)
        for name, state in _states(keeper).items():
            if state.pid not in (0, pids[name]):
                typer.echo(f"{name} had ended and was started again; see {keeper.log(name)}")
                pids[name] = state.pid


def _states(keeper: Manager) -> dict[str, State]:
    """All states. Raises ServerError if the manager is gone, or a service for good."""
    states = keeper.states()
    if not states:
        raise ServerError(f"the process manager has ended; see {keeper.log('manager')}")
    for name, state in states.items():
        if state.word == "fatal":
            lines = keeper.tail(name) or ["no output"]
            typer.echo("\n".join(f"{name} | {line}" for line in lines), err=True)
            raise ServerError(
                f"{name} ended {manager.RETRIES + 1} times within {manager.STEADY_SECONDS} s of "
                f"its start ({lines[-1]}); see {keeper.log(name)}"
            )
    return states


@contextlib.contextmanager
def _alone(keeper: Manager) -> Iterator[None]:
    """Keep out a second `up` on this home. Raises ServerError where there is one."""
    environment.make(keeper.home)
    environment.private(keeper.folder)
    with (keeper.folder / "lock").open("w") as file:
        places = local.announced(keeper.home)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already(places) from None
        if places is not None and places.pid == keeper.pid():
            raise _already(places)
        yield


def _already(places: Servers | None) -> ServerError:
    known = f": Prefect {places.prefect}, MLflow {places.mlflow}" if places else ""
    return ServerError(
        f"already running{known}; `lightreasoner status` says how they do, "
        "`lightreasoner down` stops them"
    )


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP of a terminal that is closed, as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    both = (signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(places: Servers, where: Path, detach: bool) -> None:
    typer.echo(
        f"Prefect  {places.prefect}/deployments  (start a run of {' or '.join(DEPLOYED)})\n"
        f"MLflow   {places.mlflow}\n"
        f"login    the line in {where / environment.LOGIN} is the password of Prefect's page\n"
        f"logs     {where / 'logs'}"
    )
    typer.echo(
        "`lightreasoner status` says how they do, `lightreasoner down` stops them."
        if detach
        else "Ctrl-C stops all of them."
    )
