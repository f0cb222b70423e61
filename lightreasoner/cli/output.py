"""What commands show of their log."""

import logging

from lightreasoner.untrusted import printable_line


class _OneLine(logging.Formatter):
    """A record's message in one printable line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's name
        return printable_line(record.message)


def log_to_stderr(name: str, level: int = logging.INFO) -> None:
    """Show what a package logs as plain lines on stderr."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger.handlers = [handler]
