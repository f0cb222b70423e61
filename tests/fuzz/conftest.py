"""How many cases the fuzz tests tried, at the end of what pytest prints."""

from collections.abc import Callable
from typing import Any

import fuzzing
import pytest


@pytest.fixture
def fuzz(record_property: Callable[[str, object], None]) -> Any:
    """`fuzzing.fuzz`, its cases counted."""

    def counted(*arguments: Any, quick: int, **more: Any) -> int:
        record_property("fuzz cases", quick * fuzzing.TIMES)
        return fuzzing.fuzz(*arguments, quick=quick, **more)

    return counted


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The sum over all tests, of all processes."""
    cases = sum(
        int(count)
        for report in terminalreporter.getreports("passed")
        for name, count in report.user_properties
        if name == "fuzz cases"
    )
    if cases:
        terminalreporter.write_line(f"fuzz: {cases:,} cases passed, seed {fuzzing.SEED}")
