"""The commands for servers: start, stop and look at those of `up`, send to one elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from flows import environment
from flows.results import records
from flows.servers import local, up
from lightreasoner import config
from lightreasoner.cli.options import Overrides, ParamsFile
from lightreasoner.errors import ConfigError
from lightreasoner.untrusted import printable_line

Port = Annotated[int, typer.Option(min=1, max=65535)]


def serve(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all are ready; they keep running.")
    ] = False,
) -> None:
    """Serve Prefect, MLflow and the deployments until Ctrl-C.

    The deployments' forms start with the parameters as they are now. Only this machine can
    connect; the databases are those that `lightreasoner run` writes to. A server that ends is
    restarted a few times.

    Example: lightreasoner up --prefect-port 4201
    """
    values = config.load(params, set_ or ())
    local.check_prefect_database()
    home = environment.home()
    local.check_served(home)
    up.serve(home, values, local.at(home, prefect_port, mlflow_port), detach)


def down() -> None:
    """Stop what `lightreasoner up` runs.

    It may have been started in any terminal; waits until everything has ended.

    Example: lightreasoner down
    """
    home = environment.home()
    stopped = up.down(home)
    typer.echo("all stopped" if stopped else f"nothing was running for {home}")


def status() -> None:
    """Show whether Prefect, MLflow and the runner are up.

    Exit status 1 unless all are.

    Example: lightreasoner status
    """
    if not up.status(environment.home()):
        raise typer.Exit(1)


def sync(
    run: Annotated[str | None, typer.Argument(help="A run's name or id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All runs that a server lacks.")] = False,
) -> None:
    """Send an MLflow server what it missed while it was away.

    Only a server elsewhere (MLFLOW_TRACKING_URI) needs this; that of `lightreasoner up` misses
    nothing. What was sent is not sent again. Exit status 1 if a server is still away.

    Example: lightreasoner sync --all
    """
    if (run is None) != all_:
        raise ConfigError(["sync: name one run, by name or id, or give --all"])
    home = environment.home()
    local.check_mlflow(home, environment.database(home))
    local.connect(home)  # that server's login, where `up` keeps a shared database
    from tasks.tracking import sync

    lines, is_done = sync.send_all(home, records.names(home, run) if run else ())
    typer.echo("\n".join(map(printable_line, lines)) or f"nothing is waiting under {home}")
    if not is_done:
        raise typer.Exit(1)
