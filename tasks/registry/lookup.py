"""Models by what people call them: a version of the registry, a directory, a hub id."""

import re
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from lightreasoner.errors import ModelError
from lightreasoner.inference import loading
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import flavor, versions
from tasks.tracking import mlflow_runs, route

SCHEME = "models:/"
VERSION = re.compile(r"(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[A-Za-z][A-Za-z0-9_-]*))")


def resolve(name: str, home: Path) -> Artifact:
    """The directory of a model and what identifies it.

    `models:/NAME@alias` and `models:/NAME/version` are the registry's, also without `models:/`;
    all else is what inference/loading.py knows. A version's files are taken where they lie, or
    fetched to `<home>/models`. Raises ModelError.
    """
    found = VERSION.fullmatch(name.removeprefix(SCHEME))
    if not name.startswith(SCHEME) and (found is None or Path(name).is_dir()):
        return loading.resolve(name)
    if found is None:
        raise ModelError(
            f"model {name!r}: must read models:/NAME@alias or models:/NAME/version, such as "
            "models:/lightreasoner-microworld@candidate"
        )
    try:
        words = (found["name"], found["version"], found["alias"])
        version = mlflow_runs.at_the_registry(lambda: _version(*words))
        return _checked(name, version, _directory(version, home))
    except (MlflowException, SQLAlchemyError) as error:
        raise ModelError(
            f"model {name}: registry {mlflow_runs.registry()} has no such version "
            f"({route.reason(error)}); look at the models' page, or register one with a run"
        ) from error


def _version(name: str, version: str | None, alias: str | None) -> ModelVersion:
    client = MlflowClient()
    if alias is not None:
        return client.get_model_version_by_alias(name, alias)
    return client.get_model_version(name, str(version))


def _directory(version: ModelVersion, home: Path) -> Path:
    """The version's files where the registry keeps them, if that is here; else a copy."""
    client = MlflowClient()
    model_id = version.model_id or str(version.source).removeprefix(SCHEME)
    here = flavor.local_files(client, model_id)
    if here and (here / flavor.MODEL_DIR).is_dir():
        return here / flavor.MODEL_DIR
    copy = home / "models" / model_id
    if not (copy / flavor.MODEL_DIR).is_dir():
        new = copy.with_name(f"{model_id}.new")
        new.mkdir(parents=True, exist_ok=True)
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"{SCHEME}{model_id}/{flavor.MODEL_DIR}", dst_path=str(new)
        )
        new.rename(copy)
    return copy / flavor.MODEL_DIR


def _checked(name: str, version: ModelVersion, directory: Path) -> Artifact:
    """Refuse files that are not those that were registered."""
    found = loading.resolve(str(directory))
    expected = version.tags.get(versions.DIGEST_TAG)
    if expected not in (None, found.digest):
        raise ModelError(
            f"model {name}: {directory} has digest {found.digest}, "
            f"but {expected} was registered; the files were changed, so run and register again"
        )
    return found
