"""One command a stage, made from the graph.

Each takes its result from the store under --home, or computes it there, and puts it in place at
--out by hard link.
"""

import inspect
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lightreasoner import config
from lightreasoner.cli.options import Home, Overrides, ParamsFile, command_name
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import EXTERNAL, Inputs, Stage, external_inputs
from lightreasoner.storage import artifacts, outputs
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.outputs import DATA, HOME

EXAMPLES = {
    "prepare": "--set prepare.n_problems=100",
    "generate": "--set generate.max_new_tokens=64",
    "score": "--set score.alpha_min=0.005",
    "select": "--set select.beta=0.5",
    "finetune": "--set finetune.updates=200 --set finetune.seed=7",
    "merge": "--adapter my-adapter --out my-model",
    "evaluate_base": "--set evaluate.seed=7",
    "report": "--out my-report",
    "keep": "--trajectories my-solutions",
    "gold": "--out my-samples",
}


def stage_command(stage: Stage) -> Any:
    """The command of one stage; its options are made from the stage's inputs and output."""
    given = [name for name in stage.inputs if name not in EXTERNAL]

    def command(params: Path, set_: list[str] | None, out: Path, home: Path, **paths: Path) -> None:
        run_stage(stage, config.load(params, set_ or ()), paths, out, home)

    options = {
        "params": (ParamsFile, Path("params.yaml")),
        "set_": (Overrides, None),
        **{name: (_input_option(name), DATA / name) for name in given},
        "out": (
            Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the result goes.")],
            DATA / (stage.folder or stage.output),
        ),
        "home": (Home, HOME),
    }
    signature = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind)
        for name, (kind, value) in options.items()
    ]
    setattr(command, "__signature__", inspect.Signature(signature))  # noqa: B010, read by typer
    command.__doc__ = (
        f"{stage.summary}\n\n"
        f"Reads {_listed(stage.inputs)}"
        f"{f' and the parameters {stage.section}.*' if stage.section else ''}; "
        f"writes {stage.output}.\n\n"
        f"Example: lightreasoner {command_name(stage)} {EXAMPLES[stage.name]}"
    )
    return command


def _input_option(name: str) -> Any:
    option = typer.Option(f"--{name.replace('_', '-')}", metavar="DIR", help=f"The {name} to read.")
    return Annotated[Path, option]


def _listed(names: tuple[str, ...]) -> str:
    """`a, b and c`."""
    head, last = names[:-1], names[-1]
    return f"{', '.join(head)} and {last}" if head else last


def run_stage(stage: Stage, params: Params, paths: dict[str, Path], out: Path, home: Path) -> None:
    """Take the stage's result from the store or compute it, place it at `out`, print a line."""
    wanted = [name for name in stage.inputs if name in EXTERNAL]
    inputs = external_inputs(params, wanted)
    inputs |= {name: artifacts.of(path) for name, path in paths.items()}
    take(stage, inputs, params, out, home)


def take(stage: Stage, inputs: Inputs, params: Params, out: Path, home: Path) -> None:
    """As `run_stage`, of inputs that were checked. What is no earlier result stays at `out`."""
    from lightreasoner.pipeline.store import Store
    from lightreasoner.progress import TerminalBar

    outputs.check(out, stage.output, home)
    clock = time.perf_counter()
    with TerminalBar(stage.name) as bar:
        outcome = Store(home.absolute()).run(stage, inputs, params, bar)
    if not _holds(out, outcome.artifact):
        outputs.put(outcome.artifact, stage.output, out, home)
    how = "cached" if outcome.cached else f"computed in {time.perf_counter() - clock:.1f} s"
    typer.echo(f"{stage.name}: {how}  {outcome.artifact.digest}  {out}")


def _holds(out: Path, artifact: Artifact) -> bool:
    return out.is_dir() and artifacts.digest(out) == artifact.digest
