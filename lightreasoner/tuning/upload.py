"""A model or a sample set on the hub: which files go there, under which card. Only `send` needs the
network.

Weights in safetensors, tables and text files go, nothing that could run. An adapter's curves, which
the pipeline keeps beside it, stay here. The login is huggingface_hub's own (`hf auth login`).
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import yaml
from huggingface_hub import (
    DatasetCard,
    EvalResultEntry,
    HfApi,
    ModelCard,
    eval_result_entries_to_yaml,
)
from huggingface_hub.utils import HFValidationError, validate_repo_id

from lightreasoner import untrusted
from lightreasoner.errors import UploadError
from lightreasoner.inference.model_files import (
    ADAPTER_CONFIG,
    check_links,
    check_weights,
    read_settings,
)
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import adapters, dataset_card, kd_layout, peft_form

CARD = peft_form.CARD
SUFFIXES = {".safetensors", ".json", ".txt", ".jinja", ".md"}
TABLES = {".parquet", ".md"}
RECORDS = {"accuracy.csv", "curve.csv", "validation.csv", "validation.json"}
"""The fine-tuning's curves and what it held out, which lie beside an adapter."""

SCORES = ".eval_results"
WHOLE = {"problems": "all"}
"""The `args` of a card's result on the whole test split of a data set on the hub."""

