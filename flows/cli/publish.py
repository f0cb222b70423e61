"""`lightreasoner publish`, and `samples diff` of versions: the commands that call DVC."""

import shlex
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from flows import environment
from flows.dvc import versions
from flows.servers import local
from lightreasoner.cli import samples
from lightreasoner.cli.options import AsJson

SHOWN = 5


def publish(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's name, or its id in Prefect or MLflow; by default the newest run.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite uncommitted edits of params.yaml.")
    ] = False,
) -> None:
    """Put a finished run's parameters and results under DVC.

    params.yaml, DVC's data and dvc.lock become those of the run, so that `dvc repro` has nothing
    to do; everything is taken from the store, and no model is loaded. Run it in the checkout, or in
    the project.

    Example: lightreasoner publish "microworld beta=0.5 1a2b3c"
    """
    home, checkout = environment.make(environment.home()), Path.cwd()
    local.connect(home)
    from flows.dvc import publish
    from flows.results import records

    started = time.perf_counter()
    record = records.find(home, run, environment.tracking_uri(home))
    done = publish.publish_run(record, checkout, home, force)
    typer.echo(f"published: {record.name}, which finished {record.ended()}")
    typer.echo(f"params.yaml: {_first_changes(done.changed)}")
    seconds = time.perf_counter() - started
    typer.echo(f"dvc.lock: {done.results} results from the store, in {seconds:.1f} s")
    message = shlex.quote(record.name)
    typer.echo(f"next: git add params.yaml dvc.lock; git commit -m {message}; dvc push")


def _first_changes(overrides: list[str] | None) -> str:
    """The first changes, and how many more there are."""
    if overrides is None:
        return "rewritten"
    more = f" and {len(overrides) - SHOWN} more" if len(overrides) > SHOWN else ""
    return (", ".join(overrides[:SHOWN]) + more) or "unchanged"


def diff(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="A sample set's directory, or a git revision.")
    ],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another one.")],
    tolerance: samples.Tolerance = 0.0,
    as_json: AsJson = False,
) -> None:
    """Print how two sample sets differ.

    Compares samples, labels, KL and the settings that made them. A revision (tag, branch, commit)
    stands for the sample set in its dvc.lock, which is taken from DVC's cache, else from the
    remote. A directory of that name comes first.

    Example: lightreasoner samples diff samples@v0.0.1 .lightreasoner/data/samples
    """
    checkout = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
        one, other = (
            versions.directory(name, checkout, Path(scratch) / place)
            for name, place in ((first, "first"), (second, "second"))
        )
        samples.show_difference(one, other, f"{first} and {second}", tolerance, as_json)
