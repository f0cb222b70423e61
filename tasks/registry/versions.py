"""The model registry: a merged model becomes a version that leads back to all it was made from.

Registering is idempotent by the model digest's tag in the target registry. No lock is held, as
the registry may serve more than one machine: whoever makes a version looks again, and if another
has made an earlier one of the same digest meanwhile, takes its own back. The version carries its
digest from the moment it exists, so the earliest is the same for all.
"""

import contextlib
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from sqlalchemy.exc import SQLAlchemyError

from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError, LightReasonerError
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.pipeline.store import Outcome
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import peft_form
from tasks.registry import card, flavor
from tasks.tracking import measures, mlflow_runs, route

DIGEST_TAG = "digest.model"
REASON_TAG = "gate.reason"
ADAPTER_DIR = "adapter"

log = logging.getLogger(__name__)


class RegistryError(LightReasonerError):
    """The model registry cannot be reached or refuses the model."""


@dataclass(frozen=True)
class Registered:
    """A version in the registry; `created` is False if the registry had it already."""

    name: str
    version: str
    alias: str
    created: bool


def register_version(
    model: Artifact, outcomes: Mapping[str, Outcome], params: Params, run_id: str | None
) -> Registered:
    """Register the merged model, or find the version that has its digest, and move the alias.

    `outcomes` are the pipeline's, in any key; `run_id` is the pipeline's run, None without one.
    Raises RegistryError, ModelError if the directory is no model, DiskFullError.
    """
    by_stage = {outcome.manifest["stage"]: outcome for outcome in outcomes.values()}
    with reached(model):
        return mlflow_runs.at_the_registry(lambda: _register(model, by_stage, params, run_id))


def _register(
    model: Artifact, outcomes: Mapping[str, Outcome], params: Params, run_id: str | None
) -> Registered:
    name, alias = params.register.name, params.register.alias
    client = MlflowClient()
    found = _earliest(client, name, model.digest)
    created = found is None
    if found is None:
        own = _create(client, model, outcomes, params, run_id or mlflow_runs.UNTRACKED)
        found = _earliest(client, name, model.digest) or own
        created = found.version == own.version
        if not created:
            client.delete_model_version(name, own.version)
    if not created:
        _mend(client, model, found)
        _bring_up_to_date(client, model, found, outcomes, params)
    client.set_registered_model_alias(name, alias, found.version)
    return Registered(name, str(found.version), alias, created)


@contextlib.contextmanager
def reached(model: Artifact) -> Iterator[None]:
    """Turn what MLflow raises into a RegistryError that says where the model is."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise RegistryError(_unregistered(route.reason(error), model.path)) from error


def _unregistered(reason: str, model: Path) -> str:
    return (
        f"registry {mlflow_runs.registry()}: {reason}; the model is at {model}, not registered "
        "yet; fix the registry, then run the same command again: it takes all results from the "
        "store and registers it"
    )


def _unwritten(error: OSError | ArtifactError, model: Path, location: str) -> Exception:
    """The error of files that the registry could not be given."""
    if (full := artifacts.disk_full(error, Path(location))) is not error:
        return full
    return RegistryError(_unregistered(f"{location} cannot be written ({error})", model))


@route.files_pass()
def download(uri: str, out: Path) -> Path:
    """Copy a version's files (`models:/NAME@ALIAS`, `models:/NAME/VERSION`) into `out`.

    Returns their directory: `model/`, `adapter/` and the card (tasks/registry/flavor.py). Raises
    RegistryError.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(out)))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryError(
            f"registry {mlflow_runs.registry()}: {uri} cannot be read "
            f"({route.reason(error)}); check name and alias"
        ) from error


def _earliest(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The first version of the model that has this digest."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _create(
    client: MlflowClient,
    model: Artifact,
    outcomes: Mapping[str, Outcome],
    params: Params,
    local_run: str,
) -> ModelVersion:
    """Upload the model and make a version of it, tags and description included."""
    _ensure_registered_model(client, params.register.name)
    tags = {**origin(outcomes, params), DIGEST_TAG: model.digest, **mlflow_runs.named(local_run)}
    run_id = mlflow_runs.run_here(local_run) or None
    if run_id:
        tags["pipeline_run"] = run_id
    logged = _log_model(client, model, tags, outcomes, params, run_id)
    if run_id:
        _link(client, run_id, logged.model_id, outcomes)
    version = client.create_model_version(
        params.register.name,
        f"models:/{logged.model_id}",
        run_id=run_id,
        tags=tags,
        description=card.description(model.path, outcomes, params, tags),
        model_id=logged.model_id,
    )
    reference = {"name": version.name, "version": version.version}
    client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([reference])})
    return version


def _mend(client: MlflowClient, model: Artifact, version: ModelVersion) -> None:
    """Put the model's files back where a version's are gone or damaged on this machine.

    Those that are the store's own, by hard link, were verified with it.
    """
    model_id = version.model_id or str(version.source).removeprefix("models:/")
    here = flavor.local_files(client, model_id)
    if here is None or not here.is_dir():
        return
    there = here / flavor.MODEL_DIR
    if all(
        _is_same(file, there / file.relative_to(model.path))
        for file in artifacts.files_under(model.path)
    ):
        return
    with contextlib.suppress(ArtifactError):
        if artifacts.digest(there) == model.digest:
            return
    log.warning("%s: is damaged; putting version %s's files back", there, version.version)
    flavor.give(client, model_id, model.path, flavor.MODEL_DIR)


