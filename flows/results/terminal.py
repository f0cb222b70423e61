"""What the flows found, in the terminal.

The modules of comparisons, which load torch, are imported by what shows one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightreasoner.formatting import (
    ACCURACY_HEADINGS,
    accuracy_rows,
    print_table,
    result_notes,
    rich_table,
)

STAGE_HEADINGS = ("stage", "seconds", "")
WIDEST = 140  # characters of a line, where cells are long
MOST_COLUMNS = 8


def gate_line(model: Mapping[str, Any]) -> str:
    """What the gate decided about a registered version, and from what."""
    gate = model["gate"]
    return f"{gate['verdict']}. {gate['reason']}"


def show_run(report: Mapping[str, Any], console: Console, what_next: Mapping[str, str]) -> None:
    """Print scores, seconds, the registered model and what to open next."""
    model = report["registered_model"]
    name = f"models:/{model['name']}@{model['alias']}"
    console.print()
    print_table(rich_table(ACCURACY_HEADINGS, accuracy_rows(report)), console)
    console.print("", *result_notes(report), sep="\n", soft_wrap=True)
    print_table(rich_table(STAGE_HEADINGS, stage_rows(report)), console)
    console.print()
    console.print(f"registered   {name} (version {model['version']})", soft_wrap=True)
    console.print(f"gate         {gate_line(model)}", soft_wrap=True, highlight=False)
    for label, value in what_next.items():
        console.print(f"{label:<12} {value}", soft_wrap=True)


def show_comparison(found: Mapping[str, Any], console: Console, folder: Path) -> None:
    """Print the methods' table, its notes and where it lies as files."""
    from lightreasoner.experiments import comparison

    table = [comparison.headings(found), *comparison.method_rows(found)]
    show_table(table, comparison.notes(found), console, folder)


def show_rounds(found: Mapping[str, Any], console: Console, folder: Path) -> None:
    """Print the rounds' table, its notes and where it lies as files."""
    from lightreasoner.experiments import rounds

    show_table(rounds.table(found), rounds.notes(found), console, folder)


def show_table(
    table: Sequence[Sequence[str]], notes: Sequence[str], console: Console, folder: Path
) -> None:
    """Print a table, headings first, its notes and where it lies as files."""
    console.print()
    print_table(rich_table(table[0], table[1:]), console)
    console.print()
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    console.print(f"files        {folder}", soft_wrap=True)


def show_table1(
    found: Mapping[str, Any], console: Console, folder: Path, notes: Sequence[str]
) -> None:
    """Print a table of cells: accuracies, gains, how responses ended, notes, where all lies."""
    from lightreasoner.experiments import table1

    for title, rows in table1.tables(found).items():
        # How responses ended before and after a gain is a table of its own.
        shown = [[cell.partition("\ntruncated")[0] for cell in row] for row in rows]
        grid = [table1.headings(found), *shown]
        table = _turned(grid) if len(rows) < MOST_COLUMNS else rich_table(grid[0], shown)
        console.print(f"\n{title}", highlight=False)
        print_table(table, console, WIDEST)
    for note in notes:
        console.print(f"\n{note}", soft_wrap=True, highlight=False)
    console.print(f"\nfiles        {folder}", soft_wrap=True, highlight=False)


def _turned(rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns are these rows, as there may be more sets than fit beside each other.

    Long titles and cells take several lines; nothing is cut off.
    """
    headings, *body = zip(*rows, strict=True)
    return rich_table(("problem set", *headings[1:]), body)


def stage_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row per stage, under STAGE_HEADINGS."""
    return [
        (name, f"{cost['seconds']:.1f}", "cached" if cost["cached"] else "")
        for name, cost in report["stages"].items()
    ]
