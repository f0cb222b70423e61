"""The store: results by fingerprint, written once, whole or not at all.

    <home>/store/<stage>/<fingerprint>/payload/        what the stage wrote; its digest names it
                                      /manifest.json   configuration, inputs, code, versions, cost;
                                                       its own sha256 and that of the curves
                                      /metrics.jsonl   the curves that the stage reported
    <home>/work/<fingerprint>/                         work in progress, kept for a resume
                              inputs.json              the digests of what it reads, by name

A lock (flock) per fingerprint lets all who want the same result at once compute it once; a killed
holder's lock is gone with it. The store decides what is cached, whichever driver asks: the driver
makes a Job, and with it the fingerprint, once, and hands it on.
"""

import contextlib
import fcntl
import functools
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

from lightreasoner import memory, untrusted
from lightreasoner.config import Compute, Params, Section
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import STAGES, Stage, resolved
from lightreasoner.progress import Watcher
from lightreasoner.serving.identity import identity
from lightreasoner.storage import artifacts, in_use, places, sealed
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from lightreasoner.storage.fingerprint import (
    code_digest,
    fingerprint,
    git_commit,
    package_versions,
    running_code,
)

log = logging.getLogger(__name__)

INPUTS = "inputs.json"
MANIFEST_FIELDS = (
    "stage", "config", "inputs", "code", "commit", "packages", "device", "dtype", "digest",
    "started", "seconds", "peak_memory_mib", "curves",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A stage with all that determines its result, and the fingerprint that follows from it.

    `inputs` are the stage's own, `settings` is its section as it reads it, `compute` is resolved.
    """

    stage: Stage
    inputs: Inputs
    settings: Section | None
    compute: Compute
    key: str

    @classmethod
    def of(cls, stage: Stage, inputs: Inputs, params: Params) -> "Job":
        """The job of a stage for these inputs and parameters; what it does not read is left out."""
        _pin_code()
        own = {name: inputs[name] for name in stage.inputs}
        settings, compute = stage.settings(params), resolved(params.compute)
        key = fingerprint(
            stage.name,
            stage.module,
            settings.model_dump(mode="json") if settings else {},
            {name: artifact.digest for name, artifact in own.items()},
            {
                **package_versions(),
                "device": compute.device,
                "dtype": compute.dtype,
                **({"engine": identity(compute)} if stage.writes_text else {}),
            },
        )
        return cls(stage, own, settings, compute, key[:32])

    def manifest_head(self) -> dict[str, Any]:
        """The part of a manifest that is known before the stage runs."""
        return {
            "stage": self.stage.name,
            "fingerprint": self.key,
            "config": self.settings.model_dump(mode="json") if self.settings else {},
            "inputs": {name: artifact.digest for name, artifact in self.inputs.items()},
            "code": running_code(self.stage.module),
            "commit": git_commit(),
            "packages": package_versions(),
            "device": self.compute.device,
            "dtype": self.compute.dtype,
            **({"engine": identity(self.compute)} if self.stage.writes_text else {}),
        }

    def refuse_changes(self) -> None:
        """Raise ArtifactError if code or inputs are no longer what the fingerprint was made from.

        Else a result would be stored under the fingerprint of something else.
        """
        name, module = self.stage.name, self.stage.module
        importlib.import_module(module)
        if code_digest(module) != running_code(module):
            raise ArtifactError(
                f"{name}: the code of {module} changed on disk while this process was "
                "running; nothing was stored, start it again"
            )
        for what, artifact in self.inputs.items():
            if artifact.has_changed():
                raise ArtifactError(
                    f"{name}: {what} {artifact.path} changed since the run began; nothing was "
                    "stored, start it again"
                )


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

    def find(self, job: Job) -> Outcome | None:
        """The stored result; None if missing or damaged. Its payload is read, to the last byte."""
        return self.stored(job.stage, job.key)

    def stored(self, stage: Stage, key: str) -> Outcome | None:
        """As `find`, by stage and fingerprint."""
        entry, known = self.entry(stage, key), self.look(stage.name, key)
        if known is None:
            return None
        try:
            curves = artifacts.file_sha256(entry / "metrics.jsonl")
            digest = artifacts.digest(entry / "payload", anew=True)
        except (ArtifactError, OSError):
            return None
        is_whole = (digest, curves) == (known.artifact.digest, known.manifest["curves"])
        return known if is_whole else None

    def look(self, stage: str, key: str) -> Outcome | None:
        """What a whole manifest says of a result, whose payload is not read; else None."""
        entry = self.home / "store" / stage / key
        try:
            manifest = read_manifest(entry, key)
            found = Artifact(entry / "payload", str(manifest["digest"]))
        except (ArtifactError, OSError, ValueError, KeyError, TypeError):
            return None
        return Outcome(found, manifest, cached=True)

    def results(self, stage: str) -> list[Outcome]:
        """All results of a stage by their manifests, the newest first; payloads are not read."""
        entries = (self.home / "store" / stage).glob("*")
        found = [self.look(stage, entry.name) for entry in entries]
        return sorted(filter(None, found), key=lambda each: -each.manifest["started"])

    def is_damaged(self, job: Job) -> bool:
        """Whether something lies in the result's place that is not, or no longer, the result."""
        return os.path.lexists(self.entry(job.stage, job.key)) and self.find(job) is None

    def run(self, job: Job, watcher: Watcher) -> Outcome:
        """The job's result: taken from the store, its curves reported again, or computed and
        stored.

        Raises as `compute` does.
        """
        with self.claim(job) as found:
            if found is None:
                return self.compute(job, watcher)
        log.debug("%s: taken from %s", job.stage.name, found.artifact.path.parent)
        replay(self.entry(job.stage, job.key), watcher)
        return found

    @contextlib.contextmanager
    def claim(self, job: Job) -> Iterator[Outcome | None]:
        """Wait for whoever else is at this job, then look it up; None leaves it to the block.

        Held by one thread or process at a time.
        """
        with self.lock(job.key):
            found = self.find(job)
            if found:
                with contextlib.suppress(OSError):  # another user's
                    os.utime(self.entry(job.stage, job.key))  # contents.py: when it was last used
                # by who was killed between storing it and this
                shutil.rmtree(self.home / "work" / job.key, ignore_errors=True)
            yield found

    def compute(self, job: Job, watcher: Watcher) -> Outcome:
        """Run the stage and store its result; for the holder of a claim that found none.

        Raises ArtifactError if code or inputs change meanwhile, DiskFullError, and what the stage
        raises.
        """
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: computed; %s", job.stage.name, self._what_is_new(job))
        stage, work = job.stage, places.folder(self.home, "work", job.key)
        entry, new = self.entry(stage, job.key), work / "entry"
        folder = places.folder(self.home, "store", stage.name)
        if os.path.lexists(entry):
            log.warning("%s: %s is damaged; making it again", stage.name, entry)
            places.discard(entry)
        job.refuse_changes()
        places.discard(new)
        payload = places.folder(self.home, "work", job.key, "entry", "payload")
        scratch = places.folder(self.home, "work", job.key, "shards")
        self._refuse_places(folder)
        started, clock = time.time(), time.perf_counter()
        reset_peak_memory()
        try:
            note_inputs(work, job.inputs)
            space = Workspace(payload, scratch, job.compute)
            with _Recorder(watcher, new / "metrics.jsonl", stage.name) as recorder:
                made = stage.run(job.inputs, job.settings, space, recorder)
            job.refuse_changes()
            written = {
                **job.manifest_head(),
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
            seal_entry(new, entry)
        except (OSError, SafetensorError) as error:
            raise artifacts.disk_full(error, self.home) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        return Outcome(Artifact(entry / "payload", made.digest), manifest, cached=False)

    def _what_is_new(self, job: Job) -> str:
        """In what a job that has no result differs from the newest one of its stage."""
        if not (results := self.results(job.stage.name)):
            return "the store has no result of this stage"
        now, before = _flat(job.manifest_head()), _flat(results[0].manifest)
        names = sorted(name for name in now if now[name] != before.get(name))
        return f"unlike the newest result: {untrusted.listed(names) or 'nothing, but damaged'}"

    def _refuse_places(self, folder: Path) -> None:
        """A finished result is renamed from `work` into its stage's folder of the store."""
        work = self.home / "work"
        if folder.stat().st_dev != work.stat().st_dev:
            raise ArtifactError(
                f"{folder.resolve()} and {work.resolve()} are on different disks; keep all of "
                f"{self.home} on one (LIGHTREASONER_HOME moves it)"
            )
        if not os.access(folder, os.W_OK):
            raise ArtifactError(
                f"{folder}: cannot be written (a read-only file system, or another user's); give "
                "this user the right to, or move home (LIGHTREASONER_HOME)"
            )

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by one process at a time, and by none once that is gone.

        From then on nothing is removed from the store until this process ends.
        """
        in_use.hold(self.home)
        with places.lock_file(places.folder(self.home, "store", "locks") / key) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _flat(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a fingerprint is made of, as a manifest has it: `config.updates`, `inputs.samples`."""
    parts = {key: manifest.get(key) for key in ("config", "inputs", "code", "packages")}
    parts |= {key: manifest.get(key) for key in ("device", "dtype", "engine")}
    return {
        f"{key}.{name}" if name else key: value
        for key, part in parts.items()
        for name, value in (part.items() if isinstance(part, dict) else [("", part)])
    }


@functools.cache
def _pin_code() -> None:
    """Hold on to the code of all stages as it is now, before any of it is imported."""
    for stage in STAGES.values():
        running_code(stage.module)


def read_manifest(entry: Path, key: str) -> dict[str, Any]:
    """A stored manifest. Raises OSError, and as `check_manifest`."""
    return check_manifest(untrusted.read_text(entry / "manifest.json", ArtifactError), key)


def check_manifest(text: str, key: str) -> dict[str, Any]:
    """A manifest as it was written, with all that its readers need.

    Raises ArtifactError, KeyError, TypeError or ValueError.
    """
    manifest = sealed.opened(text)
    if manifest["fingerprint"] != key:
        raise ValueError("another fingerprint's manifest")
    for field in MANIFEST_FIELDS:
        manifest[field]
    return manifest


def write_manifest(entry: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Write what is known of an entry, with a digest of its curves; all it says."""
    text = sealed.closed({**known, "curves": artifacts.file_sha256(entry / "metrics.jsonl")})
    (entry / "manifest.json").write_text(text, encoding="utf-8")
    return sealed.opened(text)


def read_curves(entry: Path) -> list[dict[str, Any]]:
    """The points that a stored stage reported: name, value, step."""
    text = untrusted.read_text(entry / "metrics.jsonl", ArtifactError)
    points = [json.loads(line) for line in text.splitlines()]
    return [{name: point[name] for name in ("name", "value", "step")} for point in points]


def note_inputs(work: Path, inputs: Inputs) -> None:
    """Say in a folder of work in progress what it reads."""
    places.discard(work / INPUTS)
    tree = {name: artifact.digest for name, artifact in inputs.items()}
    artifacts.write_text(work / INPUTS, json.dumps(tree) + "\n")


def replay(entry: Path, watcher: Watcher) -> None:
    """Report a stored stage's curves again."""
    for point in read_curves(entry):
        watcher.metric(**point)


RESUMED = ("trajectories", "tokens", "responses", "updates")
"""The units in which a stage first says how much of it was done before it began."""


class _Recorder:
    """Passes everything on to a watcher, keeps the curves in a file, says where a stage goes on."""

    def __init__(self, watcher: Watcher, path: Path, stage: str):
        self.watcher, self.file = watcher, path.open("w", encoding="utf-8")
        self.stage, self.begun = stage, False

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def progress(self, done: int, total: int, unit: str) -> None:
        if unit in RESUMED and not self.begun:
            self.begun = True
            if done:
                log.info("%s: goes on at %d of %d %s", self.stage, done, total, unit)
        self.watcher.progress(done, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        self.file.write(json.dumps({"name": name, "value": value, "step": step}) + "\n")
        self.watcher.metric(name, value, step)


def seal_entry(new: Path, entry: Path) -> None:
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
