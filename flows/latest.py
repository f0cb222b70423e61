"""`<home>/latest`: what the last finished run found, for people and for programs.

report.json      scores, paired tests, seconds of each stage, registered model, fingerprints
report.html      the page, and its figures/
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightreasoner import artifacts
from lightreasoner.artifacts import Artifact
from tasks.registry import Registered
from tasks.stages import StageRun


@dataclass(frozen=True)
class Registering:
    """What registering came to, its seconds and its peak of resident memory in MiB."""

    registered: Registered
    seconds: float
    peak_memory_mib: float


def describe(runs: Mapping[str, StageRun], registering: Registering) -> dict[str, Any]:
    """report.json's content.

    `scores.{base,lightreasoner}.<set>` and `paired.<set>` are the report stage's; accuracy and
    ci95 are fractions. `stages.<stage>.seconds` are wall seconds in this run, so for a cached stage
    those of its look-up; `cached` means taken from the store, whichever driver put it there, and
    for register that the registry had the version; `peak_memory_mib` is the peak when it was made.
    """
    payload = runs["report"].outcome.artifact.path
    tables = json.loads((payload / "tables.json").read_text(encoding="utf-8"))
    registered = asdict(registering.registered)
    created = registered.pop("created")
    stages = {name: _cost(run) for name, run in runs.items()}
    stages["register"] = {
        "seconds": round(registering.seconds, 3),
        "cached": not created,
        "peak_memory_mib": registering.peak_memory_mib,
    }
    return {
        "scores": tables["scores"],
        "paired": tables["paired"],
        "stages": stages,
        "registered_model": registered,
        "fingerprints": {name: run.outcome.manifest["fingerprint"] for name, run in runs.items()},
    }


def _cost(run: StageRun) -> dict[str, Any]:
    return {
        "seconds": round(run.seconds, 3),
        "cached": run.outcome.cached,
        "peak_memory_mib": run.outcome.manifest["peak_memory_mib"],
    }


def write(home: Path, payload: Artifact, report: Mapping[str, Any]) -> Path:
    """Put page, figures and report.json in place, each file whole, report.json last.

    Returns the page's path. Raises DiskFullError.
    """
    folder = home / "latest"
    try:
        for file in artifacts.files_under(payload.path):
            _copy_whole(file, folder / file.relative_to(payload.path))
    except OSError as error:
        raise artifacts.disk_full(error, folder) from error
    artifacts.write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    return folder / "report.html"


def _copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    new = Path(name)
    try:
        shutil.copyfile(source, new)
        new.chmod(0o644)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
