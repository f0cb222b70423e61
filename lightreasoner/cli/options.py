"""Options and names that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner.cli import completion
from lightreasoner.pipeline.graph import Stage

ParamsFile = Annotated[
    Path, typer.Option("--params", metavar="FILE", help="The parameters, one section a stage.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override one parameter; may be repeated.",
        autocompletion=completion.parameters,
    ),
]
Home = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="Where the store of results lies.")
]


def command_name(stage: Stage) -> str:
    """The name of a stage's command."""
    return stage.name.replace("_", "-")