def _is_same(file: Path, other: Path) -> bool:
    return other.exists() and file.samefile(other)


def _bring_up_to_date(
    client: MlflowClient,
    model: Artifact,
    version: ModelVersion,
    outcomes: Mapping[str, Outcome],
    params: Params,
) -> None:
    """Describe a version that is there already by the newest evaluation of the same model."""
    reason = version.tags.get(REASON_TAG)
    description = card.description(model.path, outcomes, params, version.tags, reason)
    if description != version.description:
        model_id = str(version.source).removeprefix("models:/")
        _log_card(client, model_id, model, outcomes, params, version.tags)
        client.update_model_version(version.name, version.version, description)
    for key, value in origin(outcomes, params).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(
            name,
            description="Experts tuned by LightReasoner, adapter merged. Each version's tags name "
            "the digest of everything that it was made from.",
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


@route.files_pass()
def _log_model(
    client: MlflowClient,
    model: Artifact,
    tags: dict[str, str],
    outcomes: Mapping[str, Outcome],
    params: Params,
    run_id: str | None,
) -> LoggedModel:
    """Upload the directory as a logged model, which is marked FAILED if that is cut short."""
    logged = client.create_logged_model(
        mlflow_runs.experiment_id(), params.register.name, run_id, tags, mlflow_runs.flatten(params)
    )
    try:
        with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
            flavor.upload(
                client,
                logged.model_id,
                run_id,
                model.path,
                Path(scratch),
                tags,
                params.evaluate.max_new_tokens,
            )
        _log_card(client, logged.model_id, model, outcomes, params, tags)
        if "finetune" in outcomes:
            _log_adapter(client, logged.model_id, outcomes["finetune"], params.models.expert)
    except BaseException as error:
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        if isinstance(error, OSError | ArtifactError):
            raise _unwritten(error, model.path, logged.artifact_location) from error
        raise
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _log_adapter(client: MlflowClient, model_id: str, tuned: Outcome, expert: str) -> None:
    """Put the adapter beside the model, as peft finds its base on this machine."""
    digest = tuned.manifest["inputs"]["expert"]
    base = Artifact(Path() if artifacts.is_pinned(digest) else loading.resolve(expert).path, digest)
    with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
        peft_form.place(tuned.artifact.path, base, Path(scratch) / ADAPTER_DIR)
        client.log_model_artifacts(model_id, str(Path(scratch) / ADAPTER_DIR), ADAPTER_DIR)


def _log_card(
    client: MlflowClient,
    model_id: str,
    model: Artifact,
    outcomes: Mapping[str, Outcome],
    params: Params,
    tags: Mapping[str, str],
) -> None:
    """Put the card with its results beside the model's directory, in place of an older one."""
    if not (model.path / card.FILE).is_file():
        return
    with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
        path = Path(scratch) / card.FILE
        text = card.with_results(model.path, outcomes, params, tags)
        path.write_text(text, encoding="utf-8")
        client.log_model_artifact(model_id, str(path))


def _link(
    client: MlflowClient, run_id: str, model_id: str, outcomes: Mapping[str, Outcome]
) -> None:
    """Show the model as the run's output, and the report's headline as the model's metrics."""
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    if "report" in outcomes:
        now = int(time.time() * 1000)
        headline = measures.of_report(outcomes["report"].artifact.path)
        client.log_batch(
            run_id,
            [Metric(key, value, now, 0, model_id=model_id) for key, value in headline.items()],
        )


def origin(outcomes: Mapping[str, Outcome], params: Params) -> dict[str, str]:
    """What the model was made from: digests, code, fingerprints, commits, parity, parameters.

    What tells versions apart at a glance comes first, as MLflow's list of versions shows it.
    `outcomes` by stage. The parameters' digest is sha256 of their JSON with sorted keys.
    """
    tags = {
        **params.select.rule,
        "expert": params.models.expert,
        "amateur": params.models.amateur,
    }
    for stage, outcome in outcomes.items():
        manifest = outcome.manifest
        tags |= {f"digest.{name}": digest for name, digest in manifest["inputs"].items()}
        tags[f"digest.{STAGES[stage].output}"] = manifest["digest"]
        tags[f"code.{stage}"] = manifest["code"]
        tags[f"fingerprint.{stage}"] = manifest["fingerprint"]
        tags[f"commit.{stage}"] = manifest["commit"] or "none"
    if "merge" in outcomes:
        parity = measures.of_payload("merge", outcomes["merge"].artifact.path)
        tags |= {key.replace("/", "."): str(value) for key, value in parity.items()}
    if "report" in outcomes:
        drift = card.tables(outcomes)["drift"]
        tags |= {name: f"{value:.4g}" for name, value in drift.items() if value is not None}
    text = json.dumps(params.model_dump(mode="json"), sort_keys=True)
    return tags | {"params": hashlib.sha256(text.encode()).hexdigest()}
