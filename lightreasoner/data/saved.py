"""Data sets that `datasets` saved with `save_to_disk`: folders, read by `datasets` itself.

A Dataset is a folder with `state.json`, which names its Arrow files; a DatasetDict is one with
`dataset_dict.json` and a Dataset per split. What they name must lie in the folder, whose content
is what a result's key says; and the files are checked before they are opened (user_files.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightreasoner import untrusted
from lightreasoner.data import user_files
from lightreasoner.data.user_files import Row
from lightreasoner.errors import ProblemsError
from lightreasoner.untrusted import listed, shown

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder is a Dataset or a DatasetDict."""
    return any(untrusted.exists(folder / name) for name in (SPLITS, STATE))


def splits(folder: Path) -> list[str]:
    """The splits of a DatasetDict; none of a Dataset. Raises ProblemsError."""
    if not untrusted.exists(folder / SPLITS):
        return []
    return _names(folder / SPLITS, lambda tree: tree["splits"])


def read(folder: Path, split: str) -> list[tuple[int, Row]]:
    """The rows of a Dataset, or of a DatasetDict's split, with their numbers, from 1.

    Raises ProblemsError.
    """
    if untrusted.exists(folder / SPLITS):
        there = splits(folder)
        if split not in there:
            raise ProblemsError(
                f"{folder}: a DatasetDict without the split {split}, which is read here; it has "
                f"{listed(there) or 'none'}; give one of them as the source, as {folder}/SPLIT"
            )
        folder = folder / split
    with user_files.readable(f"{folder}: not a readable Dataset of save_to_disk"):
        _check(folder)
        loaded = _load(folder)
        pieces = (batch for table in loaded.iter(user_files.BATCH) for batch in table.to_batches())
        rows = user_files.rows_of(user_files.limited(loaded.data.schema, pieces))
    return list(enumerate(rows, start=1))


def _load(folder: Path) -> Any:
    """The Dataset, its rows as Arrow tables. Raises ValueError, OSError, pyarrow's errors."""
    import datasets

    try:
        return datasets.load_from_disk(str(folder.resolve())).with_format("arrow")
    except (AttributeError, TypeError) as error:  # what a list in place of an object leads to
        raise ValueError(untrusted.one_line(error)) from error


def _check(folder: Path) -> None:
    """Refuse JSON and Arrow files beyond the limits. Raises ProblemsError, ValueError, OSError."""
    untrusted.read_json(folder / INFO, ProblemsError)
    for name in _names(folder / STATE, lambda state: [f["filename"] for f in state["_data_files"]]):
        with untrusted.open_file(folder / name, ProblemsError, untrusted.TEXT_BYTES) as file:
            user_files.check_arrow(file)


def _names(path: Path, read: Callable[[Any], Any]) -> list[str]:
    """What a file of JSON names beside it. Raises ProblemsError for what lies elsewhere."""
    tree = untrusted.read_json(path, ProblemsError)
    try:
        names = read(tree)
        are_names = all(Path(name).name == name != ".." for name in names)
    except (TypeError, KeyError, ValueError):
        are_names = False
    if not are_names:
        raise ProblemsError(
            f"{path}: must name what lies beside it, got {shown(tree)}; save it again"
        )
    return list(names)
