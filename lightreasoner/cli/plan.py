"""`lightreasoner plan`: what a run with these parameters will take, before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import config
from lightreasoner.cli.options import Home, Overrides, ParamsFile
from lightreasoner.cli.output import print_json
from lightreasoner.errors import ConfigError
from lightreasoner.formatting import print_table, rich_table
from lightreasoner.storage import digests, outputs
from lightreasoner.storage.outputs import HOME


def plan(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    home: Home = HOME,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this device's rates again (seconds).")
    ] = False,
    rate: Annotated[
        Path | None,
        typer.Option("--rate", metavar="FILE", help="Another device's rates, as --json prints."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for machines.")] = False,
) -> None:
    """Say what a run will take: tokens, FLOP, time, memory, disk.

    Fetches nothing and loads no weights. What is in the store already is shown as it was made.
    Times are estimates at rates that are measured once and kept under home. Exit status 2 if the
    memory or the disk certainly cannot suffice, as `run` itself would end at once.

    Example: lightreasoner plan --set finetune.updates=200
    """
    if measure and rate:
        raise ConfigError(["--measure, --rate: measure this device or give a file, not both"])
    values, folder = config.load(params, set_ or ()), outputs.own(home)
    digests.keep(folder)
    from lightreasoner.forecast import plan as forecast
    from lightreasoner.forecast import rates

    found = forecast.plan(values, folder, rates.read(rate) if rate else None, measure)
    if as_json:
        print_json(found.tree())
    else:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        work, time = forecast.work_rows(found), forecast.time_rows(found)
        print_table(rich_table(forecast.WORK, work, forecast.WORK[:2]), console)
        console.print()
        print_table(rich_table(forecast.TIME, time), console)
        console.print("", *forecast.lines(found), sep="\n")
    if found.refusal:
        raise found.refusal
