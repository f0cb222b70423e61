"""Where results go: a command replaces an earlier result, and no file that it did not write."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact

HOME = Path(".lightreasoner")
DATA = HOME / "data"
FILES = {
    "problems": ("problems.jsonl",),
    "trajectories": ("trajectories.parquet",),
    "steps": ("steps.parquet", "trajectories.parquet"),
    "samples": ("samples.parquet", "trajectories.parquet", "excluded.csv"),
    "adapter": (
        "adapter_config.json", "adapter_model.safetensors",
        "curve.csv", "validation.csv", "validation.json",
    ),
    "model": ("*.json", "*.safetensors", "chat_template.jinja", "merges.txt", "README.md"),
    "scores_base": ("scores.parquet", "summary.json"),
    "scores": ("scores.parquet", "summary.json"),
    "report": ("tables.json", "metrics.json", "report.html", "figures/*.png"),
}  # fmt: skip
"""The files of every output, as patterns; `excluded.csv` is of an import."""
NAMED = 3


def check_empty(out: Path) -> None:
    """Refuse a place where a file is, or a folder with any. Raises ArtifactError."""
    _refuse(out, _files(out))


def check(out: Path, output: str, home: Path) -> None:
    """Refuse a place that holds anything but an earlier result. Raises ArtifactError.

    That has the names of its `output`, and a content that `put` noted under `home`. In the
    pipeline's own folder the names are enough: DVC puts results there, too.
    """
    patterns = FILES[output]
    _refuse(out, (n for n in _files(out) if not any(fnmatchcase(n, each) for each in patterns)))
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ArtifactError(f"{out}: is the current folder, or holds it; choose a new directory")
    is_own = out.resolve().parent == DATA.resolve()
    if out.exists() and not is_own and not _note(home, artifacts.digest(out)).exists():
        _refuse(out, _files(out))


def put(artifact: Artifact, output: str, out: Path, home: Path) -> None:
    """Place a result at `out`, checked again as time has passed, and note that it is one."""
    check(out, output, home)
    note = _note(home, artifact.digest)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    artifacts.place(artifact, out)


def _note(home: Path, digest: str) -> Path:
    """The empty file that says that a content was placed; the store may lose it, and does not."""
    return home / "placed" / digest


def _files(out: Path) -> Iterator[str]:
    """The names of all files and links below a directory; none if there is nothing at all."""
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise ArtifactError(f"{out}: is a file; choose a new directory")
    for path in out.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(out).as_posix()


def _refuse(out: Path, names: Iterator[str]) -> None:
    found = list(islice(names, NAMED + 1))
    if found:
        listed = ", ".join([*found[:NAMED], *(["..."] if len(found) > NAMED else [])])
        raise ArtifactError(f"{out}: holds other files ({listed}); choose a new directory")
