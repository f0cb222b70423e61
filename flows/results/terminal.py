"""What the flows found as tables: for the terminal and for Prefect's interface."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from lightreasoner.evaluation.gains import VERDICTS, Verdict
from lightreasoner.experiments import comparison, table1

HEADINGS = (
    "problem set", "n", "base", "95%", "LightReasoner", "95%", "gain", "95%", "gained/lost",
    "paired p", "qwen: base", "LightReasoner",
)  # fmt: skip
EVALUATION_HEADINGS = (
    "problem set", "n", "strict", "95%", "qwen", "95%", "truncated", "no answer", "no box",
)  # fmt: skip
STAGE_HEADINGS = ("stage", "seconds", "")
WIDEST = 140  # characters of a line
MEASURED = 1000  # the same, where a table is as wide as its cells


def rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a problem set, under HEADINGS; accuracies and intervals in percent, gains in points.

    The last two columns are accuracies by the toolkit's verdict, all else is by the strict one; p
    is corrected for the number of sets.
    """
    base, tuned = report["scores"]["base"], report["scores"]["lightreasoner"]
    return [_row(name, base[name], tuned[name], report["paired"][name]) for name in tuned]


def _row(
    name: str, base: Mapping[str, Any], tuned: Mapping[str, Any], paired: Mapping[str, Any]
) -> tuple[str, ...]:
    return (
        name,
        str(tuned["problems"]),
        f"{base['accuracy']:.1%}",
        _interval(base),
        f"{tuned['accuracy']:.1%}",
        _interval(tuned),
        f"{100 * paired['difference']:+.1f}",
        _interval(paired),
        f"{paired['gained']}/{paired['lost']}",
        f"{paired['p_holm']:.1e}",
        f"{base['qwen']['accuracy']:.1%}",
        f"{tuned['qwen']['accuracy']:.1%}",
    )


def _interval(score: Mapping[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{100 * low:.1f}-{100 * high:.1f}"


def evaluation_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a problem set under EVALUATION_HEADINGS, in percent; both verdicts, and how responses
    ended. `scores` is what the stage's summary.json says.
    """
    return [
        (
            name,
            str(score["problems"]),
            f"{score['accuracy']:.1%}",
            _interval(score),
            f"{score['qwen']['accuracy']:.1%}",
            _interval(score["qwen"]),
            *(f"{score[key] / score['n']:.1%}" for key in ("truncated", "no_answer", "no_box")),
        )
        for name, score in scores.items()
    ]


def on_prompts(report: Mapping[str, Any]) -> list[str]:
    """A sentence where the two models had different prompts."""
    base, tuned = report["styles"]["base"], report["styles"]["lightreasoner"]
    if base == tuned:
        return []
    return [
        f"The base was asked under the prompt style {base}, LightReasoner under {tuned}: the gain "
        "holds what the prompt changes, too; `lightreasoner table1` takes it apart."
    ]


def gate_line(model: Mapping[str, Any]) -> str:
    """What the gate decided about a registered version, and from what."""
    gate = model["gate"]
    return f"{gate['verdict']}. {gate['reason']}"


def show(report: Mapping[str, Any], console: Console, what_next: Mapping[str, str]) -> None:
    """Print scores, seconds, the registered model and what to open next."""
    model = report["registered_model"]
    name = f"models:/{model['name']}@{model['alias']}"
    scores, stages = _table(HEADINGS, rows(report)), _table(STAGE_HEADINGS, _stage_rows(report))
    # A narrow terminal wraps lines; it never loses a column.
    console.width = max(console.width, WIDEST)
    console.print(Group("", scores, "", *on_prompts(report), stages, ""), crop=False)
    console.print(f"registered   {name} (version {model['version']})", soft_wrap=True)
    console.print(f"gate         {gate_line(model)}", soft_wrap=True, highlight=False)
    for label, value in what_next.items():
        console.print(f"{label:<12} {value}", soft_wrap=True)


def show_comparison(found: Mapping[str, Any], console: Console, folder: Path) -> None:
    """Print the methods' table, its notes and where it lies as files."""
    table = _table(tuple(comparison.headings(found)), list(map(tuple, comparison.rows(found))))
    unbounded = console.options.update(width=MEASURED)
    console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(Group("", table, ""), crop=False)
    for note in comparison.notes(found):
        console.print(note, soft_wrap=True, highlight=False)
    console.print(f"files        {folder}", soft_wrap=True)


def show_table1(found: Mapping[str, Any], console: Console, folder: Path) -> None:
    """Print accuracies and gains by both verdicts, how responses ended, notes, where all lies."""
    ends = "Responses that were truncated / had no answer / had no box, percent"
    tables = {
        **{f"Accuracy, {verdict}": table1.rows(found, verdict) for verdict in VERDICTS},
        **{f"Gains, {verdict}": _brief_gains(found, verdict) for verdict in VERDICTS},
        ends: table1.rate_rows(found),
    }
    console.width = max(console.width, WIDEST)
    for title, rows in tables.items():
        turned = _turned([table1.headings(found), *rows])
        console.print(f"\n{title}", turned, sep="\n", crop=False, highlight=False)
    for note in table1.notes(found):
        console.print(f"\n{note}", soft_wrap=True, highlight=False)
    console.print(f"\nfiles        {folder}", soft_wrap=True, highlight=False)


def _brief_gains(found: Mapping[str, Any], verdict: Verdict) -> list[list[str]]:
    """Points, p and corrected p, a line each; how responses ended is a table of its own."""
    rows = table1.gain_rows(found, verdict, ", ")
    return [[title, *("\n".join(cell.split(", ")[:3]) for cell in cells)] for title, *cells in rows]


def _turned(rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns are these rows, as there may be more sets than fit beside each other.

    Long titles and cells take several lines; nothing is cut off.
    """
    headings, *body = zip(*rows, strict=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in body:
        table.add_row(*row)
    return table


def _stage_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, f"{cost['seconds']:.1f}", "cached" if cost["cached"] else "")
        for name, cost in report["stages"].items()
    ]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
