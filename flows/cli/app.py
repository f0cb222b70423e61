"""The console script `lightreasoner`: the pure commands, and those that need Prefect and MLflow.

Prefect, MLflow and torch are imported by the command that needs them, after the parameters are
known to be good.
"""

import contextlib
import gc
import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from flows import environment
from flows.cli import init, publish, runs, store
from flows.dvc import program
from flows.results import records
from flows.servers import local, own_prefect, up
from flows.servers.manager import ServerError
from lightreasoner import config
from lightreasoner.cli import app as pure
from lightreasoner.cli import completion, last_door, options, output
from lightreasoner.cli.options import AsJson, Overrides, OverwriteFile, ParamsFile
from lightreasoner.config import Params
from lightreasoner.errors import ConfigError
from lightreasoner.experiments.methods import NAMES, named
from lightreasoner.pipeline.graph import STAGES, external_inputs
from lightreasoner.storage import artifacts, aside, digests, outputs
from lightreasoner.storage.outputs import DATA
from lightreasoner.untrusted import printable, printable_line, shown

logger = logging.getLogger(__name__)

Port = Annotated[int, typer.Option(min=1, max=65535)]
RunName = Annotated[
    str | None,
    typer.Option("--name", metavar="TEXT", help="What the run is called in Prefect and MLflow."),
]


def main() -> None:
    """Run the command line; results go to the store under home, wherever it is called from."""
    home = environment.home()
    environment.prepare_environment(home)
    digests.keep(home)
    _end_in_order()
    if environment.is_stage_of_dvc():
        program.end_with_dvc()
    with_store = [*map(options.command_name, STAGES.values()), "pair", "plan"]
    own = {"home": str(home)}
    of_store = dict.fromkeys(("ls", "du", "show", "push", "pull"), own)
    given = {**dict.fromkeys(with_store, own), "store": of_store}
    application()(prog_name="lightreasoner", default_map=given)


def _end_in_order() -> None:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the process as an exception does.

    Otherwise it ends at once, and the Prefect server that a run started for itself stays.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def application() -> typer.Typer:
    """A new command line with all commands."""
    app = pure.application(samples_diff=publish.diff, store_gc=store.gc)
    groups: dict[str, tuple[Callable[..., None], ...]] = {
        options.PIPELINE: (init.init, run, compare, sweep, rounds, table1, controls),
        options.MODELS: (register, publish.publish, push),
        options.SERVERS: (serve, down, status, sync),
    }
    for group, commands in groups.items():
        for command in commands:
            name = "up" if command is serve else None
            app.command(name, rich_help_panel=group)(command)
    app.add_typer(runs.application(), name="runs", rich_help_panel=options.PIPELINE)
    return app


def _ready(values: Params) -> Path:
    """Check what the parameters name, connect to the servers if they run, else start one; home.

    All before Prefect is imported, which takes seconds.
    """
    from lightreasoner.forecast import limits

    last_door.goes_on()
    home = environment.make(environment.home())
    limits.check(values, home)
    external_inputs(values)
    for package in ("tasks", "flows"):
        output.log_to_stderr(package)
    logger.info(local.connect(home))
    local.check_prefect()
    local.check_mlflow(home)
    if environment.prefect_api() is None:
        own_prefect.start(home)
    gc.disable()  # until everything is imported; most of it stays
    return home


@contextlib.contextmanager
def _by_prefect() -> Iterator[None]:
    """Wait for the run's own Prefect server, if it has one; report its failure in one line."""
    import httpx
    from prefect.exceptions import TerminationSignal

    from tasks import accelerator

    gc.freeze()
    gc.enable()
    if environment.prefect_api() is None:
        own_prefect.wait(environment.home())
        accelerator.do_without_limit()
    try:
        yield
    except httpx.HTTPError as error:
        for cause in _behind(error):
            if isinstance(cause, TerminationSignal):  # it ended the server, too
                raise SystemExit(128 + cause.signal) from None
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
            raise ServerError(
                f"PREFECT_API_URL {environment.prefect_api()}: the server requires a login (401); "
                "set PREFECT_API_AUTH_STRING to its `user:secret`"
            ) from error
        local.check_space(environment.home())
        local.check_prefect_database(whole=True)
        raise ServerError(
            f"Prefect's server failed during the run ({str(error).partition(' for url')[0]}); what "
            "was finished is in the store: fix the server, then run this command again"
        ) from error


