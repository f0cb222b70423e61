"""What the documents name is there, and what they tell people to type works.

Before each block of commands stands its mark, an HTML comment: `run`, `run in: FOLDER` (the slow
test here runs it in a checkout with a finished run), `run by: X` (a test file or script that runs
the like) or `needs: X` (what is not here).
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dvc_checkout
import pytest
import typer
from checkout import ROOT
from typer.core import TyperGroup

from flows.cli.app import application
from lightreasoner import config
from lightreasoner.formatting import ACCURACY_HEADINGS
from lightreasoner.presets import PRESETS

RINGS = ("lightreasoner", "tasks", "flows")
README, CONTRIBUTING, CHANGELOG = (
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
)
PAGES = [README, CONTRIBUTING, *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("sh", "bash", "shell", "console", "python")
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```", re.M | re.S
)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
SMALL = {"finetune": {"updates": 30}, "evaluate": {"problem_sets": ["tuned"], "n_problems": 40}}
"""What makes a run of the default shorter; the problems and what is selected stay."""


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A block of commands and the mark before it."""

    mark: str | None
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = [Block(**each.groupdict()) for each in BLOCK.finditer(page.read_text("utf-8"))]
    return [block for block in found if block.language in LANGUAGES]


def called(name: str) -> list[Path]:
    return list((ROOT / "tests").rglob(name))


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=names)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [file for file in files if not (page.parent / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in re.findall(r"\b(test_\w+\.py)(?:::(test_\w+))?", text):
        found = called(file)
        assert found, file
        assert f"def {test}" in found[0].read_text(encoding="utf-8"), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_files_of_the_tests_are_where_a_page_says(page: Path) -> None:
    named = re.findall(r"\btests/[\w/]+\.\w+", page.read_text(encoding="utf-8"))
    assert [file for file in named if not (ROOT / file).is_file()] == []


def sources_called(name: str) -> list[Path]:
    """The files that a path in a page may mean: from the top, or from a folder of the rings."""
    if (ROOT / name).is_file():
        return [ROOT / name]
    tops = [*RINGS, "recipes", "benchmarks", "scripts", "tests"]
    return [path for top in tops for path in (ROOT / top).rglob(Path(name).name)
            if path.as_posix().endswith(f"/{name}")]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_named_sources_and_functions_exist(page: Path) -> None:
    spans = SPAN.findall(page.read_text(encoding="utf-8"))
    named = [re.fullmatch(r"([\w./-]+\.py)(?:::(\w+))?", span) for span in spans]
    for file, function in (found.groups() for found in named if found):
        if not Path(file).name.startswith("test_") and not file.startswith("mlflow/"):
            paths = sources_called(file)
            assert paths, file
            defined = rf"^(def|class) {function}\b" if function else ""
            assert re.search(defined, paths[0].read_text("utf-8"), re.M), f"{file}::{function}"


def test_the_tour_names_every_folder() -> None:
    """Each package of the rings, from the top; strict and what is below a named folder apart."""
    tour = CONTRIBUTING.read_text("utf-8").partition("### The folders")[2].partition("\n## ")[0]
    packages = {path.parent for ring in RINGS for path in (ROOT / ring).rglob("*.py")}
    named = set(re.findall(r"^\| `([\w/]+)/`", tour, re.M))
    missing = {names(path) for path in packages} - named
    assert missing == {"lightreasoner/grading/strict"}


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `lightreasoner` in the page's shell blocks and in its code within lines."""
    lines = [span.replace("\n", " ") for span in SPAN.findall(page.read_text("utf-8"))]
    for block in blocks(page):
        if block.language != "python":
            lines += block.text.replace("\\\n", " ").splitlines()
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


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_block_of_commands_has_a_mark(page: Path) -> None:
    for block in blocks(page):
        kind, _, what = (block.mark or "").partition(": ")
        assert kind in ("run", "run in", "run by", "needs"), f"no mark before:\n{block.text}"
        assert bool(what) == (kind != "run"), f"the mark of\n{block.text}"
        if kind == "run by":
            assert called(what) or (ROOT / what).is_file(), what


def test_the_readme_is_short_and_shows_what_is_run() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 170
    assert [block.mark for block in blocks(README)].count("run") >= 2


def test_the_readmes_table_has_the_columns_that_a_run_prints() -> None:
    head = README.read_text(encoding="utf-8").partition("\ntuned  ")[0]
    shown = head.rpartition("\n```\n")[2]
    assert sorted(shown.split()) == sorted(" ".join(ACCURACY_HEADINGS).split())


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    newest = re.findall(
        r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", CHANGELOG.read_text("utf-8"), re.M
    )[0]
    cited = (ROOT / "CITATION.cff").read_text("utf-8")
    assert newest[0] == project
    assert f"version: {project}\ndate-released: {newest[1]}\n" in cited


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the default, made shorter, in which `dvc repro` has finished."""
    tree = PRESETS["microworld"].model_dump(mode="json")
    tree = {name: {**section, **SMALL.get(name, {})} for name, section in tree.items()}
    checkout = tmp_path_factory.mktemp("docs") / "checkout"
    dvc_checkout.make(checkout, config.parse(tree, "test"))
    (checkout / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for environment in (".venv", ".venv-dvc"):
        (checkout / environment).symlink_to(ROOT / environment)
    run(checkout, Block("run", "sh", ".venv/bin/dvc repro"))
    dvc_checkout.commit(checkout, "a finished run")
    return checkout


def run(checkout: Path, block: Block) -> None:
    """Run a block as it stands; `make setup` alone is left out, for it would make .venv anew."""
    folder = checkout
    if block.mark and block.mark.startswith("run in: "):
        folder = checkout / block.mark.removeprefix("run in: ")
    program = [sys.executable, "-c", block.text]
    if block.language != "python":
        as_made = 'set -euo pipefail; make() { command make -o setup "$@"; }\n'
        program = ["bash", "-c", as_made + block.text]
    environment = dvc_checkout.environment(checkout)
    programs = [str(ROOT / name / "bin") for name in (".venv", ".venv-dvc")]
    environment["PATH"] = os.pathsep.join([*programs, environment["PATH"]])
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


RUN = [page for page in PAGES if any((b.mark or "").startswith(("run in", "run")) and
       not (b.mark or "").startswith("run by") for b in blocks(page))]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=names)
def test_the_blocks_run(checkout: Path, page: Path) -> None:
    dvc_checkout.git(checkout, "restore", ".")
    for block in blocks(page):
        if block.mark == "run" or (block.mark or "").startswith("run in: "):
            run(checkout, block)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_outside_host(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    loads = r"<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//"
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(loads, text), page
        # Material fetches Mermaid from outside for diagrams, and only for them.
        assert 'class="mermaid"' not in text, page
    styles = "".join(path.read_text("utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles)
