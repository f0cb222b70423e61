"""The pure command line: one command per stage, made from the graph, and a few helpers.

    lightreasoner select --set select.beta=0.5

Every stage command takes its result from the store under --home, or computes it there, and puts
it in place at --out by hard link. flows/cli/ adds the commands that need Prefect and MLflow.
"""

import importlib.metadata
import logging
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lightreasoner.cli import (
    adapter,
    evaluate,
    explain,
    grade,
    last_door,
    pair,
    plan,
    power,
    preset,
    samples,
    stage,
    store,
)
from lightreasoner.cli.options import (
    EVALUATE,
    GROUPS,
    MODELS,
    PIPELINE,
    SAMPLE_SETS,
    SINGLE_STAGES,
    STORE,
    command_name,
)
from lightreasoner.cli.output import log_to_stderr
from lightreasoner.errors import LightReasonerError
from lightreasoner.pipeline.graph import STAGES

GROUP_OF = {"evaluate": EVALUATE, "keep": SAMPLE_SETS, "gold": SAMPLE_SETS}
"""Where a stage's command is not among the single stages."""


class Commands(TyperGroup):
    """Commands whose help is in groups; a user's mistake is one line per fault and exit status 2.

    typer draws `rich_help_panel` by itself only where it also reads markup in every help text.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each group, in one column for all groups."""
        width = max(map(len, self.commands))
        limit = formatter.width - width - 6
        for group in GROUPS:
            rows = [
                (name.ljust(width), command.get_short_help_str(limit))
                for name, command in self.commands.items()
                if getattr(command, "rich_help_panel", None) == group
            ]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # a reader such as `head` had enough; click ends silently
        except (LightReasonerError, OSError) as error:
            last_door.tell_mistake(error, ctx.params["debug"])
            raise typer.Exit(last_door.MISTAKE) from None
        except EOFError as error:
            raise RuntimeError("a file ended too early") from error  # click takes it for Ctrl-D


def application(
    samples_diff: Callable[..., None] | None = None, store_gc: Callable[..., None] | None = None
) -> typer.Typer:
    """A new command line with the pure commands; `samples_diff` takes the place of that one, and
    `store_gc` is added to the store's."""
    written = {"evaluate": evaluate.evaluate}

    app = typer.Typer(
        cls=Commands,
        help="LightReasoner: contrast an expert with an amateur, keep the steps that matter, "
        "tune the expert on them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(root_options)
    for each in STAGES.values():
        group = GROUP_OF.get(each.name, SINGLE_STAGES)
        made = written.get(each.name) or stage.stage_command(each)
        app.command(command_name(each), rich_help_panel=group)(made)
    for command in (preset.preset, plan.plan):
        app.command(rich_help_panel=PIPELINE)(command)
    for asking in (evaluate.prompts, grade.grade, pair.pair, power.power):
        app.command(rich_help_panel=EVALUATE)(asking)
    app.command(rich_help_panel=SAMPLE_SETS)(explain.explain)
    sample_sets = samples.application(samples_diff)
    app.add_typer(sample_sets, name="samples", rich_help_panel=SAMPLE_SETS)
    app.command(rich_help_panel=MODELS)(adapter.adapter)
    app.add_typer(store.application(store_gc), name="store", rich_help_panel=STORE)
    return app


def _show_version(is_asked: bool) -> None:
    if is_asked:
        try:
            version = importlib.metadata.version("lightreasoner")
        except importlib.metadata.PackageNotFoundError:  # a bare machine runs the checkout as it is
            version = "(a checkout that is not installed)"
        typer.echo(f"lightreasoner {version}")
        raise typer.Exit()


def root_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show results, warnings and errors alone.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show also why a stage is computed.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    usual = logging.WARNING if quiet else logging.INFO
    log_to_stderr("lightreasoner", logging.DEBUG if debug or verbose else usual)
    # transformers tells peft's developers what will change; users can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
