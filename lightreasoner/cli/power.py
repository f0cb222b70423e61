"""`lightreasoner power`: how many problems show a gain, and what a problem set can show."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import config
from lightreasoner.cli import output
from lightreasoner.cli.options import AsJson, Overrides, ParamsFile
from lightreasoner.config import SMALLEST_GAIN
from lightreasoner.errors import ConfigError
from lightreasoner.evaluation import power as planned
from lightreasoner.formatting import print_table, rich_table
from lightreasoner.statistics import CHANGED


def power(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    gain: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="The gain to show. Default: register.gain_to_show."),
    ] = None,
    changed: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of problems that change.")
    ] = CHANGED,
    benchmarks: Annotated[
        bool, typer.Option("--benchmarks", help="Known test sets, whole; not the parameters' sets.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how many problems show a gain, before evaluating.

    McNemar's two-sided test at 5%, base and tuned model on the same problems. Then the smallest
    gain that each of evaluate.problem_sets can show, where its size is known.

    Example: lightreasoner power --gain 5 --changed 0.2 --benchmarks
    """
    values = config.load(params, set_ or ())
    wanted = values.register.gain_to_show if gain is None else gain
    # Fractions, as 100 * 0.57 is below 57.
    if not (wanted >= SMALLEST_GAIN and wanted / 100 <= changed <= 1):
        raise ConfigError(
            [
                f"--gain {wanted:g}: must be {SMALLEST_GAIN:g} to {100 * changed:g} points, the "
                f"share of problems that change (--changed {changed:g}, at most 1)"
            ]
        )
    sizes = planned.PROBLEMS if benchmarks else planned.sizes(values)
    if as_json:
        output.print_json(planned.tree(wanted / 100, sizes, changed))
        return
    typer.echo(planned.needed(wanted / 100, changed))
    print_table(rich_table(planned.HEADINGS, planned.rows(sizes, changed)))
