"""`lightreasoner runs`: past runs from MLflow's records, listed, shown and compared."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import environment
from flows.results import records
from flows.servers import local
from lightreasoner import presets
from lightreasoner.cli.output import print_json
from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import power
from lightreasoner.formatting import (
    NONE,
    accuracy,
    difference,
    p_value,
    percent,
    points,
    print_table,
    rich_table,
)
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage.payload import read_json
from lightreasoner.untrusted import printable_line

if TYPE_CHECKING:
    from tasks.tracking.history import Past, PastStage

RunId = Annotated[str, typer.Argument(help="A run's name, or its id in MLflow or Prefect.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NOTE = (
    "Pass@1 by the strict verdict with 95% intervals; the difference is second minus first on the "
    "same problems; p is McNemar's (the sign test's where each has several responses), corrected "
    "for the number of sets (Holm)."
)


def application() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        help="Past runs: list, show, compare.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, command in (("list", list_runs), ("show", show), ("compare", compare)):
        app.command(name)(command)
    return app


def list_runs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, the newest first.

    The accuracy, and its gain over the base in points, are those of the first problem set.

    Example: lightreasoner runs list --limit 5
    """
    found: list[Past] = []
    if local.look(_home()):
        from tasks.tracking import history

        found = history.newest_first(limit)
    if as_json:
        print_json([asdict(run) for run in found])
        return
    if not found:
        typer.echo(f"no run under {environment.home()} yet; `lightreasoner run` makes one")
        return
    rows = [(run.name, *_head(run), _headline(run), run.id) for run in found]
    headings = ("name", "kind", "state", "started", "took", "accuracy (strict)", "id")
    print_table(rich_table(headings, rows, (*headings[:4], "id")))


def show(run: RunId, as_json: AsJson = False) -> None:
    """Show a run: what it changed, its scores, its cost.

    What it changed are the parameters that differ from its expert's preset. A stage's seconds are
    those of when it was computed, also where it came from the store.

    Example: lightreasoner runs show "microworld n=40 seed=7 90e837"
    """
    found = _found(run)
    from tasks.tracking import history

    made = history.stages(found)
    if as_json:
        tree = {**asdict(found), "stages": [asdict(each) for each in made]}
        print_json(tree)
        return
    kind, state, started, took = _head(found)
    typer.echo(printable_line(f"{found.name}  ({found.id})"))
    typer.echo(f"{kind}, {state}, started {started}, took {took}\n")
    preset, changed = _changed(found)
    rows = [(name, _clipped(value)) for name, value in changed.items()]
    print_table(rich_table((f"differs from {preset}", "here"), rows or [("none differs", "")]))
    typer.echo()
    numbers = [(name, f"{value:.4g}") for name, value in sorted(found.metrics.items())]
    print_table(rich_table(("metric", "value"), numbers))
    typer.echo()
    print_table(rich_table(("stage", "seconds", ""), _costs(made)))


def compare(first: RunId, second: RunId, as_json: AsJson = False) -> None:
    """Compare two runs: parameters, scores, cost.

    Scores are read from the store under home, and compared problem by problem where both runs were
    graded on the same ones.

    Example: lightreasoner runs compare "microworld 90e837" "microworld beta=0.5 1a2b3c"
    """
    pair = [_found(first), _found(second)]
    from tasks.tracking import history

    made = [history.stages(run) for run in pair]
    tree: dict[str, Any] = {
        "runs": [{"id": run.id, "name": run.name} for run in pair],
        "parameters": _differing(*pair),
        "scores": {},
        "without_scores": None,
        "stages": [[asdict(each) for each in stages] for stages in made],
    }
    try:
        tree["scores"] = _scores(
            *(_graded(run, each) for run, each in zip(pair, made, strict=True))
        )
    except ArtifactError as error:
        tree["without_scores"] = str(error)
    if as_json:
        print_json(tree)
    else:
        _show_comparison(tree, made)


