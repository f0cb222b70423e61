"""What a command tells while it works: to who looks, unless it is to be quiet."""

import io
import logging
import os

import pytest

from lightreasoner.cli import output
from lightreasoner.progress import TerminalBar


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_bar_is_for_a_terminal_and_not_if_quiet(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, terminal = os.openpty()
    output.log_to_stderr("lightreasoner", level)
    logging.getLogger("lightreasoner").setLevel(logging.INFO)  # as flows/pipeline.py does
    with open(terminal, "w") as screen:  # noqa: PTH123, a descriptor
        monkeypatch.setattr("sys.stderr", screen)
        assert TerminalBar("score").bar.disable == (level == logging.WARNING)
    os.close(leader)


def test_a_package_tells_as_much_as_lightreasoner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", said := io.StringIO())
    for level in (logging.WARNING, logging.INFO):
        output.log_to_stderr("lightreasoner", level)
        output.log_to_stderr("flows")
        logging.getLogger("flows.x").info("told at %d", level)
    assert said.getvalue() == f"told at {logging.INFO}\n"
