"""The store: results by fingerprint, written once, whole or not at all.

    <home>/store/<stage>/<fingerprint>/payload/        what the stage wrote; its digest names it
                                      /manifest.json   configuration, inputs, code, versions, cost;
                                                       its own sha256 and that of the curves
                                      /metrics.jsonl   the curves that the stage reported
    <home>/work/<fingerprint>/                         work in progress, kept for a resume

A lock (flock) a fingerprint lets two processes that want the same result compute it once; a killed
holder's lock is gone with it. The store decides what is cached, whichever driver asks.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors import SafetensorError

from lightreasoner import memory
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import STAGES, Stage, resolved
from lightreasoner.progress import Watcher
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Workspace
from lightreasoner.storage.fingerprint import (
    code_digest,
    fingerprint,
    git_commit,
    package_versions,
    running_code,
)

log = logging.getLogger(__name__)

MANIFEST_FIELDS = (
    "stage", "config", "inputs", "code", "commit", "packages", "device", "dtype", "digest",
    "started", "seconds", "peak_memory_mib", "curves",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A stage's result: the artifact, its manifest, and whether the store had it already."""

    artifact: Artifact
    manifest: dict[str, Any]
    cached: bool


@dataclass(frozen=True)
class Store:
    """The store under a home directory (`.lightreasoner`)."""

    home: Path

    def entry(self, stage: Stage, key: str) -> Path:
        """Where a fingerprint's result lies."""
        return self.home / "store" / stage.name / key

    def find(self, stage: Stage, key: str) -> Outcome | None:
        """The stored result, its payload verified by digest; None if missing or damaged."""
        entry = self.entry(stage, key)
        try:
            manifest = _read_manifest(entry, key)
            curves = artifacts.file_sha256(entry / "metrics.jsonl")
            found = artifacts.of(entry / "payload")
        except (ArtifactError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        is_whole = (found.digest, curves) == (manifest["digest"], manifest["curves"])
        return Outcome(found, manifest, cached=True) if is_whole else None

    def run(
        self, stage: Stage, inputs: dict[str, Artifact], params: Params, watcher: Watcher
    ) -> Outcome:
        """The stage's result for these inputs: taken from the store, or computed and stored.

        Raises ArtifactError if code or inputs change meanwhile, and what the stage raises.
        """
        key = stage_key(stage, inputs, params)
        with self.lock(key):
            found = self.find(stage, key)
            if found is not None:
                replay(self.entry(stage, key), watcher)
                return found
            self._discard_damaged(stage, key)
            return self._compute(stage, key, inputs, params, watcher)

    def _discard_damaged(self, stage: Stage, key: str) -> None:
        entry = self.entry(stage, key)
        if not os.path.lexists(entry):
            return
        log.warning("%s: %s is damaged; it is made again", stage.name, entry)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

    def _compute(
        self,
        stage: Stage,
        key: str,
        inputs: dict[str, Artifact],
        params: Params,
        watcher: Watcher,
    ) -> Outcome:
        refuse_changes(stage, inputs)
        work = self.home / "work" / key
        new = work / "entry"
        shutil.rmtree(new, ignore_errors=True)
        payload = new / "payload"
        payload.mkdir(parents=True)
        self.entry(stage, key).parent.mkdir(parents=True, exist_ok=True)
        self._refuse_two_disks()
        started, clock = time.time(), time.perf_counter()
        reset_peak_memory()
        try:
            with _Recorder(watcher, new / "metrics.jsonl") as recorder:
                made = stage.run(inputs, params, Workspace(payload, work / "shards"), recorder)
            refuse_changes(stage, inputs)
            written = {
                **describe(stage, key, inputs, params),
                "digest": made.digest,
                "sha256": {
                    file.relative_to(payload).as_posix(): artifacts.file_sha256(file)
                    for file in sorted(artifacts.files_under(payload))
                },
                "started": started,
                "seconds": round(time.perf_counter() - clock, 3),
                "peak_memory_mib": peak_memory_mib(),
            }
            manifest = write_manifest(new, written)
            _publish(new, self.entry(stage, key))
        except (OSError, SafetensorError) as error:
            raise artifacts.disk_full(error, self.home) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        artifact = Artifact(self.entry(stage, key) / "payload", made.digest)
        return Outcome(artifact, manifest, cached=False)

    def _refuse_two_disks(self) -> None:
        """A finished result is renamed from one folder into the other."""
        store, work = self.home / "store", self.home / "work"
        if store.stat().st_dev != work.stat().st_dev:
            raise ArtifactError(
                f"{store.resolve()} and {work.resolve()} lie on different disks; keep all of "
                f"{self.home} on one (LIGHTREASONER_HOME moves it)"
            )

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by one process at a time, and by none once that is gone."""
        path = self.home / "store" / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def stage_key(stage: Stage, inputs: dict[str, Artifact], params: Params) -> str:
    """The stage's fingerprint for these inputs and parameters, 32 hexadecimal digits of sha256."""
    _pin_code()
    compute = resolved(params.compute)
    return fingerprint(
        stage.name,
        stage.module,
        section_of(stage, params),
        {name: inputs[name].digest for name in stage.inputs},
        {**package_versions(), "device": compute.device, "dtype": compute.dtype},
    )[:32]


@functools.cache
def _pin_code() -> None:
    """Hold on to the code of all stages as it is now, before any of it is imported."""
    for stage in STAGES.values():
        running_code(stage.module)


def section_of(stage: Stage, params: Params) -> dict[str, Any]:
    """The stage's section of the parameters, as plain values; empty if it has none."""
    section = stage.settings(params)
    return section.model_dump(mode="json") if section else {}


def describe(stage: Stage, key: str, inputs: dict[str, Artifact], params: Params) -> dict[str, Any]:
    """The part of a manifest that is known before the stage runs."""
    compute = resolved(params.compute)
    return {
        "stage": stage.name,
        "fingerprint": key,
        "config": section_of(stage, params),
        "inputs": {name: inputs[name].digest for name in stage.inputs},
        "code": running_code(stage.module),
        "commit": git_commit(),
        "packages": package_versions(),
        "device": compute.device,
        "dtype": compute.dtype,
    }


def refuse_changes(stage: Stage, inputs: dict[str, Artifact]) -> None:
    """Raise ArtifactError if code or inputs are no longer what the fingerprint was made from.

    Else a result would be stored under the fingerprint of something else.
    """
    importlib.import_module(stage.module)
    if code_digest(stage.module) != running_code(stage.module):
        raise ArtifactError(
            f"{stage.name}: the code of {stage.module} changed on disk while this process runs; "
            "nothing was stored, start it again"
        )
    for name in stage.inputs:
        if inputs[name].has_changed():
            raise ArtifactError(
                f"{stage.name}: {name} {inputs[name].path} changed since the run began; nothing "
                "was stored, start it again"
            )


def _read_manifest(entry: Path, key: str) -> dict[str, Any]:
    """A manifest as it was written, with all that its readers need.

    Raises KeyError, TypeError, ValueError or RecursionError.
    """
    text = (entry / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    if manifest["fingerprint"] != key:
        raise ValueError(f"{entry}: another fingerprint's manifest")
    if text != _text(manifest) or manifest["seal"] != _seal(manifest):
        raise ValueError(f"{entry}: the manifest was changed")
    for field in MANIFEST_FIELDS:
        manifest[field]
    return manifest


def write_manifest(entry: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Write what is known of an entry, with digests of its curves and of itself; all it says."""
    manifest = {**known, "curves": artifacts.file_sha256(entry / "metrics.jsonl")}
    manifest["seal"] = _seal(manifest)
    (entry / "manifest.json").write_text(_text(manifest), encoding="utf-8")
    return manifest


def _seal(manifest: dict[str, Any]) -> str:
    """sha256 of all that a manifest says but this."""
    said = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(_text(said).encode()).hexdigest()


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def read_curves(entry: Path) -> list[dict[str, Any]]:
    """The points that a stored stage reported: name, value, step."""
    lines = (entry / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    return [{name: point[name] for name in ("name", "value", "step")} for point in points]


def replay(entry: Path, watcher: Watcher) -> None:
    """Report a stored stage's curves again."""
    for point in read_curves(entry):
        watcher.metric(**point)


class _Recorder:
    """Passes everything on to a watcher and keeps the curves in a file."""

    def __init__(self, watcher: Watcher, path: Path):
        self.watcher, self.file = watcher, path.open("w", encoding="utf-8")

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def progress(self, done: int, total: int, unit: str) -> None:
        self.watcher.progress(done, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        self.file.write(json.dumps({"name": name, "value": value, "step": step}) + "\n")
        self.watcher.metric(name, value, step)


def _publish(new: Path, entry: Path) -> None:
    """Make a finished entry read-only, force it onto the disk and rename it into place."""
    for file in artifacts.files_under(new):
        file.chmod(0o444)
    artifacts.flush(new)
    new.rename(entry)
    artifacts.sync(entry.parent)


def reset_peak_memory() -> None:
    """Start a new high-water mark of the GPU's memory and, where the system can (Linux), of the
    process's."""
    memory.reset_gpu_peak()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """The high-water mark since the last reset, MiB: of what torch held in the GPU's memory if it
    held any, else of the process's resident memory."""
    if on_gpu := memory.gpu_peak_bytes():
        return round(on_gpu / 2**20, 1)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return round(psutil.Process(os.getpid()).memory_info().rss / 2**20, 1)
