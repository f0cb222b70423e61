"""`<home>/runs/`: what each run of the pipeline was that came to its report, a file per run.

`lightreasoner publish` reads it, so that a run can be published when Prefect and MLflow are down,
or have forgotten it.

    <home>/runs/<Prefect's id>.json    name, ids, end, parameters, fingerprints, digests, version
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from lightreasoner import config, untrusted
from lightreasoner.config import Params
from lightreasoner.errors import ConfigError, LightReasonerError
from lightreasoner.storage import artifacts, places

if TYPE_CHECKING:
    from tasks.stages import StageRun

NAMED = 3


class RecordError(LightReasonerError):
    """No run of that name can be published."""


@dataclass(frozen=True)
class Record:
    """A finished run of the pipeline.

    `finished` is in seconds since 1970; `fingerprints` and `digests` are by stage;
    `registered_model` is report.json's, None if registering failed. `mlflow` is "" where MLflow
    took no run.
    """

    name: str
    prefect: str
    mlflow: str
    finished: Annotated[float, Field(ge=0, lt=2**33, allow_inf_nan=False)]
    params: dict[str, Any]
    fingerprints: dict[str, str]
    digests: dict[str, str]
    registered_model: dict[str, Any] | None

    def values(self) -> Params:
        """Its parameters. Raises RecordError if they are another version's."""
        try:
            return config.parse(self.params, "parameters")
        except ConfigError as error:
            raise RecordError(
                f"run {self.name!r}: its parameters are those of another version of lightreasoner "
                f"({error}); run it again"
            ) from error

    def is_same_as(self, other: "Record") -> bool:
        """Whether both runs came to the same results, and to the same version of the model."""

        def came_to(record: "Record") -> list[Any]:
            model = record.registered_model or {}
            version = [model.get(key) for key in ("name", "version", "alias")]
            return [record.params, record.digests, record.fingerprints, *version]

        return came_to(self) == came_to(other)

    def ended(self) -> str:
        """When it finished, in local time."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.finished))


_RECORD = TypeAdapter(Record)


def of(
    ids: Mapping[str, str],
    params: Params,
    stages: Mapping[str, "StageRun"],
    registered_model: dict[str, Any] | None,
) -> Record:
    """The record of a run that ends now; `ids` are its name and its ids as in Record."""
    outcomes = {name: run.outcome for name, run in stages.items()}
    return Record(
        **ids,
        finished=time.time(),
        params=params.model_dump(mode="json"),
        fingerprints={name: found.manifest["fingerprint"] for name, found in outcomes.items()},
        digests={name: found.artifact.digest for name, found in outcomes.items()},
        registered_model=registered_model,
    )


def keep(home: Path, record: Record) -> None:
    """Write a record; it is the newest, even if the clock was set back.

    Raises DiskFullError, ArtifactError.
    """
    others = (each.finished for each in newest_first(home) if each.prefect != record.prefect)
    if (last := next(others, 0.0)) >= record.finished:
        record = replace(record, finished=last + 1)
    file = places.folder(home, "runs") / f"{record.prefect}.json"
    artifacts.write_text(file, json.dumps(asdict(record), indent=1) + "\n")


def newest_first(home: Path) -> list[Record]:
    """All records, the newest first; a file that is none is left out."""
    found = []
    for file in (home / "runs").glob("*.json"):
        try:
            said = untrusted.read_json(file, RecordError, untrusted.SETTINGS_BYTES)
            found.append(_RECORD.validate_python(said))
        except (OSError, RecordError, ValidationError):
            continue
    return sorted(found, key=lambda record: record.finished, reverse=True)


def find(home: Path, run: str | None, tracking_uri: str) -> Record:
    """The record of a run by its name or id in Prefect or MLflow; without one, the newest.

    Of several runs of one name the newest is taken if all came to the same; those whose model was
    not registered count only if there is no other. Raises RecordError,
    which says what is known of a run without a record.
    """
    known = newest_first(home)
    if not known and run is None:
        raise RecordError(
            f"{home}: no finished run of the pipeline is recorded; make one (`lightreasoner run`, "
            "or in Prefect)"
        )
    if run is None:
        return known[0]
    matching = _called(known, run)
    if not matching:
        raise RecordError(_why_not(home, run, tracking_uri, known))
    matching = [each for each in matching if each.registered_model] or matching
    newest = matching[0]
    if not all(each.is_same_as(newest) for each in matching):
        ids = ", ".join(f"{each.prefect} ({each.ended()})" for each in matching)
        raise RecordError(f"run {run!r} is several with different results; give an id: {ids}")
    return newest


def names(home: Path, run: str) -> set[str]:
    """What MLflow may call a run of this name or id."""
    known = _called(newest_first(home), run)
    return {run, *(each.mlflow for each in known), *(each.name for each in known)}


def _called(known: list[Record], run: str) -> list[Record]:
    return [
        each for each in known if run == each.name or run.lower() in (each.prefect, each.mlflow)
    ]


def _why_not(home: Path, run: str, tracking_uri: str, known: list[Record]) -> str:
    """Why a run without a record cannot be published."""
    from tasks.tracking import lookup  # Prefect and MLflow take seconds to load

    seen = lookup.look_up(run, tracking_uri, home)
    if seen is None:
        names = list(dict.fromkeys(each.name for each in known))[:NAMED]
        remedy = f"the last ones are {', '.join(map(repr, names))}" if names else "there is none"
        return f"run {run!r}: no finished run of the pipeline has this name or id; {remedy}"
    if seen.kind != lookup.PIPELINE:
        return (
            f"run {run!r} is of the kind {seen.kind}; only runs of the pipeline can be published: "
            "run it with these parameters (`lightreasoner run`), what it shares is in the store"
        )
    if not seen.finished:
        return f"run {run!r} has not finished: {seen.state}; wait for its end, or start it again"
    return (
        f"run {run!r} has finished, but {home / 'runs'} has no record of it (it was made elsewhere "
        "or by an earlier version); run it again, what is in the store is taken from there"
    )
