"""The pure command line: one command a stage, made from the graph, and two helpers.

    lightreasoner select --set select.beta=0.5

Every stage command takes its result from the store under --home, or computes it there, and puts
it in place at --out by hard link. `flows/cli.py` adds the commands that need Prefect and MLflow.
"""

import importlib.metadata
import inspect
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lightreasoner import artifacts, complete, config, places
from lightreasoner.artifacts import Artifact
from lightreasoner.config import Params
from lightreasoner.errors import ConfigError, LightReasonerError
from lightreasoner.places import DATA, HOME
from lightreasoner.stages import EXTERNAL, STAGES, Inputs, Stage, external_inputs

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

ParamsFile = Annotated[
    Path, typer.Option("--params", metavar="FILE", help="The parameters, one section a stage.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override one parameter; may be repeated.",
        autocompletion=complete.parameters,
    ),
]
Home = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="Where the store of results lies.")
]


class Commands(TyperGroup):
    """A group that turns a user's mistake into one line a fault and exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # a reader such as `head` had enough; click ends in silence
        except (LightReasonerError, OSError) as error:
            if ctx.params["debug"]:
                raise
            for fault in getattr(error, "faults", None) or [_said(error)]:
                typer.echo(f"error: {fault}", err=True)
            raise typer.Exit(2) from None


def _said(error: Exception) -> str:
    """An error in words: the file before what is the matter with it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return str(error)


def application(samples_diff: Callable[..., None] | None = None) -> typer.Typer:
    """A new command line with the pure commands; `samples_diff` takes the place of that one."""
    # they take their options from this module
    from lightreasoner import (
        bench_cli,
        evaluate_cli,
        explain_cli,
        grade_cli,
        pair_cli,
        samples_cli,
    )

    written = {"evaluate": evaluate_cli.evaluate}

    app = typer.Typer(
        cls=Commands,
        help="LightReasoner: contrast an expert with an amateur, keep the steps that matter, "
        "tune the expert on them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_options)
    for stage in STAGES.values():
        app.command(command_name(stage))(written.get(stage.name) or _stage_command(stage))
    app.command()(preset)
    app.command()(microworld)
    app.command()(evaluate_cli.prompts)
    app.command()(grade_cli.grade)
    app.command()(pair_cli.pair)
    app.command()(explain_cli.explain)
    app.add_typer(samples_cli.application(samples_diff), name="samples")
    app.add_typer(bench_cli.application(), name="bench")
    return app


def command_name(stage: Stage) -> str:
    """The name of a stage's command."""
    return stage.name.replace("_", "-")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        try:
            version = importlib.metadata.version("lightreasoner")
        except importlib.metadata.PackageNotFoundError:  # a bare machine runs the checkout as it is
            version = "(a checkout that is not installed)"
        typer.echo(f"lightreasoner {version}")
        raise typer.Exit()


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    log_to_stderr("lightreasoner", logging.DEBUG if debug else logging.INFO)
    # transformers tells peft's developers what will change; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")


def log_to_stderr(name: str, level: int = logging.INFO) -> None:
    """Show what a package logs as plain lines on stderr."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def _stage_command(stage: Stage) -> Any:
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
    from lightreasoner.progress import TerminalBar
    from lightreasoner.store import Store

    places.check(out, stage.output, home)
    clock = time.perf_counter()
    with TerminalBar(stage.name) as bar:
        outcome = Store(home.absolute()).run(stage, inputs, params, bar)
    if not _holds(out, outcome.artifact):
        places.put(outcome.artifact, stage.output, out, home)
    how = "cached" if outcome.cached else f"computed in {time.perf_counter() - clock:.1f} s"
    typer.echo(f"{stage.name}: {how}  {outcome.artifact.digest}  {out}")


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]
) -> None:
    """A table on stdout, the columns called `numbers` to the right; a narrow terminal wraps lines,
    it never loses a column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, 140)
    console.print(table, crop=False)


def _holds(out: Path, artifact: Artifact) -> bool:
    return out.is_dir() and artifacts.digest(out) == artifact.digest


def preset(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="One of the presets.", autocompletion=complete.presets),
    ],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Rewrite params.yaml with the settings of a preset.

    An unknown name lists the presets.

    Example: lightreasoner preset microworld
    """
    from lightreasoner.presets import PRESETS

    if name not in PRESETS:
        raise ConfigError([f"no preset {name!r}; there are {', '.join(sorted(PRESETS))}"])
    artifacts.write_text(params, config.dump(PRESETS[name]))
    typer.echo(f"{params}: {name}")


def microworld(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new directory for the two models.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of corpus and weights.")] = 0,
) -> None:
    """Train the embedded world's expert and amateur again from scratch (minutes).

    Example: lightreasoner microworld --out my-models --seed 1
    """
    from lightreasoner.fingerprint import git_commit
    from lightreasoner.microworld import recipe

    recipe.build(out, seed, commit=git_commit())
    typer.echo(f"{out}: expert, amateur")
