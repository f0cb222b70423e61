"""What commands show of their log, and results for machines."""

import json
import logging
from typing import Any

import typer

from lightreasoner.untrusted import printable_line


class _OneLine(logging.Formatter):
    """A record's message in one printable line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's name
        return printable_line(record.message)


def log_to_stderr(name: str, level: int | None = None) -> None:
    """Show what a package logs as plain lines on stderr, by default from lightreasoner's level.

    A flow may let more through, for Prefect's pages; that is not shown here.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.getLogger("lightreasoner").level if level is None else level)
    handler = logging.StreamHandler()
    handler.setLevel(logger.level)
    handler.setFormatter(_OneLine())
    logger.handlers = [handler]


def print_json(tree: Any) -> None:
    """Print a result as one JSON document (`--json`)."""
    typer.echo(json.dumps(tree, indent=1))
