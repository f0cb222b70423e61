"""The whole command line, run in the tests' own process."""

from typer.testing import CliRunner, Result

from flows.cli import app


def call(*arguments: str) -> Result:
    """What `lightreasoner ARGUMENTS` prints, and how it ends."""
    return CliRunner().invoke(app.application(), arguments)


def faults(result: Result) -> list[str]:
    """The error lines of a command that was refused, with nothing else printed."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]
