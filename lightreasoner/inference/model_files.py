"""A model's or adapter's files, checked before anything loads them: they may be a stranger's.

Weights are safetensors inside the directory, so that its digest covers them; no link leads out of
it; settings are JSON objects whose fields are of the kinds that are read here.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightreasoner import memory, untrusted
from lightreasoner.errors import ModelError
from lightreasoner.storage.artifacts import MOST_FILES
from lightreasoner.untrusted import one_line, shown

PICKLED_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
LIMITS = {
    re.compile(r"(num_|n_layer|n_head)\w*"): 10_000,  # layers, heads, experts, labels
    re.compile(r"\w+_(size|dim)|n_embd|d_model"): 1 << 24,
}
"""Numbers in config.json: what transformers makes before it looks at the weights takes time and
memory by them."""


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object, with or without a byte order mark. Raises ModelError."""
    try:
        tree = untrusted.read_json(path, ModelError)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; save or fetch it again") from error
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: must hold a JSON object, got {shown(tree, 40)}; save it again")
    return tree


def check_links(directory: Path) -> None:
    """Refuse all that is neither a file of the directory nor a link to one. Raises ModelError.

    The hub's own cache is of links: snapshots/<commit>/<file> leads to blobs/<sum>.
    """
    root = directory.resolve()
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else None
    left = MOST_FILES
    for folder, folders, names in os.walk(root):
        left -= len(folders) + len(names)
        if left < 0:
            raise ModelError(
                f"{directory}: holds over {MOST_FILES:,} files; give a model's own directory"
            )
        for name in (*folders, *names):
            entry = Path(folder, name)
            if entry.is_dir() and not entry.is_symlink():
                continue
            target = Path(os.path.realpath(entry))
            is_own = target.is_relative_to(root) or target.parent == blobs
            if not (is_own and target.is_file()):
                raise ModelError(
                    f"{directory / entry.relative_to(root)}: is not a file in the "
                    f"directory (it leads to {target}); copy it in or remove it"
                )


def check_weights(directory: Path) -> None:
    """Raise ModelError for a directory that is not a model, or from which transformers would read
    weights that are elsewhere or not safetensors."""
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"{directory}: no config.json; give a directory in the Hugging Face layout"
        )
    check_links(directory)
    for index in sorted(directory.glob("*.safetensors.index.json")):
        _check_index(index)
    if not any((directory / name).is_file() for name in (WEIGHTS, INDEX)):
        raise ModelError(f"{directory}: {_found_instead(directory)}")
    config = read_settings(directory / "config.json")
    _check_limits(directory / "config.json", config)
    if named := config.get("transformers_weights"):
        raise ModelError(
            f"{directory / 'config.json'}: transformers_weights names {shown(named, 80)}; only "
            f"{WEIGHTS} and the files of {INDEX} are read, so rename them and remove the entry"
        )
    if (directory / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"{directory / ADAPTER_CONFIG}: is beside a model, and transformers would "
            "apply it unasked; move the adapter away, or merge it first"
        )


def check_tokenizer(directory: Path) -> None:
    """Refuse a directory whose tokenizer is not its tokenizer.json. Raises ModelError."""
    if not (directory / "tokenizer.json").is_file():
        raise ModelError(
            f"{directory}: no tokenizer.json; save the model's fast tokenizer beside it"
        )
    for path in (directory / name for name in TOKENIZER_SETTINGS):
        if path.is_file() and (named := read_settings(path).get("fast_tokenizer_files")):
            raise ModelError(
                f"{path}: fast_tokenizer_files names {shown(named, 80)}; only tokenizer.json is "
                "read, so remove the entry"
            )


def _check_limits(path: Path, tree: Any) -> None:
    """Refuse a number in a config.json, at any depth, that no model has."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        for pattern, limit in LIMITS.items():
            if isinstance(value, int) and value > limit and pattern.fullmatch(name):
                raise ModelError(
                    f"{path}: {name} is {shown(value, 40)}, the limit {limit:,}; correct it, or "
                    "fetch the file again"
                )
        _check_limits(path, value)


def _check_index(path: Path) -> None:
    shards = read_settings(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{path}: has no weight_map of names and files; save the model again")
    for name in dict.fromkeys(map(str, shards.values())):
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise ModelError(
                f"{path}: maps weights to {name!r}; only *.safetensors beside it are read, so save "
                "the model again with save_pretrained"
            )
        if not (path.parent / name).is_file():
            raise ModelError(
                f"{path}: maps weights to {name!r}, which is not there; fetch the model again"
            )


def _found_instead(directory: Path) -> str:
    """What a directory holds that has no weights to read, and the remedy."""
    if any(directory.glob("*.safetensors")):
        return f"holds neither {WEIGHTS} nor {INDEX}; save the model again with save_pretrained"
    pickled = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLED_SUFFIXES)
    found = f"pickled weights only ({', '.join(pickled)})" if pickled else "no weights"
    return (
        f"holds {found}; only safetensors are read, so convert them with "
        "save_pretrained(..., safe_serialization=True)"
    )


def configured(config: Path, field: str, first: dict[str, Any] | None = None) -> int:
    """A whole number over 0 at the top level of a model's config.json, or `first` of all there."""
    value = (first or {}).get(field) or read_settings(config).get(field)
    if type(value) is not int or value < 1:
        raise ModelError(
            f"{config}: {field} must be a number at its top level, got {value!r:.80}; models that "
            "name or nest it otherwise are not supported"
        )
    return value


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What transformers and the libraries under it say of files that they cannot take, in a line.

    Raises ModelError; an error about too little memory passes.
    """
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:  # tokenizers raises no kind of its own
        is_panic = type(error).__name__ == "PanicException"  # of Rust's, no Exception
        if memory.is_shortage(error) or not (is_panic or isinstance(error, Exception)):
            raise
        said = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(f"{path}: cannot be loaded ({said}); repair or fetch it again") from error