def _behind(error: BaseException) -> Iterator[BaseException]:
    """What was being handled when an error came up, and so on."""
    while error.__context__ is not None:
        error = error.__context__
        yield error


def run(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline and register the tuned model.

    Results that are in the store already are reused. While `lightreasoner up` is running, the run
    shows on its pages; otherwise it writes to the same databases directly.

    Example: lightreasoner run --set select.beta=0.5
    """
    values = config.load(params, set_ or ())
    from flows.forms.form import Form

    form = Form.over(values, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import pipeline
    from flows.results import terminal

    with _by_prefect():
        report = pipeline.lightreasoner(form)
    if as_json:
        output.print_json(report)
        return
    terminal.show_run(
        report,
        Console(),
        {
            "report": str(home / "latest" / "report.html"),
            "browse runs": local.pages(home),
            "to DVC": "lightreasoner publish",
        },
    )


def compare(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="A,B,...",
            help="The methods to compare with the base.",
            autocompletion=completion.methods,
        ),
    ] = ",".join(NAMES),
    as_json: AsJson = False,
) -> None:
    """Compare LightReasoner with baselines and ablations.

    All answer the same problems. Prints one table; nothing is registered. Results that are in the
    store already are reused.

    Example: lightreasoner compare --methods lightreasoner,sft
    """
    values = config.load(params, set_ or ())
    chosen = named(_listed(methods))
    from flows.forms.form import Form

    form = Form.over(values, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import compare
    from flows.results import terminal

    with _by_prefect():
        found = compare.compare(form, chosen)
    if as_json:
        output.print_json(found)
        return
    terminal.show_comparison(found, Console(), home / "compare")


def sweep(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    betas: Annotated[
        str, typer.Option("--betas", metavar="A,B,...", help="KL thresholds, nats.")
    ] = "0.2,0.4,0.8",
    alphas: Annotated[
        str, typer.Option("--alphas", metavar="A,B,...", help="Plausibility thresholds.")
    ] = "0.1,0.2",
    as_json: AsJson = False,
) -> None:
    """Tune and grade a model for each beta and alpha of a grid.

    The steps are scored once. Prints one table; nothing is registered. Results that are in the
    store already are reused.

    Example: lightreasoner sweep --betas 0.2,0.4 --alphas 0.1,0.2
    """
    values = config.load(params, set_ or ())
    grid = {"betas": _numbers("--betas", betas), "alphas": _numbers("--alphas", alphas)}
    from flows.forms.form import SweepForm

    form = SweepForm.over(values, **grid, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import sweep
    from flows.results import terminal

    with _by_prefect():
        found = sweep.sweep(form)
    if as_json:
        output.print_json(found)
        return
    terminal.show_comparison(found, Console(), home / "sweep")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(item) for item in text.split(",") if item.strip())
    except ValueError:
        raise ConfigError(
            [f"{option} {shown(text)}: must be numbers separated by commas, such as 0.2,0.4"]
        ) from None
    if not numbers:
        raise ConfigError([f"{option}: must be at least one number, such as 0.2,0.4"])
    return numbers


def rounds(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="How often to tune, 1 to 20.")
    ] = 3,
    later_amateur: Annotated[
        str,
        typer.Option(
            "--later-amateur",
            metavar="same|previous",
            help="From round 2 on: models.amateur, or the expert of the round before.",
        ),
    ] = "same",
    as_json: AsJson = False,
) -> None:
    """Tune again from the tuned model, round by round.

    Round 1 is what `run` does; each later one has the model of the round before as its expert, on
    the same problems. Prints one table: samples, drift and accuracy per round; nothing is
    registered. Results that are in the store already are reused.

    Example: lightreasoner rounds --rounds 2 --later-amateur previous
    """
    values = config.load(params, set_ or ())
    from flows.forms.form import RoundsForm

    form = RoundsForm.over(values, rounds=rounds, later_amateur=later_amateur, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import rounds as flow
    from flows.results import terminal
    from lightreasoner.experiments.rounds import notes, table

    with _by_prefect():
        found = flow.rounds(form)
    if as_json:
        output.print_json(found)
        return
    terminal.show_table(table(found), notes(found), Console(), home / "rounds")


def table1(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Grade base and tuned expert under both prompts (Table 1).

    That is a row of the paper's Table 1. The prompts are evaluate.base_style and evaluate.style;
    the gain is split into what the prompt brings and what tuning does. Nothing is registered.
    Results that are in the store already are reused.

    Example: lightreasoner table1 --set evaluate.base_style=cot
    """
    values = config.load(params, set_ or ())
    from flows.forms.form import Form

    form = Form.over(values, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import table1
    from flows.results import terminal
    from lightreasoner.experiments.table1 import notes

    with _by_prefect():
        found = table1.table1(form)
    if as_json:
        output.print_json(found)
        return
    terminal.show_table1(found, Console(), home / "table1", notes(found))


def controls(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    name: RunName = None,
    styles: Annotated[
        str,
        typer.Option("--styles", metavar="A,B,...", help="More prompt styles; none: no template."),
    ] = "none,cot",
    shots: Annotated[
        str, typer.Option("--shots", metavar="K,...", help="More numbers of worked examples.")
    ] = "4",
    budgets: Annotated[
        str,
        typer.Option("--budgets", metavar="N,...", help="More limits; default: half of the run's."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Grade base and tuned expert under several prompts.

    Every prompt style with every number of worked examples and every limit of tokens, those of the
    parameters always among them. Takes the gain apart into prompt, examples, limit and what is left
    for reasoning: the base at its best beside the tuned expert at its best. Nothing is registered.
    Results that are in the store already are reused.

    Example: lightreasoner controls --styles none,cot --shots 4 --budgets 64
    """
    values = config.load(params, set_ or ())
    more = {"styles": _listed(styles), "shots": _listed(shots), "budgets": _listed(budgets)}
    from flows.forms.form import ControlsForm

    form = ControlsForm.over(values, **more, name=name)
    home = _ready(values)
    from rich.console import Console

    from flows import controls
    from flows.results import terminal
    from lightreasoner.experiments.controls import notes

    with _by_prefect():
        found = controls.controls(form)
    if as_json:
        output.print_json(found)
        return
    terminal.show_table1(found, Console(), home / "controls", notes(found))


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def register(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    model: Annotated[
        Path, typer.Option("--model", metavar="DIR", help="The merged model to register.")
    ] = DATA / "model",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write the version.")
    ] = DATA / "registered" / "registered_model.json",
    overwrite: OverwriteFile = False,
) -> None:
    """Register the merged model of these parameters.

    A model that is registered already is found, not registered again. It becomes `champion` if it
    is better than the base and the champion on register.gate_set. All results are looked up in the
    store, so run the stages first (`dvc repro` does).

    Example: lightreasoner register --set register.gate_set=transfer
    """
    outputs.check_file(out, ("name", "version"), overwrite)
    values = config.load(params, set_ or ())
    wanted = artifacts.of(model)
    home = environment.make(environment.home())
    local.connect(home)
    from flows import registering

    output.log_to_stderr("tasks", logging.WARNING)
    found = registering.register_stored(values, wanted, home)
    artifacts.write_text(out, json.dumps(found, indent=1) + "\n")
    typer.echo(f"register: {found['name']} version {found['version']}  {wanted.digest}  {out}")
    typer.echo(f"gate: {found['gate']['verdict']}. {found['gate']['reason']}")


def push(
    repo: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="On the hub; a new one is private.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="M", help="models:/NAME@ALIAS, or a model's directory.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A sample set, or its export, instead.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Only the adapter: that of M, or M itself.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded; no network.")
    ] = False,
) -> None:
    """Upload a model, an adapter or a sample set to the hub.

    It goes to the Hugging Face hub with its card; only safetensors, json, txt, jinja and md files
    are uploaded, of a sample set parquet and md. The login is that of the hub's client
    (`hf auth login`).

    Example: lightreasoner push --model models:/NAME@champion --repo owner/name --dry-run
    """
    from lightreasoner.tuning import upload

    if (model is None) == (dataset is None) or (adapter and model is None):
        raise ConfigError(["push: give --model, with or without --adapter, or --dataset"])
    upload.check_repository(repo)
    home = environment.make(environment.home())
    (home / "work").mkdir(exist_ok=True)
    with aside.beside(home / "work" / "push") as scratch:
        if dataset is not None:
            folder = upload.prepare_dataset(dataset, scratch / "new")
        elif model is not None:
            files, card = _files_to_push(model, adapter, home, scratch)
            folder = upload.prepare(files, card, scratch / "new", adapter)
        for name, size in folder.sizes.items():
            typer.echo(f"{size:>14,}  {printable(name)}")
        typer.echo(f"{sum(folder.sizes.values()):>14,}  bytes in {len(folder.sizes)} files")
        if dry_run:
            typer.echo(f"dry run: nothing was sent to {repo}; the card is valid")
        else:
            typer.echo(f"pushed: {upload.send(folder, repo)}")


def _files_to_push(model: str, adapter: bool, home: Path, scratch: Path) -> tuple[Path, Path]:
    """The directory that M names, from the registry or the disk, and its card."""
    if not model.startswith("models:/"):
        return Path(model), Path(model) / "README.md"
    local.connect(home)
    from tasks.registry import versions

    if not local.look(home):
        raise versions.RegistryError(
            f"{model}: no model is registered under {home} yet; `lightreasoner run` registers one"
        )
    (scratch / "version").mkdir()
    version = versions.download(model, scratch / "version")
    if adapter:
        from lightreasoner.tuning import adapters

        adapters.check_tensors(adapters.read_adapter(version / "adapter"), version / "model")
    return version / ("adapter" if adapter else "model"), version / "README.md"


def serve(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all are ready; they keep running.")
    ] = False,
) -> None:
    """Serve Prefect, MLflow and the deployments until Ctrl-C.

    The deployments' forms start with the parameters as they are now. Only this machine can
    connect; the databases are those that `lightreasoner run` writes to. A server that ends is
    restarted a few times.

    Example: lightreasoner up --prefect-port 4201
    """
    values = config.load(params, set_ or ())
    local.check_prefect_database()
    home = environment.home()
    local.check_served(home)
    up.serve(home, values, local.at(home, prefect_port, mlflow_port), detach)


def down() -> None:
    """Stop what `lightreasoner up` runs.

    It may have been started in any terminal; waits until everything has ended.

    Example: lightreasoner down
    """
    home = environment.home()
    stopped = up.down(home)
    typer.echo("all stopped" if stopped else f"nothing was running for {home}")


def status() -> None:
    """Show whether Prefect, MLflow and the runner are up.

    Exit status 1 unless all are.

    Example: lightreasoner status
    """
    if not up.status(environment.home()):
        raise typer.Exit(1)


def sync(
    run: Annotated[str | None, typer.Argument(help="A run's name or id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All runs that a server lacks.")] = False,
) -> None:
    """Send an MLflow server what it missed while it was away.

    Only a server elsewhere (MLFLOW_TRACKING_URI) needs this; that of `lightreasoner up` misses
    nothing. What was sent is not sent again. Exit status 1 if a server is still away.

    Example: lightreasoner sync --all
    """
    if (run is None) != all_:
        raise ConfigError(["sync: name one run, by name or id, or give --all"])
    home = environment.home()
    local.check_mlflow(home, environment.database(home))
    local.connect(home)  # that server's login, where `up` keeps a shared database
    from tasks.tracking import sync

    lines, is_done = sync.send_all(home, records.names(home, run) if run else ())
    typer.echo("\n".join(map(printable_line, lines)) or f"nothing is waiting under {home}")
    if not is_done:
        raise typer.Exit(1)
