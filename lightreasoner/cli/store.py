"""`lightreasoner store`: the results of the store, to and from a place that machines share."""

from collections.abc import Iterator
from typing import Annotated

import typer

from lightreasoner.cli.options import Home
from lightreasoner.errors import ConfigError
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage import outputs
from lightreasoner.storage.outputs import HOME
from lightreasoner.untrusted import listed, printable_line

Place = Annotated[
    str, typer.Argument(metavar="REMOTE", help="A directory, or a URL such as s3://bucket/store.")
]
Stages = Annotated[
    list[str] | None, typer.Argument(metavar="[STAGE]...", help="Only of these; all by default.")
]


def application() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        help="Share results with other machines.", no_args_is_help=True, rich_markup_mode=None
    )
    for command in (push, pull):
        app.command()(command)
    return app


def push(remote: Place, stages: Stages = None, home: Home = HOME) -> None:
    """Send results that REMOTE has not.

    A line per result. What is there stays as it is; what was cut short goes on. Exit status 1 if
    one could not be sent.

    Example: lightreasoner store push s3://bucket/store evaluate report
    """
    from lightreasoner.pipeline.remote import Remote

    _tell(Remote(remote).push(outputs.own(home), _known(stages)))


def pull(remote: Place, stages: Stages = None, home: Home = HOME) -> None:
    """Fetch results that the store has not.

    A line per result, which is taken when all its digests are right. Exit status 1 if one is not.

    Example: lightreasoner store pull s3://bucket/store evaluate report
    """
    from lightreasoner.pipeline.remote import Remote

    _tell(Remote(remote).pull(outputs.own(home), _known(stages)))


def _known(stages: list[str] | None) -> list[str]:
    """The stages by these names, with `-` or `_` in them. Raises ConfigError."""
    names = [name.replace("-", "_") for name in stages or STAGES]
    if unknown := [name for name in names if name not in STAGES]:
        raise ConfigError([f"no stage {listed(unknown)}; there are {', '.join(STAGES)}"])
    return names


def _tell(found: Iterator[tuple[str, bool]]) -> None:
    """Print a line for each result. Exit status 1 unless all are right."""
    results = []
    for line, is_there in found:
        typer.echo(printable_line(line))
        results.append(is_there)
    if not results:
        typer.echo("no results of these stages")
    if not all(results):
        raise typer.Exit(1)
