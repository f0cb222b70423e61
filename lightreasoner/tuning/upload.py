"""A model on the hub: which files go there, under which card. Only `send` needs the network.

Weights in safetensors and text files go, nothing that could run. An adapter's curves, which the
pipeline keeps beside it, stay here. The login is huggingface_hub's own (`hf auth login`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import HFValidationError, validate_repo_id

from lightreasoner import untrusted
from lightreasoner.errors import UploadError
from lightreasoner.inference.model_files import (
    ADAPTER_CONFIG,
    check_links,
    check_weights,
    read_settings,
)
from lightreasoner.storage import artifacts
from lightreasoner.tuning import adapters

CARD = "README.md"
SUFFIXES = {".safetensors", ".json", ".txt", ".jinja", ".md"}
RECORDS = {"curve.csv", "validation.csv", "validation.json"}
"""The fine-tuning's curves and what it held out, which lie beside an adapter."""

NO_CARD = (OSError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading a card raises that is none, beside YAML's own."""

ADAPTER_TITLE = "# The LoRA adapter alone\n\nThe card of the model that it was merged into:\n\n"


@dataclass(frozen=True)
class Folder:
    """A directory as it goes to the hub: its files, by name, with sizes in bytes."""

    path: Path
    sizes: dict[str, int]


def prepare(model: Path, card: Path, out: Path, adapter: bool) -> Folder:
    """Put a merged model, or an adapter, into the new directory `out` with its card, and check it.

    Files are linked, not copied. Raises UploadError for files that do not belong on the hub, a
    directory that holds no such model, and a card whose metadata is not valid; ModelError or
    ArtifactError for links that lead out of it, weights elsewhere and a damaged adapter.
    """
    if not model.is_dir():
        raise UploadError(f"{model}: no such directory; give a model's directory or models:/NAME")
    check_links(model)
    artifacts.place(artifacts.of(model), out)
    text = _checked_card(card)
    if adapter:
        for name in RECORDS:
            (out / name).unlink(missing_ok=True)
        _name_base(out / ADAPTER_CONFIG)
        text = _of_adapter(text)
    artifacts.write_text(out / CARD, text)
    files = {
        file.relative_to(out).as_posix(): file.stat().st_size for file in artifacts.files_under(out)
    }
    _check_files(model, files, ADAPTER_CONFIG if adapter else "config.json")
    if adapter:
        adapters.read_adapter(model)
    else:
        check_weights(model)
    return Folder(out, dict(sorted(files.items())))


def _check_files(model: Path, names: Sequence[str] | dict[str, int], config: str) -> None:
    unknown = sorted(name for name in names if Path(name).suffix not in SUFFIXES)
    if unknown:
        raise UploadError(
            f"{model}: {', '.join(unknown)} would go to the hub; only "
            f"{', '.join(sorted(SUFFIXES))} do, so remove what else is there"
        )
    if config not in names or not any(name.endswith(".safetensors") for name in names):
        raise UploadError(
            f"{model}: has no {config} with safetensors weights; give the directory of a merged "
            "model, or that of an adapter with --adapter"
        )


def _checked_card(path: Path) -> str:
    """A card's text, its metadata checked as far as that goes without the hub."""
    try:
        card = ModelCard(untrusted.read_text(path, UploadError, untrusted.SETTINGS_BYTES))
        named = card.data.get("base_model") or []
        for name in [
            *([named] if isinstance(named, str) else named),
            *(card.data.get("datasets") or []),
        ]:
            validate_repo_id(name)
    except (*NO_CARD, yaml.YAMLError) as error:
        said = untrusted.one_line(error)
        raise UploadError(f"{path}: not a card that the hub can read ({said}); fix it") from error
    missing = [key for key in ("library_name", "pipeline_tag") if not card.data.get(key)]
    if missing:
        raise UploadError(f"{path}: the card's metadata lacks {' and '.join(missing)}; add it")
    return str(card)


def _of_adapter(text: str) -> str:
    """The merged model's card as the adapter's: another library, a title of its own."""
    card = ModelCard(text)
    if card.data["library_name"] == "peft":
        return text
    card.data["library_name"] = "peft"
    card.data["tags"] = [tag for tag in card.data.get("tags") or [] if tag != "merged"]
    card.text = ADAPTER_TITLE + card.text.lstrip()
    return str(card)


def _name_base(path: Path) -> None:
    """Give the base as peft looks it up, name and commit apart, if it came from the hub."""
    if not path.is_file():
        return
    settings = read_settings(path)
    base = str(settings.get("base_model_name_or_path"))
    if artifacts.is_pinned(base):
        name, _, commit = base.partition("@")
        settings |= {"base_model_name_or_path": name, "revision": commit}
        artifacts.write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def check_repository(repository: str) -> None:
    """Raise UploadError unless it reads owner/name."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UploadError(f"--repo {repository}: {' '.join(str(error).split())}") from error
    if repository.count("/") != 1:
        raise UploadError(f"--repo {repository}: must read owner/name; add the owner")


def send(folder: Folder, repository: str) -> str:
    """Upload to a repository of the hub, a new one being private; its address.

    Raises UploadError where the hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder.path, commit_message="Upload by lightreasoner"
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UploadError(
            f"{repository}: the hub refused it ({first}); check the network, and log in with "
            "`hf auth login`"
        ) from error
    return str(address)
