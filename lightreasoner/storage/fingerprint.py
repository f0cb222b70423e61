"""A stage's fingerprint: its configuration, the digests of its inputs, and the code it runs.

The code digest covers the syntax trees of the stage's module and of all project modules that it
imports, however deep; comments, layout and docstrings do not count. Imports under TYPE_CHECKING do
not count either: configuration enters by value. A module's templates (`templates/<module>.*` beside
it) count by their bytes.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE_DIR = Path(__file__).parents[1]
PACKAGES = (
    "accelerate",
    "antlr4-python3-runtime",
    "datasets",
    "jinja2",
    "latex2sympy2-extended",
    "math-verify",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "reasoning-gym",
    "safetensors",
    "scipy",
    "sympy",
    "tokenizers",
    "torch",
    "transformers",
)


def fingerprint(
    stage: str,
    module: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    environment: Mapping[str, str],
) -> str:
    """sha256 of all that determines a stage's result; `inputs` maps artifact names to digests."""
    identity = {
        "stage": stage,
        "config": config,
        "inputs": inputs,
        "code": running_code(module),
        "environment": environment,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that the results rest on, as this process first found them."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def running_code(module: str) -> str:
    """The code digest as it was when this process first asked; the code that it runs."""
    return code_digest(module)


def code_digest(module: str) -> str:
    """sha256 over the syntax trees of a module and of what it imports, and over its templates."""
    digest = hashlib.sha256()
    for path in code_files(module):
        if path.suffix == ".py":
            content, _ = _code(path, path.stat().st_mtime_ns)
        else:
            content = path.read_text(encoding="utf-8")
        digest.update(f"{path.relative_to(PACKAGE_DIR).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()


def code_files(module: str) -> list[Path]:
    """The files of a module (`lightreasoner.sampling.score`) and of its imports here, sorted.

    Each module's templates are among them.
    """
    found: set[Path] = set()
    queue = [module]
    while queue:
        path = _file_of(queue.pop())
        if path is not None and path not in found:
            found |= {path, *path.parent.glob(f"templates/{path.stem}.*")}
            queue += _code(path, path.stat().st_mtime_ns)[1]
    return sorted(found)


def _file_of(module: str) -> Path | None:
    top, _, rest = module.partition(".")
    if top != PACKAGE_DIR.name or not rest:
        return None
    path = PACKAGE_DIR.joinpath(*rest.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.lru_cache
def _code(path: Path, modified: int) -> tuple[str, list[str]]:
    """What counts of a module's code, and the modules that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return ast.dump(_without_docstrings(tree)), _imports(tree)


def _imports(tree: ast.AST) -> list[str]:
    """Modules that a file imports when it runs, function bodies included."""
    names: list[str] = []
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    nodes, queue = [], [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            queue += node.orelse
            continue
        nodes.append(node)
        queue += ast.iter_child_nodes(node)
    return nodes


def _without_docstrings(tree: ast.AST) -> ast.AST:
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, scopes) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def git_commit() -> str | None:
    """The checkout's commit, with `-dirty` after it if files differ; None outside a checkout.

    An installed wheel may lie in a repository of the user's, which says nothing of this code.
    """
    if not (PACKAGE_DIR.parent / "pyproject.toml").is_file():
        return None
    command = ["git", "-C", str(PACKAGE_DIR), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
