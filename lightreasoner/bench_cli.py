"""`lightreasoner bench`: how fast sampling is on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import artifacts, config
from lightreasoner.cli import Overrides, ParamsFile
from lightreasoner.progress import TerminalBar
from lightreasoner.stages import external_inputs, resolved

RESULT = Path("benchmarks/results/sampling.json")


def application() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        help="Benchmarks, each against what this machine can do.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.callback()(lambda: None)
    app.command()(sampling)
    return app


def sampling(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    naive: Annotated[
        int, typer.Option(min=0, help="Problems that are also scored one prefix at a time.")
    ] = 2,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the figures go.")
    ] = RESULT,
) -> None:
    """Measure generate and score on the models and problems of the parameters.

    Beside them, in the same process: the machine's matrix-product rate, its reading rate, and the
    naive way, which runs both models anew on every prefix.

    Example: lightreasoner bench sampling --set prepare.n_problems=64
    """
    values = config.load(params, set_ or ())
    inputs = external_inputs(values, ("expert", "amateur", "problem_source"))
    from lightreasoner import bench, problems

    source = values.prepare
    drawn = problems.read_source(
        source.source, source.problem_set, "train", source.n_problems, source.seed
    )
    with TerminalBar("bench") as bar:
        found = bench.sampling(
            inputs["expert"],
            inputs["amateur"],
            drawn,
            values.generate,
            resolved(values.compute),
            naive,
            bar,
        )
    artifacts.write_text(out, json.dumps(found, indent=1) + "\n")
    for line in bench.summary(found):
        typer.echo(line)
    typer.echo(f"{out}")
