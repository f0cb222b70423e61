"""The console script `lightreasoner`: the pure commands, and those that need Prefect and MLflow.

Prefect, MLflow and torch are imported by the command that needs them, after the parameters are
known to be good.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import typer

from flows import environment
from flows.cli import init, models, pipelines, publish, runs, servers, store
from flows.dvc import program
from lightreasoner.cli import app as pure
from lightreasoner.cli import options
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage import digests


def main() -> None:
    """Run the command line; results go to the store under home, wherever it is called from."""
    home = environment.home()
    environment.prepare_environment(home)
    digests.keep(home)
    _end_in_order()
    if environment.is_stage_of_dvc():
        program.end_with_dvc()
    with_store = [*map(options.command_name, STAGES.values()), "pair", "plan"]
    own = {"home": str(home)}
    of_store = dict.fromkeys(("ls", "du", "show", "push", "pull"), own)
    given = {**dict.fromkeys(with_store, own), "store": of_store}
    application()(prog_name="lightreasoner", default_map=given)


def _end_in_order() -> None:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the process as an exception does.

    Otherwise it ends at once, and the Prefect server that a run started for itself stays.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def application() -> typer.Typer:
    """A new command line with all commands."""
    app = pure.application(samples_diff=publish.diff, store_gc=store.gc)
    groups: dict[str, tuple[Callable[..., None], ...]] = {
        options.PIPELINE: (
            init.init,
            pipelines.run,
            pipelines.compare,
            pipelines.sweep,
            pipelines.rounds,
            pipelines.table1,
            pipelines.controls,
        ),
        options.MODELS: (models.register, publish.publish, models.push),
        options.SERVERS: (servers.serve, servers.down, servers.status, servers.sync),
    }
    for group, commands in groups.items():
        for command in commands:
            name = "up" if command is servers.serve else None
            app.command(name, rich_help_panel=group)(command)
    app.add_typer(runs.application(), name="runs", rich_help_panel=options.PIPELINE)
    return app
