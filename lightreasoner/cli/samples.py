"""`lightreasoner samples`: what sample sets hold, how they differ, and other formats."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightreasoner import config
from lightreasoner.cli import output
from lightreasoner.cli.options import AsJson, Overrides, OverwriteFile, ParamsFile
from lightreasoner.config import PromptStyle
from lightreasoner.errors import ConfigError
from lightreasoner.formatting import interval, percent, print_table, rich_table
from lightreasoner.storage import outputs
from lightreasoner.storage.outputs import DATA

if TYPE_CHECKING:
    from lightreasoner.authors.convert import Imported
    from lightreasoner.sampling.sample_stats import SampleSetDiff, Statistic

NAMED = 5
NUMBERS = ("n", "value (95% CI)", "step", "line")  # columns to the right
Tolerance = Annotated[
    float,
    typer.Option(min=0, max=1, help="Weights that differ by at most this much count as equal."),
]
SampleSet = Annotated[Path, typer.Option("--samples", metavar="DIR", help="The sample set.")]


def application(diff: Callable[..., None] | None = None) -> typer.Typer:
    """The group of commands; `diff` replaces the command that knows only directories."""
    app = typer.Typer(
        help="Sample sets: statistics, differences, other formats.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command in (
        ("stats", stats),
        ("diff", diff or diff_directories),
        ("import", import_file),
        ("export", export),
    ):
        app.command(name)(command)
    return app


def stats(
    steps: Annotated[
        Path | None, typer.Option("--steps", metavar="DIR", help="Scored steps.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="DIR", help="A sample set.")
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(min=1e-9, max=1, help="Plausibility threshold for the labels of --steps."),
    ] = 0.2,
    beta: Annotated[
        float, typer.Option(min=0, help="KL in nats above which steps count as selected.")
    ] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Print the paper's statistics of steps or a sample set.

    Give scored steps, a sample set, or both. Shares have Wilson's 95% interval; the steps of one
    trajectory are not independent, so the true intervals are wider. The paper's own figures stand
    beside them.

    Example: lightreasoner samples stats --steps .lightreasoner/data/steps --beta 0.5
    """
    if steps is None and samples is None:
        raise ConfigError(["samples stats needs --steps, --samples or both"])
    from lightreasoner.sampling.sample_stats import sample_statistics, step_statistics

    found = {}
    if steps is not None:
        title = f"{steps}: labels at alpha {alpha:g}, selection at beta {beta:g} nats"
        found["steps"] = title, step_statistics(steps, alpha, beta)
    if samples is not None:
        found["samples"] = f"{samples}: as selected", sample_statistics(samples)
    if as_json:
        output.print_json({key: list(map(asdict, rows)) for key, (_, rows) in found.items()})
        return
    for title, rows in found.values():
        headings = ("statistic", "n", "value (95% CI)", "paper's")
        _print(title, headings, [_cells(row) for row in rows])


def diff_directories(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A sample set.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    tolerance: Tolerance = 0.0,
    as_json: AsJson = False,
) -> None:
    """Print how two sample sets differ.

    Compares samples, labels, KL and the settings that made them.

    Example: lightreasoner samples diff .lightreasoner/data/samples my-samples
    """
    show_difference(first, second, f"{first} and {second}", tolerance, as_json)


