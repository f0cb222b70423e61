"""What the registry's versions were made from, so that it is kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tasks.registry.versions import RegistryError
from tasks.tracking import route

PAGE = 1000


@dataclass(frozen=True)
class Versions:
    """Fingerprints and digests that versions name; ids of their logged models and runs."""

    keys: set[str]
    digests: set[str]
    models: set[str]
    runs: set[str]


def of_versions(registries: Iterable[str]) -> Versions:
    """What all versions of all models need, by the tags that `versions.origin` gives them.

    A database that is not there has none. Raises RegistryError: what is not known might be needed.
    """
    found = Versions(set(), set(), set(), set())
    for uri in registries:
        if uri.startswith(route.SQLITE) and not Path(uri.removeprefix(route.SQLITE)).exists():
            continue
        try:
            for version in _all(MlflowClient(uri, uri)):
                _add(found, version)
        except (MlflowException, SQLAlchemyError) as error:
            raise RegistryError(
                f"registry {uri}: {route.reason(error)}; what its versions need is not known, so "
                "nothing was removed; mend or start it, then say this again"
            ) from error
    return found


def _all(client: MlflowClient) -> Iterable[ModelVersion]:
    page = client.search_model_versions(max_results=PAGE)
    yield from page
    while page.token:
        page = client.search_model_versions(max_results=PAGE, page_token=page.token)
        yield from page


def _add(found: Versions, version: ModelVersion) -> None:
    for name, value in version.tags.items():
        kind = name.partition(".")[0]
        if kind == "fingerprint":
            found.keys.add(value)
        elif kind == "digest":
            found.digests.add(value)
    found.models.add(version.model_id or str(version.source).removeprefix("models:/"))
    found.runs.update(filter(None, (version.run_id, version.tags.get("pipeline_run"))))
