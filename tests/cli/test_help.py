"""Help at 80 columns: every command in its group, no sentence cut off."""

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import app as full
from lightreasoner.cli import app as pure

PIPELINE = ["init", "run", "compare", "sweep", "rounds", "table1", "controls", "runs"]
GROUPS = {
    "The pipeline": ["preset", "plan"],
    "Single stages": [
        "prepare", "generate", "score", "select", "finetune", "merge", "evaluate-base", "report",
    ],
    "Evaluate": ["evaluate", "prompts", "grade", "pair", "power"],
    "Sample sets": ["keep", "gold", "explain", "samples"],
    "Models": ["adapter"],
    "The store": ["store"],
}  # fmt: skip
WITH_SERVERS = {
    **GROUPS,
    "The pipeline": [*GROUPS["The pipeline"], *PIPELINE],
    "Models": ["adapter", "register", "publish", "push"],
    "Servers": ["up", "down", "status", "sync"],
}


def shown(app: typer.Typer, *arguments: str) -> str:
    """The help at 80 columns, of which click leaves two free; its runner would fill all 80."""
    done = CliRunner().invoke(app, [*arguments, "--help"], terminal_width=78)
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    return done.stdout


def groups(text: str) -> dict[str, list[str]]:
    """The headings after the options, each with the commands below it."""
    found: dict[str, list[str]] = {}
    for line in text.partition("\nOptions:")[2].splitlines():
        if line and not line.startswith(" "):
            found[line.removesuffix(":")] = commands = []
        elif found and line:
            commands.append(line.split()[0])
    return found


@pytest.mark.parametrize(
    ("app", "expected"),
    [(pure.application(), GROUPS), (full.application(), WITH_SERVERS)],
    ids=["pure", "full"],
)
def test_every_command_is_in_its_group(app: typer.Typer, expected: dict[str, list[str]]) -> None:
    text = shown(app)
    assert groups(text) == expected
    commands = typer.main.get_group(app).commands
    assert sorted(each for group in expected.values() for each in group) == sorted(commands)
    assert "..." not in text.partition("The pipeline:")[2]


@pytest.mark.parametrize("group", ["samples", "runs", "store"])
def test_no_help_of_a_group_is_cut_off(group: str) -> None:
    assert "..." not in shown(full.application(), group).partition("Commands:")[2]