def show_difference(first: Path, second: Path, title: str, tolerance: float, as_json: bool) -> None:
    """Print how the sample sets in two directories differ, under a title."""
    from lightreasoner.sampling import sample_stats

    found = sample_stats.diff(first, second, tolerance=tolerance)
    if as_json:
        output.print_json(asdict(found))
        return
    counts = [(sample_stats.KINDS[kind], f"{count:,}") for kind, count in found.counts.items()]
    _print(title, ("samples", "n"), counts)
    typer.echo(f"largest weight difference: {found.largest_weight_difference:.3g}")
    typer.echo(f"largest KL difference: {found.largest_kl_difference:.3g} nats")
    settings = [(name, str(a), str(b)) for name, (a, b) in found.settings.items()]
    if settings:
        _print("settings that differ", ("setting", "first", "second"), settings)
    if found.examples:
        _print_examples(found, sample_stats.KINDS)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL of the authors' scripts.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new directory for the sample set.")
    ],
    style: Annotated[
        PromptStyle,
        typer.Option(help="The prompt that the expert saw; authors is that of their scripts."),
    ] = "authors",
    problems: Annotated[
        Path | None,
        typer.Option("--problems", metavar="DIR", help="Prepared problems, for their ids."),
    ] = None,
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
) -> None:
    """Turn a file in the authors' format into a sample set.

    It is ready for `finetune`. Prefixes are tokenised again with the tokenizer of models.expert.
    Rows whose token boundary cannot be recovered are left out, counted, and listed in
    DIR/excluded.csv.

    Example: lightreasoner samples import LR_samples.jsonl --out my-samples
    """
    expert = _expert(params, set_)
    from lightreasoner.authors import convert

    result = convert.import_file(file, expert, style, problems, out)
    typer.echo(f"samples import: {result.samples:,} of {result.rows:,} rows  {out}")
    _print_excluded(result, out)


def export(
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The JSONL, or a directory.")],
    samples: SampleSet = DATA / "samples",
    format_: Annotated[
        Literal["authors", "kd"],
        typer.Option("--format", help="The authors' JSONL, or a directory that trainers read."),
    ] = "authors",
    problems: Annotated[
        Path, typer.Option("--problems", metavar="DIR", help="The problems that it comes from.")
    ] = DATA / "problems",
    overwrite: OverwriteFile = False,
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
) -> None:
    """Write a sample set in another format.

    `authors` is their JSONL: prefixes are text, one sample per line; tokens are decoded with the
    tokenizer of models.expert. `kd` is a new directory of token ids with the soft labels at their
    positions, as axolotl's knowledge distillation and `datasets` read it.

    Example: lightreasoner samples export --samples my-samples --out samples.jsonl
    """
    if format_ == "kd":
        outputs.check_new(out)
        from lightreasoner.tuning import kd_layout

        rows = kd_layout.export(samples, out)
    else:
        rows = _export_jsonl(out, samples, problems, overwrite, params, set_)
    typer.echo(f"samples export: {rows:,} rows  {out}")


def _export_jsonl(
    out: Path,
    samples: Path,
    problems: Path,
    overwrite: bool,
    params: Path,
    overrides: list[str] | None,
) -> int:
    from lightreasoner.authors import jsonl

    outputs.check_file(out, jsonl.FIELDS, overwrite)
    expert = _expert(params, overrides)
    from lightreasoner.authors import convert

    return convert.export_file(samples, problems, expert, out)


def _expert(params: Path, overrides: list[str] | None) -> Path:
    """The directory of models.expert."""
    values = config.load(params, overrides or ())
    from lightreasoner.inference import loading

    return loading.resolve(values.models.expert).path


def _cells(row: "Statistic") -> tuple[str, ...]:
    """A statistic as the cells of its table: shares in percent, with their intervals."""
    if row.value is None:
        value = "none"
    elif row.unit == "share":
        value = percent(row.value)
    else:
        sign = "+" if row.unit == "points" else ""
        value = f"{row.value:{sign}.3g} {row.unit}"
    if row.interval:
        value += f" ({interval(row.interval)})"
    return row.name, f"{row.n:,}", value, row.paper


def _print_examples(found: "SampleSetDiff", kinds: dict[str, str]) -> None:
    rows = [
        (
            row.problem_id,
            str(row.step),
            kinds[row.kind],
            "" if row.weight_difference is None else f"{row.weight_difference:.3g}",
        )
        for row in found.examples
    ]
    _print("examples", ("problem", "step", "", "weight difference"), rows)


def _print_excluded(result: "Imported", out: Path) -> None:
    if result.excluded:
        rows = [
            (str(row.line), row.problem_id, str(row.step), row.reason)
            for row in result.excluded[:NAMED]
        ]
        title = f"{len(result.excluded):,} rows left out; all are in {out / 'excluded.csv'}"
        _print(title, ("line", "problem", "step", "why"), rows)


def _print(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    typer.echo(title)
    text = [each for each in headings if each not in NUMBERS]
    print_table(rich_table(headings, rows, text))
    typer.echo()
