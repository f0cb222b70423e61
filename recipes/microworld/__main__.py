"""`python -m recipes.microworld train`: the embedded expert and amateur from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner.cli import last_door
from lightreasoner.cli.app import Commands, root_options
from lightreasoner.storage.fingerprint import git_commit
from lightreasoner.storage.outputs import HOME
from recipes.microworld import recipe


def train(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new directory for the two models.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of corpus and weights.")] = 0,
) -> None:
    """Train the embedded world's expert and amateur again from scratch (minutes).

    Example: make microworld OUT=my-models ARGS="--seed 1"
    """
    recipe.build(out, seed, commit=git_commit())
    typer.echo(f"{out}: expert, amateur")


def application() -> typer.Typer:
    """A command line of this one command."""
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback(invoke_without_command=False)(root_options)
    app.command()(train)
    return app


if __name__ == "__main__":
    last_door.through(lambda: application()(prog_name="python -m recipes.microworld"), lambda: HOME)
