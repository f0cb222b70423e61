"""`python -m benchmarks.bench`: how fast sampling, training and grading are on this machine."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lightreasoner import config, memory, processes
from lightreasoner.cli import last_door
from lightreasoner.cli.app import Commands, root_options
from lightreasoner.cli.options import Overrides, ParamsFile
from lightreasoner.pipeline.graph import external_inputs, resolved
from lightreasoner.progress import TerminalBar
from lightreasoner.storage import artifacts
from lightreasoner.storage.outputs import DATA, HOME

RESULTS = HOME / "bench"
ANSWERS_A_HOSTILE = 40
FEWER_ROWS = "lower compute.batch_size"
FEWER_SAMPLES = "lower finetune.samples_per_forward, or leave the plain trainer out with --naive 0"


def application() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        cls=Commands,
        help="Benchmarks, each against what this machine can do.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(root_options)
    app.command()(sampling)
    app.command()(training)
    app.command()(grading)
    app.command()(together)
    return app


def sampling(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    naive: Annotated[
        int, typer.Option(min=0, help="Problems that are also scored one prefix at a time.")
    ] = 2,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the figures go.")
    ] = RESULTS / "sampling.json",
) -> None:
    """Measure generate (greedy, one trajectory a problem) and score on the parameters' models and
    problems.

    Beside them, in the same process: the machine's matrix-product rate, its reading rate, and the
    naive way, which runs both models anew on every prefix.

    Example: python -m benchmarks.bench sampling --set prepare.n_problems=64
    """
    values = config.load(params, set_ or ())
    inputs = external_inputs(values, ("expert", "amateur", "problem_source"))
    from benchmarks import sampling
    from lightreasoner.data import sources

    source = values.prepare
    drawn = sources.draw_problems(
        source.source, source.problem_set, "train", source.n_problems, source.seed
    )
    compute = resolved(values.compute)
    with (
        TerminalBar("bench") as bar,
        memory.errors_with_remedy("bench", compute.device, FEWER_ROWS),
    ):
        found = sampling.sampling(
            inputs["expert"], inputs["amateur"], drawn, values.generate, compute, naive, bar
        )
    _write(found, sampling.summary(found), out)


def training(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    samples: Annotated[
        Path, typer.Option("--samples", metavar="DIR", help="The sample set to train on.")
    ] = DATA / "samples",
    updates: Annotated[int, typer.Option(min=1, help="Updates that each batching is timed.")] = 8,
    naive: Annotated[int, typer.Option(min=0, help="Updates of the plain trainer.")] = 3,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the figures go.")
    ] = RESULTS / "training.json",
) -> None:
    """Measure fine-tuning with each batching on a sample set, with the settings of finetune.

    Beside them, in the same process: the machine's matrix-product rate, and a plain trainer that
    reads one prefix a row, with whole logits and dense labels.

    Example: python -m benchmarks.bench training --set finetune.samples_per_update=16
    """
    values = config.load(params, set_ or ())
    inputs = external_inputs(values, ("expert",))
    from benchmarks import training

    settings = values.finetune.model_copy(update={"updates": updates})
    compute = resolved(values.compute)
    with (
        TerminalBar("bench") as bar,
        memory.errors_with_remedy("bench", compute.device, FEWER_SAMPLES),
    ):
        found = training.training(inputs["expert"], samples, settings, compute, naive, bar)
    _write(found, training.summary(found), out)


def grading(
    answers: Annotated[int, typer.Option(min=1, help="Answers that are made and graded.")] = 8000,
    responses: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Real ones instead, in the format of `grade`."),
    ] = None,
    hostile: Annotated[
        int | None,
        typer.Option(
            min=0, help="Hostile answers among others; a fortieth of --answers if not given."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the answers that are made.")] = 42,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the figures go.")
    ] = RESULTS / "grading.json",
) -> None:
    """Measure both verdicts: answers a second, and what hostile answers cost.

    Example: python -m benchmarks.bench grading --answers 1000
    """
    from benchmarks import grading
    from lightreasoner.cli import grade

    asked = grade.read_answers(responses)[1] if responses else grading.made(answers, seed)
    if hostile is None:
        hostile = len(asked) // ANSWERS_A_HOSTILE
    with TerminalBar("bench") as bar:
        found = grading.grading_speed(asked, hostile, workers or processes.usable_cores(), bar)
    _write(found, grading.summary(found), out)


def together(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long each number of processes decodes.")
    ] = 20.0,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the figures go.")
    ] = RESULTS / "together.json",
) -> None:
    """Measure how two and four processes that decode side by side share this machine.

    Example: OMP_WAIT_POLICY=ACTIVE python -m benchmarks.bench together --seconds 10
    """
    from benchmarks import together

    expert = external_inputs(config.load(params, set_ or ()), ("expert",))["expert"]
    found = together.together(expert.path, seconds)
    _write(found, together.summary(found), out)


def _write(found: dict[str, Any], lines: list[str], out: Path) -> None:
    artifacts.write_text(out, json.dumps(found, indent=1) + "\n")
    for line in lines:
        typer.echo(line)
    typer.echo(f"{out}")


if __name__ == "__main__":
    for name, value in processes.PATIENT.items():
        os.environ.setdefault(name, value)
    last_door.through(lambda: application()(prog_name="python -m benchmarks.bench"), lambda: HOME)
