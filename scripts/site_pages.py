"""What the documentation's site has beside docs/: a hook of MkDocs (mkdocs.yml).

- a page per package of the code, with its modules' docstrings (mkdocstrings), under API;
- CONTRIBUTING.md and CHANGELOG.md as pages;
- each file of the repository that a page links, under `files/`.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
RINGS = ("lightreasoner", "tasks", "flows")
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the API's pages into the navigation."""
    assert config.nav is not None
    config.nav.append({"API": ["api/index.md", *(f"api/{name}.md" for name, _ in packages())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written here, and the files that pages link."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=_moved(ROOT / source, name)))
    for name, modules in packages():
        files.append(File.generated(config, f"api/{name}.md", content=api_page(name, modules)))
    files.append(File.generated(config, "api/index.md", content=api_index()))
    pages = [ROOT / source for source in PAGES.values()]
    pages += (Path(config.docs_dir)).rglob("*.md")
    for file in sorted({file for page in pages for file in _linked(page, config)}):
        path = ROOT / file
        files.append(File.generated(config, f"files/{file}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ to the copies under `files/`."""
    if page.file.generated_by is not None:
        return markdown
    here = Path(config.docs_dir, page.file.src_uri).parent
    return LINK.sub(lambda link: _led(link, here, page.file.src_uri), markdown)


def packages() -> Iterator[tuple[str, list[str]]]:
    """Each package's dotted name, and its modules that are no packages."""
    for ring in RINGS:
        for folder in sorted({path.parent for path in (ROOT / ring).rglob("*.py")}):
            name = folder.relative_to(ROOT).as_posix().replace("/", ".")
            modules = sorted(path.stem for path in folder.glob("*.py") if path.stem[0] != "_")
            if modules:
                yield name, [f"{name}.{module}" for module in modules]


def api_page(name: str, modules: list[str]) -> str:
    """The page of a package: its docstring and each of its modules."""
    init = ROOT.joinpath(*name.split("."), "__init__.py").read_text("utf-8")
    says = ast.get_docstring(ast.parse(init)) or ""
    return "\n\n".join([f"# {name}", says, *(f"::: {module}" for module in modules), ""])


def api_index() -> str:
    """The page that lists the packages."""
    rows = [f"- [{name}]({name}.md)" for name, _ in packages()]
    return "\n".join(["# API", "", "Made from the docstrings, a page per package.", "", *rows, ""])


def _moved(source: Path, name: str) -> str:
    """A page of the repository's top, its links as they are from the site's top."""
    return LINK.sub(lambda link: _led(link, source.parent, name), source.read_text("utf-8"))


def _linked(page: Path, config: MkDocsConfig) -> Iterator[str]:
    """Files outside docs/ that a page links, relative to the repository's top."""
    for _, target, _ in LINK.findall(page.read_text("utf-8")):
        file = (page.parent / target).resolve()
        if file.is_file() and not _as_page(file):
            yield file.relative_to(ROOT).as_posix()


def _as_page(file: Path) -> str | None:
    """Where a file of the repository is on the site; None for one that pages link as a file."""
    name = file.relative_to(ROOT).as_posix()
    tops = {source: page for page, source in PAGES.items()} | {"README.md": "index.md"}
    return tops.get(name, name.removeprefix("docs/") if name.startswith("docs/") else None)


def _led(link: re.Match[str], here: Path, page: str) -> str:
    file = (here / link[2]).resolve()
    if not file.is_relative_to(ROOT):
        return link[0]
    to = _as_page(file) or f"files/{file.relative_to(ROOT).as_posix()}"
    return f"{link[1]}{os.path.relpath(to, PurePosixPath(page).parent)}{link[3]}"
