"""The commands that run a flow: the whole pipeline, and what is made of several.

Prefect and torch are imported once the parameters are known to be good and, without `up`, while
the run's own Prefect server is starting.
"""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import environment
from flows.results import terminal
from flows.servers import local, own_prefect
from flows.servers.manager import ServerError
from lightreasoner import config
from lightreasoner.cli import completion, last_door, output
from lightreasoner.cli.options import AsJson, Overrides, ParamsFile
from lightreasoner.config import Params
from lightreasoner.errors import ConfigError
from lightreasoner.experiments.methods import NAMES, checked_inputs, named
from lightreasoner.pipeline.graph import external_inputs
from lightreasoner.untrusted import shown

logger = logging.getLogger(__name__)

RunName = Annotated[
    str | None,
    typer.Option("--name", metavar="TEXT", help="What the run is called in Prefect and MLflow."),
]


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
    with _prefect_for(values) as home:
        from flows import pipeline

        report = pipeline.lightreasoner(form)
    what_next = {
        "report": str(home / "latest" / "report.html"),
        "browse runs": local.pages(home),
        "to DVC": "lightreasoner publish",
    }
    _tell(report, as_json, terminal.show_run, what_next)


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
    checked_inputs(values, chosen)
    from flows.forms.form import Form

    form = Form.over(values, name=name)
    with _prefect_for(values) as home:
        from flows import compare

        found = compare.compare(form, chosen)
    _tell(found, as_json, terminal.show_comparison, home / "compare")


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
    with _prefect_for(values) as home:
        from flows import sweep

        found = sweep.sweep(form)
    _tell(found, as_json, terminal.show_comparison, home / "sweep")


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
    with _prefect_for(values) as home:
        from flows import rounds as flow

        found = flow.rounds(form)
    _tell(found, as_json, terminal.show_rounds, home / "rounds")


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
    with _prefect_for(values) as home:
        from flows import table1
        from lightreasoner.experiments.table1 import notes

        found = table1.table1(form)
    _tell(found, as_json, terminal.show_table1, home / "table1", notes(found))


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
    with _prefect_for(values) as home:
        from flows import controls
        from lightreasoner.experiments.controls import notes

        found = controls.controls(form)
    _tell(found, as_json, terminal.show_table1, home / "controls", notes(found))


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


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


def _tell(
    found: Mapping[str, Any], as_json: bool, show: Callable[..., None], *more: object
) -> None:
    """What a flow found: as JSON, or shown in the terminal."""
    from rich.console import Console

    if as_json:
        output.print_json(found)
    else:
        show(found, Console(), *more)


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
def _prefect_for(values: Params) -> Iterator[Path]:
    """Prefect's server, that of `up` or one of this run's own, for a flow with these parameters;
    home. The server's failure is reported in one line.
    """
    home = _ready(values)
    import httpx
    from prefect.exceptions import TerminationSignal

    import flows.pipeline  # what every flow imports, while the server starts  # noqa: F401
    from tasks import accelerator

    gc.freeze()
    gc.enable()
    if environment.prefect_api() is None:
        own_prefect.wait(home)
        accelerator.do_without_limit()
    try:
        yield home
    except httpx.HTTPError as error:
        for cause in _behind(error):
            if isinstance(cause, TerminationSignal):  # it ended the server, too
                raise SystemExit(128 + cause.signal) from None
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
            raise ServerError(
                f"PREFECT_API_URL {environment.prefect_api()}: the server requires a login (401); "
                "set PREFECT_API_AUTH_STRING to its `user:secret`"
            ) from error
        local.check_space(home)
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