NO_CARD = (OSError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading a card raises that is none, beside YAML's own."""

ADAPTER_TITLE = "# The LoRA adapter alone\n\nThe card of the model that it was merged into:\n\n"


@dataclass(frozen=True)
class Folder:
    """A directory as it goes to the hub: its files, by name, with sizes in bytes."""

    path: Path
    sizes: dict[str, int]
    kind: Literal["model", "dataset"] = "model"


def prepare(model: Path, card: Path, out: Path, adapter: bool) -> Folder:
    """Put a merged model, or an adapter, into the new directory `out` with its card, and check it.

    Files are linked, not copied. Raises UploadError for files that do not belong on the hub, a
    directory that holds no such model, and a card whose metadata is not valid; ModelError or
    ArtifactError for links that lead out of it, weights elsewhere and a damaged adapter.
    """
    if not model.is_dir():
        raise UploadError(f"{model}: no such directory; give a model's directory or models:/NAME")
    check_links(model)
    artifacts.place(Artifact(model, ""), out)
    for name in RECORDS if adapter else ():
        (out / name).unlink(missing_ok=True)
    _check_files(model, _sizes(out), SUFFIXES)
    _check_model(model, _sizes(out), ADAPTER_CONFIG if adapter else "config.json")
    if adapter:
        adapters.read_adapter(model)
        peft_form.name_for_others(out / ADAPTER_CONFIG)
    else:
        check_weights(model)
    text = _of_adapter(card, out) if adapter else _checked_card(card)
    artifacts.write_text(out / CARD, text)
    with _reading_card(card):
        _write_scores(ModelCard(text), out / SCORES)
    return Folder(out, _sizes(out))


def prepare_dataset(directory: Path, out: Path) -> Folder:
    """Put a sample set, or what `samples export --format kd` wrote, into the new directory `out`.

    A sample set gets a card; what an import left out stays here. Raises UploadError for other
    directories and files, ArtifactError for damaged tables, ModelError for links that lead out.
    """
    if not directory.is_dir():
        raise UploadError(f"{directory}: no such directory; give a sample set's")
    check_links(directory)
    artifacts.place(Artifact(directory, ""), out)
    (out / "excluded.csv").unlink(missing_ok=True)
    _check_files(directory, _sizes(out), TABLES)
    if (directory / "samples.parquet").is_file():
        samples, trajectories = tables.read_sample_set(directory)
        provenance = tables.provenance(directory / "samples.parquet")
        text = dataset_card.of_sample_set(provenance, len(samples), len(trajectories))
        artifacts.write_text(out / CARD, text)
    elif not all((directory / name).is_file() for name in (CARD, kd_layout.FILE)):
        raise UploadError(
            f"{directory}: is neither a sample set nor its export; give what `select` or "
            "`samples export --format kd` wrote"
        )
    else:
        with _reading_card(directory / CARD):
            text = untrusted.read_text(directory / CARD, UploadError, untrusted.SETTINGS_BYTES)
            DatasetCard(text)
    return Folder(out, _sizes(out), "dataset")


def _sizes(directory: Path) -> dict[str, int]:
    files = artifacts.files_under(directory)
    return dict(sorted((f.relative_to(directory).as_posix(), f.stat().st_size) for f in files))


def _check_files(directory: Path, names: Collection[str], suffixes: Collection[str]) -> None:
    unknown = sorted(name for name in names if Path(name).suffix not in suffixes)
    if unknown:
        raise UploadError(
            f"{directory}: {', '.join(unknown)} would go to the hub; only "
            f"{', '.join(sorted(suffixes))} do, so remove what else is there"
        )


def _check_model(model: Path, names: Collection[str], config: str) -> None:
    if config not in names or not any(name.endswith(".safetensors") for name in names):
        raise UploadError(
            f"{model}: has no {config} with safetensors weights; give the directory of a merged "
            "model, or that of an adapter with --adapter"
        )


def _checked_card(path: Path) -> str:
    """A card's text, its metadata checked as far as that goes without the hub."""
    with _reading_card(path):
        card = ModelCard(untrusted.read_text(path, UploadError, untrusted.SETTINGS_BYTES))
        named = card.data.get("base_model") or []
        for name in [
            *([named] if isinstance(named, str) else named),
            *(card.data.get("datasets") or []),
        ]:
            validate_repo_id(name)
    missing = [key for key in ("library_name", "pipeline_tag") if not card.data.get(key)]
    if missing:
        raise UploadError(f"{path}: the card's metadata lacks {' and '.join(missing)}; add it")
    return str(card)


@contextlib.contextmanager
def _reading_card(path: Path) -> Iterator[None]:
    try:
        yield
    except (*NO_CARD, yaml.YAMLError) as error:
        said = untrusted.one_line(error)
        raise UploadError(f"{path}: not a card that the hub can read ({said}); fix it") from error


def _write_scores(card: ModelCard, folder: Path) -> None:
    """Write the card's scores on whole benchmarks as the hub's leaderboards read them: in percent,
    a file each, the set's name being that of the benchmark's task."""
    for result in card.data.get("eval_results") or []:
        if result.dataset_args == WHOLE:
            entry = EvalResultEntry(
                dataset_id=result.dataset_type,
                task_id=result.dataset_name,
                value=round(100 * result.metric_value, 2),
                dataset_revision=result.dataset_revision,
                notes=result.metric_name,
            )
            text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
            name = result.dataset_name.replace("/", "-")
            artifacts.write_text(folder / f"{name}.yaml", text)


def _of_adapter(path: Path, adapter: Path) -> str:
    """The merged model's card as the adapter's: another library, a title of its own, how to load
    it. Without a card the adapter's settings make one."""
    if not path.exists():
        return peft_form.card_text(read_settings(adapter / ADAPTER_CONFIG))
    card = ModelCard(_checked_card(path))
    if card.data["library_name"] != "peft":
        card.data["library_name"] = "peft"
        card.data["tags"] = [tag for tag in card.data.get("tags") or [] if tag != "merged"]
        card.text = f"{ADAPTER_TITLE}{card.text.strip()}\n{peft_form.LOADING}"
    return str(card)


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
        address = api.create_repo(repository, private=True, exist_ok=True, repo_type=folder.kind)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder.path,
            repo_type=folder.kind,
            commit_message="Upload by lightreasoner",
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UploadError(
            f"{repository}: the hub refused it ({first}); check the network, and log in with "
            "`hf auth login`"
        ) from error
    return str(address)
