"""`lightreasoner pair`: is the expert far enough ahead of the amateur?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightreasoner import config
from lightreasoner.cli.options import Home, Overrides, ParamsFile
from lightreasoner.formatting import print_table, rich_table
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
from lightreasoner.storage import digests, outputs
from lightreasoner.storage.outputs import HOME

if TYPE_CHECKING:
    from lightreasoner.config import Params


def pair(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Problems per set; sets evaluate.n_problems."),
    ] = None,
    home: Home = HOME,
) -> None:
    """Grade expert and amateur on the same problems.

    Is the expert far enough ahead to teach by contrast?

    The authors' rule of thumb (README of HKUDS/LightReasoner): the expert clearly better, the
    amateur still able to reason. A set on which the expert is not ahead, its gap's interval not
    above 0 by the strict verdict, is warned of. Responses and verdicts are kept in the store; the
    expert's are those of `evaluate-base`.

    Example: lightreasoner pair --limit 200
    """
    shorthand = [f"evaluate.n_problems={limit}"] if limit else []
    values = config.load(params, [*(set_ or ()), *shorthand])
    digests.keep(home)
    inputs = external_inputs(values, ("expert", "amateur", "benchmark_source"))
    from lightreasoner.experiments import pair

    found = pair.gap(*(_graded(model, inputs, values, home) for model in pair.MODELS))
    rows = pair.gap_rows(found)
    print_table(rich_table(pair.HEADINGS, rows, text=("problem set", "verdict")))
    for warning in pair.warnings(found):
        typer.echo(f"warning: {warning}", err=True)


def _graded(model: str, inputs: Inputs, params: "Params", home: Path) -> Path:
    """The scores of one model of the pair: the base's stage, with that model for its expert."""
    from lightreasoner.pipeline.store import Job, Store
    from lightreasoner.progress import TerminalBar

    stage = STAGES["evaluate_base"]
    given = {name: inputs[model if name == "expert" else name] for name in stage.inputs}
    with TerminalBar(model) as bar:
        return Store(outputs.own(home)).run(Job.of(stage, given, params), bar).artifact.path
