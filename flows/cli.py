"""The console script `lightreasoner`: the pure commands, and those that need Prefect and MLflow.

Prefect, MLflow and torch are imported by the command that needs them, after the parameters are
known to be good.
"""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from flows import home, servers, up
from lightreasoner import artifacts, cli, config
from lightreasoner.cli import DATA, Overrides, ParamsFile
from lightreasoner.methods import NAMES, named
from lightreasoner.stages import STAGES, external_inputs

Port = Annotated[int, typer.Option(min=1, max=65535)]


def main() -> None:
    """Run the command line; results go to the store under home, from wherever it is called."""
    where = home.home()
    home.prepare_environment(where)
    with_store = [*map(cli.command_name, STAGES.values()), "pair"]
    application()(
        prog_name="lightreasoner",
        default_map={command: {"home": str(where)} for command in with_store},
    )


def application() -> typer.Typer:
    """A new command line with all commands."""
    app = cli.application()
    app.command()(run)
    app.command()(compare)
    app.command()(table1)
    app.command()(register)
    app.command("up")(serve)
    app.command()(down)
    app.command()(status)
    return app


def run(params: ParamsFile = Path("params.yaml"), set_: Overrides = None) -> None:
    """Run the whole pipeline: problems to a graded, registered model.

    Results that the store has already are taken from it. With `lightreasoner up` running, the run
    shows in its pages; else it goes to the same databases directly.

    Example: lightreasoner run --set select.beta=0.5
    """
    values = config.load(params, set_ or ())
    external_inputs(values)
    where = home.home()
    typer.echo(servers.connect(where), err=True)
    servers.check_prefect()
    from rich.console import Console

    from flows import pipeline, summary

    for package in ("tasks", "flows"):
        cli.log_to_stderr(package)
    report = pipeline.lightreasoner(values)
    summary.show(
        report,
        Console(),
        {
            "report": str(where / "latest" / "report.html"),
            "browse runs": "make up",
        },
    )


def compare(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B,...", help="Which, beside the base.")
    ] = ",".join(NAMES),
) -> None:
    """Compare LightReasoner with the baselines and its ablations on the same problems.

    Prints one table; nothing is registered. Results that the store has are taken from it.

    Example: lightreasoner compare --methods lightreasoner,sft
    """
    values = config.load(params, set_ or ())
    chosen = named([name.strip() for name in methods.split(",") if name.strip()])
    external_inputs(values)
    where = home.home()
    typer.echo(servers.connect(where), err=True)
    servers.check_prefect()
    from rich.console import Console

    from flows import compare, summary

    for package in ("tasks", "flows"):
        cli.log_to_stderr(package)
    summary.show_comparison(compare.compare(values, chosen), Console(), where / "compare")


def table1(params: ParamsFile = Path("params.yaml"), set_: Overrides = None) -> None:
    """Grade the expert before and after tuning under both prompts: a row of the paper's Table 1.

    evaluate.base_style and evaluate.style are the prompts; the gain is taken apart into what the
    prompt brings and what tuning does. Nothing is registered. Results that the store has are taken
    from it.

    Example: lightreasoner table1 --set evaluate.base_style=cot
    """
    values = config.load(params, set_ or ())
    external_inputs(values)
    where = home.home()
    typer.echo(servers.connect(where), err=True)
    servers.check_prefect()
    from rich.console import Console

    from flows import summary, table1

    for package in ("tasks", "flows"):
        cli.log_to_stderr(package)
    summary.show_table1(table1.table1(values), Console(), where / "table1")


def register(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    model: Annotated[
        Path, typer.Option("--model", metavar="DIR", help="The merged model to register.")
    ] = DATA / "model",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the version is written down.")
    ] = DATA / "registered" / "registered_model.json",
) -> None:
    """Register the merged model of these parameters; a model that is there already is found.

    All results are looked up in the store, so run the stages first (`dvc repro` does).

    Example: lightreasoner register --set register.alias=champion
    """
    values = config.load(params, set_ or ())
    wanted = artifacts.of(model)
    where = home.home()
    servers.connect(where)
    from flows import registering

    cli.log_to_stderr("tasks", logging.WARNING)
    found = registering.register(values, wanted, where)
    artifacts.write_text(out, json.dumps(found, indent=1) + "\n")
    typer.echo(f"register: {found['name']} version {found['version']}  {wanted.digest}  {out}")


def serve(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all are ready; they go on.")
    ] = False,
) -> None:
    """Serve Prefect, MLflow and the pipeline's deployment on this machine until Ctrl-C.

    The deployment's form starts with the parameters as they are now. Only this machine can
    connect; the databases are those that `lightreasoner run` writes. One that ends is started
    again, a few times.

    Example: lightreasoner up --prefect-port 4201
    """
    values = config.load(params, set_ or ())
    up.serve(home.home(), values, servers.at(prefect_port, mlflow_port), detach)


def down() -> None:
    """Stop what `lightreasoner up` runs, wherever that was started, and wait for its end.

    Example: lightreasoner down
    """
    where = home.home()
    stopped = up.down(where)
    typer.echo("all stopped" if stopped else f"nothing was running for {where}")


def status() -> None:
    """Say how Prefect, MLflow and the runner do; exit status 1 unless all are well.

    Example: lightreasoner status
    """
    if not up.status(home.home()):
        raise typer.Exit(1)
