"""The undisturbed reference, made once; the table of all faults, after a run that tried any."""

import os
from pathlib import Path

import ledger
import pytest
import reference
import shared_folder
from reference import Reference

from lightreasoner.config import Params


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


@pytest.fixture(scope="session")
def undisturbed(run_folder: Path, tiny_params: Params) -> Reference:
    """Every stage's result, without any fault."""
    inputs = shared_folder.once(
        run_folder / "faults-inputs", lambda folder: reference.parameters(folder, tiny_params)
    )
    params = reference.of(inputs, tiny_params)
    made = shared_folder.once(
        run_folder / "faults-reference", lambda folder: Reference(folder, params).fill()
    )
    return Reference(made, params)
