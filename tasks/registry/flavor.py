"""An MLflow model around a Hugging Face directory, made by path: no weight is read.

    MLmodel                  the flavours `transformers` and `python_function`
    model/                   the directory itself, for AutoModelForCausalLM.from_pretrained
    components/tokenizer/    its small files again, where MLflow's loader looks for a tokenizer
    requirements.txt, python_env.yaml
    README.md, adapter/      put beside it by versions.py: the card with results, the adapter

`mlflow.transformers.log_model` takes a path too, but fails with transformers 5
(docs/decisions/004-mlflow.md), so the configuration that its loader reads is written here. It
names the Auto classes: for a class that transformers does not know, the loader would run code
that comes with the model.
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

from lightreasoner import yaml12
from lightreasoner.inference.model_files import check_weights
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact

MODEL_DIR = "model"
TOKENIZER_DIR = "components/tokenizer"
REQUIREMENTS = ("mlflow", "torch", "transformers")


def upload(
    client: MlflowClient,
    model_id: str,
    run_id: str | None,
    directory: Path,
    scratch: Path,
    origin: Mapping[str, str],
    max_new_tokens: int,
) -> None:
    """Give the logged model `model_id` its files; `scratch` is an empty directory for small ones.

    `origin` becomes MLmodel's metadata, so that a downloaded copy still says where it comes from.
    A served model answers as it was evaluated: greedily, in at most `max_new_tokens`.
    Raises ModelError if the directory is not a model with safetensors weights.
    """
    check_weights(directory)
    _copy_small_files(directory, scratch / TOKENIZER_DIR)
    _write_environment(scratch)
    described = _describe(model_id, run_id, origin, max_new_tokens)
    files = artifacts.files_under(directory) + artifacts.files_under(scratch)
    described.model_size_bytes = sum(file.stat().st_size for file in files)
    described.save(str(scratch / "MLmodel"))
    give(client, model_id, directory, MODEL_DIR)
    client.log_model_artifacts(model_id, str(scratch))


def give(client: MlflowClient, model_id: str, directory: Path, name: str) -> None:
    """Put a result of the store among a logged model's files, in place of what is there by `name`.

    On the store's disk that is by hard link: its files are read-only, and both the store and
    lookup.py verify digests, so that damage, which both share, is noticed by either. Elsewhere
    MLflow sends a copy. Raises ArtifactError, DiskFullError, and what MLflow raises.
    """
    if here := local_files(client, model_id):
        artifacts.place(Artifact(directory, ""), here / name)
    else:
        client.log_model_artifacts(model_id, str(directory), name)


def local_files(client: MlflowClient, model_id: str) -> Path | None:
    """Where a logged model's files lie; None if that is not on this machine."""
    location = urlsplit(client.get_logged_model(model_id).artifact_location)
    return Path(unquote(location.path)) if location.scheme in ("", "file") else None


def _describe(
    model_id: str, run_id: str | None, origin: Mapping[str, str], max_new_tokens: int
) -> Model:
    """What MLmodel says: how both flavours load the model.

    The keys are those of MLflow's transformers/flavor_config.py and pyfunc.add_to_model, which is
    not called, as importing mlflow.pyfunc warns of MLflow's own type hints.
    """
    text = Schema([ColSpec("string")])
    described = Model(
        run_id=run_id,
        model_id=model_id,
        model_uuid=model_id,
        signature=ModelSignature(inputs=text, outputs=text),
        metadata=dict(origin),
    )
    described.add_flavor(
        "transformers",
        transformers_version=importlib.metadata.version("transformers"),
        task="text-generation",
        instance_type="TextGenerationPipeline",
        pipeline_model_type="AutoModelForCausalLM",
        model_binary=MODEL_DIR,
        components=["tokenizer"],
        tokenizer_type="AutoTokenizer",
    )
    described.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        python_version=platform.python_version(),
        env={"virtualenv": "python_env.yaml"},
        config={"do_sample": False, "max_new_tokens": max_new_tokens},
    )
    return described


def _copy_small_files(directory: Path, out: Path) -> None:
    """All but the weights: the tokenizer's files and the configuration that names its class."""
    out.mkdir(parents=True)
    for file in directory.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copyfile(file, out / file.name)


def _write_environment(out: Path) -> None:
    """requirements.txt of the installed versions, without the local part (`+cpu`) of torch's."""
    pins = [
        f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS
    ]
    (out / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    (out / "python_env.yaml").write_text(yaml12.dump(environment), encoding="utf-8")
