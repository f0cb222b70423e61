"""What commands show of their log."""

import logging


def log_to_stderr(name: str, level: int = logging.INFO) -> None:
    """Show what a package logs as plain lines on stderr."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
