"""`python -m recipes.study run`: the paper's claims in the micro-world; half an hour, two cores."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import environment
from lightreasoner import config
from lightreasoner.cli import last_door, output
from lightreasoner.cli.app import Commands, root_options
from lightreasoner.cli.options import Home, Overrides, ParamsFile
from lightreasoner.config import Params
from lightreasoner.storage import artifacts, digests
from lightreasoner.storage.outputs import HOME

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
SEEDS = "42,43,44"
TITLE = "LightReasoner: a study"


def study(
    params: ParamsFile = ROOT / "params.yaml",
    set_: Overrides = None,
    seeds: Annotated[str, typer.Option(metavar="A,B,...", help="Seeds, at least one.")] = SEEDS,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page goes.")] = RESULTS,
    home: Home = HOME,
) -> None:
    """Run every arm at every seed and write study.md, study.html and study.json.

    What was computed is in the store, so that a study that was ended goes on.

    Example: make study
    """
    from flows.compare import under_one_prompt  # Prefect, after its environment

    values = under_one_prompt(config.load(params, set_ or ()))
    digests.keep(home)
    output.log_to_stderr("recipes")
    found = tree(values, [int(seed) for seed in seeds.split(",")], home)
    from recipes.study import page

    text = page.markdown(found)
    out.mkdir(parents=True, exist_ok=True)
    artifacts.write_text(out / "study.json", json.dumps(found, indent=1) + "\n")
    artifacts.write_text(out / "study.md", text)
    artifacts.write_text(out / "study.html", page.html(text, TITLE))
    typer.echo(f"{out / 'study.html'}")


def tree(params: Params, seeds: Sequence[int], home: Path) -> dict[str, Any]:
    """The study as a tree: conditions, a seed's arms, and what is looked at in the first seed."""
    from flows.compare import conditions
    from lightreasoner.inference import loading
    from lightreasoner.pipeline.graph import external_inputs
    from recipes.study import measure, run
    from recipes.study.arms import ARMS, OURS

    runs = run.run(params, seeds, home)
    first = {name: arm for name, arm in runs[seeds[0]].items() if not arm.missing}
    tokenizer = loading.load_tokenizer(external_inputs(params, ("expert",))["expert"].path)
    return {
        "conditions": conditions(params),
        "seeds": {str(seed): measure.seed(arms) for seed, arms in runs.items()},
        "curves": {
            ARMS[name].title: measure.curve(first[name]) for name in (OURS, "sft") if name in first
        },
        "label_mass": measure.label_mass(first[OURS], lambda token: tokenizer.decode([token])),
    }


def application() -> typer.Typer:
    """A command line of this one command."""
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback(invoke_without_command=False)(root_options)
    app.command("run")(study)
    return app


if __name__ == "__main__":
    logging.captureWarnings(True)
    environment.prepare_environment(environment.home())
    last_door.through(lambda: application()(prog_name="python -m recipes.study"), lambda: HOME)
