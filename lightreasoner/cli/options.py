"""Options and names that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner.cli import completion
from lightreasoner.pipeline.graph import Stage

PIPELINE = "The pipeline"
SINGLE_STAGES = "Single stages"
EVALUATE = "Evaluate"
SAMPLE_SETS = "Sample sets"
MODELS = "Models"
STORE = "The store"
SERVERS = "Servers"
GROUPS = (PIPELINE, SINGLE_STAGES, EVALUATE, SAMPLE_SETS, MODELS, STORE, SERVERS)
"""The groups of commands in --help, in its order."""

ParamsFile = Annotated[
    Path, typer.Option("--params", metavar="FILE", help="The parameters, one section per stage.")
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
    Path, typer.Option("--home", metavar="DIR", help="The directory of the store of results.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead, and nothing else.")
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace everything at --out, whatever it is.")
]

OverwriteFile = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file that is there, whatever it is.")
]


def command_name(stage: Stage) -> str:
    """The name of a stage's command."""
    return stage.name.replace("_", "-")
