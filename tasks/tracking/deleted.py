"""What was deleted in MLflow, removed for good, as its own `mlflow gc` does.

MLflow only marks a deleted run; its files and rows stay. `mlflow gc` asks nobody whether a
registered version needs them; here what versions need stays. What a killed or failed registering
left, a logged model that is not READY, goes as well.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.tracking import route


@dataclass(frozen=True)
class Deleted:
    """Ids of runs and of logged models, each with the URI of its files."""

    runs: dict[str, str]
    models: dict[str, str]

    def folders(self) -> list[Path]:
        """Where their files lie."""
        places = [*self.runs.values(), *self.models.values()]
        return [Path(unquote(urlsplit(place).path)) for place in places]


def find(
    uri: str, before: float, kept_runs: Collection[str], kept_models: Collection[str]
) -> Deleted:
    """What of a SQLite database was deleted, or left unfinished, `before` (seconds since 1970).

    Only what has its files on this machine; nothing for a database that is not there. Raises
    mlflow_runs.FAILURES.
    """
    if not Path(uri.removeprefix(route.SQLITE)).exists():
        return Deleted({}, {})
    client, store = MlflowClient(uri, uri), _store(uri)
    age = max(0, round(1000 * (time.time() - before)))
    runs = {run: client.get_run(run).info.artifact_uri for run in store._get_deleted_runs(age)}
    models = {
        model: store.get_logged_model(model, allow_deleted=True).artifact_location
        for model in store._get_deleted_logged_models(age)
    }
    models |= {
        model.model_id: model.artifact_location
        for model in _logged_models(client)
        if model.status != LoggedModelStatus.READY and model.last_updated_timestamp <= 1000 * before
    }
    return Deleted(_local(runs, kept_runs), _local(models, kept_models))


def remove(uri: str, found: Deleted) -> None:
    """Remove files, then rows: where that is cut short, both are found again."""
    if not (found.runs or found.models):
        return  # where there is no database, MLflow would make one
    store = _store(uri)
    for run, place in found.runs.items():
        get_artifact_repository(place).delete_artifacts()
        store._hard_delete_run(run)
    for model, place in found.models.items():
        get_artifact_repository(place).delete_artifacts()
        store._hard_delete_logged_model(model)


def _store(uri: str) -> Any:
    """What `mlflow gc` calls: MLflow's public client removes nothing for good."""
    return MlflowClient(uri, uri)._tracking_client.store


def _logged_models(client: MlflowClient) -> Iterator[LoggedModel]:
    experiments = client.search_experiments(view_type=ViewType.ALL)
    ids = [each.experiment_id for each in experiments]
    token = None
    while True:
        page = client.search_logged_models(ids, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _local(places: Mapping[str, str], kept: Collection[str]) -> dict[str, str]:
    return {
        name: place
        for name, place in places.items()
        if name not in kept and urlsplit(place).scheme in ("", "file")
    }