def _show_comparison(tree: dict[str, Any], made: "list[list[PastStage]]") -> None:
    for label, run in zip(("first ", "second"), tree["runs"], strict=True):
        typer.echo(printable_line(f"{label}  {run['name']}  ({run['id']})"))
    typer.echo()
    values = [(name, *map(_clipped, both)) for name, both in tree["parameters"].items()]
    print_table(rich_table(("parameter", "first", "second"), values or [("none differs", "", "")]))
    typer.echo()
    if tree["without_scores"]:
        typer.echo(printable_line(f"scores: {tree['without_scores']}"))
    else:
        headings = ("problem set", "n", "first", "second", "difference, points", "paired p (Holm)")
        print_table(rich_table(headings, [_row(*each) for each in tree["scores"].items()]))
        sizes = {name: each["first"]["problems"] for name, each in tree["scores"].items()}
        typer.echo(f"\n{NOTE}\n{power.note(sizes)}")
    for label, stages in zip(("first", "second"), made, strict=True):
        typer.echo()
        print_table(rich_table((f"{label}: stage", "seconds", ""), _costs(stages)))


def _home() -> Path:
    home = environment.make(environment.home())
    local.connect(home)
    return home


def _found(run: str) -> "Past":
    """The run of this name or id, Prefect's too where its record is kept. Raises RunError."""
    home = _home()
    is_there = local.look(home)
    from tasks.tracking import history

    if not is_there:
        raise history.RunError(
            f"run {run!r}: there is none under {home}; `lightreasoner run` makes one"
        )
    known = {each.prefect: each.mlflow for each in records.newest_first(home)}
    return history.find(known.get(run.lower()) or run)


def _head(run: "Past") -> tuple[str, str, str, str]:
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    took = NONE if run.seconds is None else f"{run.seconds:,.0f} s"
    return run.kind, run.state.lower(), started, took


def _headline(run: "Past") -> str:
    """`76.4% (+12.6) on set tuned`: the first set's accuracy, and the gain, if there is one."""
    for name in json.loads(run.params.get("evaluate.problem_sets", "[]")):
        if (found := run.metrics.get(f"accuracy/{name}")) is not None:
            gain = run.metrics.get(f"gain/{name}")
            over = "" if gain is None else f" ({points(gain)})"
            return f"{percent(found)}{over} on set {name}"
    return NONE


def _changed(run: "Past") -> tuple[str, dict[str, str]]:
    """The preset of the run's expert, else the default, and the parameters that differ from it."""
    from tasks.tracking import mlflow_runs

    preset = presets.of_expert(run.params.get("models.expert", "")) or presets.NAMES[0]
    base = mlflow_runs.flatten(presets.PRESETS[preset])
    return preset, {
        name: value for name, value in sorted(run.params.items()) if base.get(name) != value
    }


def _differing(first: "Past", second: "Past") -> dict[str, list[str | None]]:
    names = sorted(first.params.keys() | second.params.keys())
    both = {name: [run.params.get(name) for run in (first, second)] for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _graded(run: "Past", stages: "Sequence[PastStage]") -> Path:
    """Where the scores of the run's model lie. Raises ArtifactError."""
    from lightreasoner.pipeline.store import Store

    for each in stages:
        if each.name == "evaluate":
            found = Store(environment.home()).stored(STAGES["evaluate"], each.fingerprint)
            if found is None:
                raise ArtifactError(
                    f"the scores of {run.name!r} are not in this store (any more); run it again"
                )
            return found.artifact.path
    raise ArtifactError(f"{run.name!r} has no stage `evaluate` of its own to compare by")


def _scores(first: Path, second: Path) -> dict[str, Any]:
    """For each set both accuracies and the paired difference. Raises ArtifactError."""
    from lightreasoner.evaluation import gains, pairing

    before, after = pairing.read_scores(first), pairing.read_scores(second)
    pairing.check_comparable(before, after)
    rows = gains.by_set(before.rows), gains.by_set(after.rows)
    paired = gains.gain(rows[0], rows[1], (), "strict")["scores"]
    said = [read_json(each / "summary.json") for each in (first, second)]
    return {
        name: {"first": said[0][name], "second": said[1][name], "paired": each}
        for name, each in paired.items()
    }


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    first, second, paired = found["first"], found["second"], found["paired"]
    scores = (accuracy(first), accuracy(second), difference(paired), p_value(paired["p_holm"]))
    return (name, f"{first['problems']:,}", *scores)


def _costs(stages: "Sequence[PastStage]") -> list[tuple[str, ...]]:
    rows = [(each.name, f"{each.seconds:.1f}", "cached" * each.cached) for each in stages]
    computed = sum(each.seconds for each in stages if not each.cached)
    return [*rows, ("computed in this run", f"{computed:.1f}", "")]


def _clipped(value: str | None) -> str:
    text = NONE if value is None else value
    return text if len(text) <= 60 else f"{text[:57]}..."
