"""One command per stage, made from the graph.

Each takes its result from the store under --home, or computes it there, and puts it in place at
--out by hard link.
"""

import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lightreasoner import config
from lightreasoner.cli import last_door
from lightreasoner.cli.options import Home, Overrides, Overwrite, ParamsFile, command_name
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import EXTERNAL, Stage, external_inputs
from lightreasoner.storage import artifacts, aside, digests, outputs
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.outputs import DATA, HOME

if TYPE_CHECKING:
    from lightreasoner.pipeline.store import Job

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

    def command(
        params: Path,
        set_: list[str] | None,
        out: Path,
        overwrite: bool,
        home: Path,
        **paths: Path,
    ) -> None:
        from lightreasoner.pipeline.store import Job

        digests.keep(home)
        values = config.load(params, set_ or ())
        inputs = external_inputs(values, [name for name in stage.inputs if name in EXTERNAL])
        inputs |= {name: artifacts.given(path) for name, path in paths.items()}
        typer.echo(take(Job.of(stage, inputs, values), out, home, overwrite))

    options = {
        "params": (ParamsFile, Path("params.yaml")),
        "set_": (Overrides, None),
        **{name: (_input_option(name), DATA / name) for name in given},
        "out": (
            Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the result goes.")],
            DATA / (stage.folder or stage.output),
        ),
        "overwrite": (Overwrite, False),
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


def take(job: "Job", out: Path, home: Path, overwrite: bool = False) -> str:
    """Take the stage's result from the store or compute it, place it at `out`; a line that says so.

    Raises ArtifactError where something at `out` would be lost (outputs.py).
    """
    from lightreasoner.pipeline.store import Store
    from lightreasoner.progress import TerminalBar

    last_door.goes_on()
    stage, store = job.stage, Store(outputs.own(home))
    aside.clear(out)
    try:
        outputs.check(out, home, overwrite)
    except ArtifactError:
        if not store.is_damaged(job):  # else `out` may hold that very result
            raise
    clock = time.perf_counter()
    with TerminalBar(stage.name) as bar:
        outcome = store.run(job, bar)
    if not _holds(out, outcome.artifact):
        outputs.put(outcome.artifact, out, home, overwrite)
    how = "cached" if outcome.cached else f"computed in {time.perf_counter() - clock:.1f} s"
    return f"{stage.name}: {how}  {outcome.artifact.digest}  {out}"


def _holds(out: Path, artifact: Artifact) -> bool:
    return out.is_dir() and artifacts.digest(out) == artifact.digest
