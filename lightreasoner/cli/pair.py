"""`lightreasoner pair`: is the expert far enough ahead of an amateur, and what would that teach?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightreasoner import config
from lightreasoner.cli import last_door, output
from lightreasoner.cli.options import AsJson, Home, Overrides, ParamsFile
from lightreasoner.errors import ConfigError
from lightreasoner.formatting import print_table, rich_table
from lightreasoner.pipeline.graph import STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.storage import digests, outputs
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.outputs import HOME

if TYPE_CHECKING:
    from lightreasoner.config import Params

SAMPLING = ("prepare", "generate", "score")


def pair(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    amateur: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="As models.amateur, in its place; may be repeated."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Problems per set; sets evaluate.n_problems."),
    ] = None,
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Grade expert and amateurs, and say what they would teach.

    Is the expert far enough ahead to teach by contrast, and do its labels say anything new? Nothing
    is tuned.

    The authors' rule of thumb (README of HKUDS/LightReasoner): the expert clearly better, the
    amateur still able to reason. A set on which the expert is not ahead, its gap's interval not
    above 0 by the strict verdict, is warned of, and so are labels that teach next to nothing: their
    pull is how far they are from the expert's own distribution. Responses, trajectories and steps
    are kept in the store; but for the amateurs' responses they are those of a run.

    Example: lightreasoner pair --limit 200 --amateur self:layers:1 --amateur self:bits:3
    """
    shorthand = [f"evaluate.n_problems={limit}"] if limit else []
    values = config.load(params, [*(set_ or ()), *shorthand])
    digests.keep(home)
    names = dict.fromkeys(amateur or [values.models.amateur])
    pairs = {name: config.changed(values, [f"models.amateur={json.dumps(name)}"]) for name in names}
    given = {name: _inputs(each) for name, each in pairs.items()}
    from lightreasoner.evaluation import power
    from lightreasoner.experiments import pair

    rows, tree = [], {}
    for name, each in pairs.items():
        found = pair.gap(*(_graded(model, given[name], each, home) for model in pair.MODELS))
        taught = pair.teaching(_scored(given[name], each, home), each.select)
        warnings = pair.warnings(found, taught)
        tree[name] = {"sets": found, "teaching": taught._asdict(), "warnings": warnings}
        if not as_json:
            typer.echo(name)
            print_table(rich_table(pair.HEADINGS, pair.gap_rows(found), ("problem set", "verdict")))
            typer.echo()
        rows.append(pair.teaching_row(name, taught))
        for warning in warnings:
            typer.echo(f"warning: {name}: {warning}", err=True)
    if as_json:
        output.print_json(tree)
    else:
        typer.echo(f"{power.note({name: each['n'] for name, each in found.items()})}\n")
        print_table(rich_table(pair.TEACHING, rows))


def _inputs(params: "Params") -> Inputs:
    """What both ask and what is sampled from."""
    asked = external_inputs(params, ("expert", "amateur", "benchmark_source"))
    if asked["amateur"].derivation and params.compute.engine != "transformers":
        raise ConfigError(
            [
                f"{params.models.amateur}: is made in memory, but {params.compute.engine} serves a "
                "directory; give --set compute.engine=transformers"
            ]
        )
    return asked | external_inputs(params, ("problem_source",))


def _graded(model: str, inputs: Inputs, params: "Params", home: Path) -> Path:
    """The scores of one model of the pair: the base's stage, with that model for its expert."""
    stage = STAGES["evaluate_base"]
    given = {name: inputs[model if name == "expert" else name] for name in stage.inputs}
    return _made(stage, given, params, home, model).path


def _scored(inputs: Inputs, params: "Params", home: Path) -> Path:
    """The steps that a run would select from."""

    def make(stage: Stage, needed: Inputs) -> Artifact:
        return _made(stage, needed, params, home, stage.name)

    return walk([STAGES[name] for name in SAMPLING], inputs, make)["steps"].path


def _made(stage: Stage, inputs: Inputs, params: "Params", home: Path, title: str) -> Artifact:
    from lightreasoner.pipeline.store import Job, Store
    from lightreasoner.progress import TerminalBar

    last_door.goes_on()
    with TerminalBar(title) as bar:
        return Store(outputs.own(home)).run(Job.of(stage, inputs, params), bar).artifact
