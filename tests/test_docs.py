"""What the documents name is there: modules, files, tests, commands and their options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from flows.cli.app import application

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
# What is a folder of its own has one line in the tree.
FOLDERS = ("lightreasoner/strict", "lightreasoner/microworld")


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def sources() -> set[str]:
    found = {
        source.relative_to(ROOT).as_posix()
        for ring in ("flows", "tasks", "lightreasoner")
        for source in (ROOT / ring).rglob("*.py")
        if source.name != "__init__.py"
    }
    return {source for source in found if not source.startswith(FOLDERS)}


def tree() -> Iterator[str]:
    """The sources that the README's tree names, a ring's under its folder."""
    ring = ""
    block = README.split("## The tree")[1].split("```")[1]
    for indent, text in re.findall(r"^( *)(\S+(?: \S+)*)", block, re.MULTILINE):
        if indent:
            yield from (ring + name for name in text.split() if name.endswith(".py"))
        else:
            ring = text


def test_the_tree_names_every_module_once() -> None:
    assert sorted(tree()) == sorted(sources())


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [file for file in files if not (page.parent / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text):
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}::{test}"


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `lightreasoner` in the page's shell blocks and in its code within lines."""
    text = page.read_text(encoding="utf-8")
    lines = [span.replace("\n", " ") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        program, *words = line.split() or [""]
        if program.split("/")[-1] == "lightreasoner":
            yield shlex.split(" ".join(words), comments=True)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        command = typer.main.get_command(application())
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, " ".join(words)
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help", "--install-completion"}, (
            f"{command.name}: {sorted(used - known)}"
        )


def test_the_readme_shows_commands() -> None:
    assert len(list(commands(PAGES[0]))) > 10
