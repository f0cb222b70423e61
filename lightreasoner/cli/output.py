"""What commands show: lines that a package logs, and tables."""

import logging
from collections.abc import Sequence


def log_to_stderr(name: str, level: int = logging.INFO) -> None:
    """Show what a package logs as plain lines on stderr."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]
) -> None:
    """A table on stdout, the columns called `numbers` to the right; a narrow terminal wraps lines,
    it never loses a column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, 140)
    console.print(table, crop=False)
