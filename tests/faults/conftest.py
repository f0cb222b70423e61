"""The table of all faults, at the end of a run that tried any."""

import os

import ledger
import pytest


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        ledger.forget()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = ledger.table()
    if lines:
        title = f"faults, FAULTS_SEED={ledger.SEED}"
        terminalreporter.section(title)
        terminalreporter.write_line("\n".join(lines))
        text = "\n".join([f"# {title[0].upper()}{title[1:]}", "", *lines, ""])
        ledger.TABLE.write_text(text, encoding="utf-8")
