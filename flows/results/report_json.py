"""`<home>/latest`: what the last finished run found, for people and for programs.

It is written before the model is registered, and completed after.

report.json      scores, paired tests, seconds of each stage, registered model, fingerprints
report.html      the page, and its figures/
"""

import fcntl
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightreasoner.report import head
from lightreasoner.storage import artifacts, aside, places
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.payload import read_json
from tasks.registry.gate import Gated
from tasks.registry.versions import Registered
from tasks.stages import StageRun


@dataclass(frozen=True)
class Registering:
    """What registering came to, its seconds, its peak of resident memory in MiB; the gate."""

    registered: Registered
    seconds: float
    peak_memory_mib: float
    gate: Gated


def report_tree(
    runs: Mapping[str, StageRun], registering: Registering | None = None
) -> dict[str, Any]:
    """report.json's content.

    `scores.{base,lightreasoner}.<set>`, `paired.<set>`, `samples` and `drift` are the report
    stage's; accuracy and ci95 are fractions. `stages.<stage>.seconds` are wall seconds in this run,
    so for a cached stage those of its look-up; `cached` means taken from the store, whichever
    driver put it there, and for register that the registry had the version; `peak_memory_mib` is
    the peak when it was made. `registered_model.gate` is the gate's decision
    (evaluation/promotion.py) and, as `champion`, the version that is champion now; before
    registering it is None, and no stage `register` is there.
    """
    payload = runs["report"].outcome.artifact.path
    tables = read_json(payload / "tables.json")
    stages = {name: _cost(run) for name, run in runs.items()}
    model = None
    if registering:
        registered = asdict(registering.registered)
        stages["register"] = {
            "seconds": round(registering.seconds, 3),
            "cached": not registered.pop("created"),
            "peak_memory_mib": registering.peak_memory_mib,
        }
        model = {**registered, "gate": registering.gate.as_tree()}
    return {
        **{name: tables[name] for name in ("scores", "paired", "styles", "samples", "drift")},
        "stages": stages,
        "registered_model": model,
        "fingerprints": {name: run.outcome.manifest["fingerprint"] for name, run in runs.items()},
    }


def _cost(run: StageRun) -> dict[str, Any]:
    return {
        "seconds": round(run.seconds, 3),
        "cached": run.outcome.cached,
        "peak_memory_mib": run.outcome.manifest["peak_memory_mib"],
    }


def write_latest(
    home: Path, payload: Artifact, report: Mapping[str, Any], facts: Mapping[str, str]
) -> Path:
    """Put page, figures and report.json of one run in place together, for those of the last run.

    The page says the run's `facts`. Returns the page's path. Raises DiskFullError, ArtifactError.
    """
    folder = home / "latest"
    try:
        with aside.beside(folder) as work:
            new = work / "new"
            shutil.copytree(payload.path, new, copy_function=shutil.copyfile)
            page = (new / "report.html").read_text(encoding="utf-8")
            artifacts.write_text(new / "report.html", head.of_run(page, facts))
            artifacts.write_text(new / "report.json", json.dumps(report, indent=1) + "\n")
            with places.lock_file(home / "latest.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                artifacts.swap(new, folder, work / "old")
    except OSError as error:
        raise artifacts.unwritable(error, folder) from error
    return folder / "report.html"
