"""`lightreasoner publish`: the results of a finished run become DVC's workspace.

Everything is looked up in the store first, and each fingerprint compared with what the run
recorded; nothing is computed, and the registry is left alone. Then params.yaml is written, the
results are put in place, and `dvc commit` writes dvc.lock. If anything fails, all is put back.
"""

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.dvc import dvcfile, program
from flows.dvc.program import DvcError
from flows.results.records import Record
from lightreasoner import config, untrusted, yaml12
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError, ConfigError
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.storage import artifacts, in_use
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.fingerprint import PACKAGE_DIR
from lightreasoner.storage.outputs import DATA

CODE = (".py", ".j2")
AGAIN = "run it again (`lightreasoner run`, or Prefect's *Copy to new run*) and publish that run"


class PublishError(ArtifactError):
    """A run cannot be published as it is, or not into this checkout."""


@dataclass(frozen=True)
class Published:
    """What has changed in params.yaml, as overrides (None: it could not be read, and is
    rewritten), and how many results are in place."""

    changed: list[str] | None
    results: int


def publish_run(record: Record, checkout: Path, home: Path, force: bool = False) -> Published:
    """Make a run's parameters and results those of the checkout, and dvc.lock say so.

    Uncommitted edits of params.yaml are overwritten only with `force`. Raises
    PublishError, DvcError, RecordError, and what `external_inputs` raises; the checkout is then
    as it was.
    """
    in_use.hold(home)
    params = record.values()
    if record.registered_model is None:
        raise PublishError(f"run {record.name!r}: its model was not registered; {AGAIN}")
    _check_checkout(checkout)
    _what_changes(checkout, params, force)
    outs = results(record, params, home)
    with _locked(checkout):
        overrides = _what_changes(checkout, params, force)  # time has passed
        data, files = checkout / DATA, [checkout / name for name in ("params.yaml", "dvc.lock")]
        placed = [data / name for name in (*outs, "registered")]
        with _put_back_on_failure(data, [*placed, *files]):
            if overrides != []:
                artifacts.write_text(files[0], config.dump(params))
            for name, artifact in outs.items():
                artifacts.place(artifact, data / name)
            version = json.dumps(record.registered_model, indent=1) + "\n"
            artifacts.write_text(data / "registered" / "registered_model.json", version)
            _commit(checkout, outs, params)
    return Published(overrides, len(outs) + 1)


def results(record: Record, params: Params, home: Path) -> Inputs:
    """Each stage's result from the store, by output. Raises PublishError: one is gone or another.

    A fingerprint other than the recorded one means that code, inputs or packages have changed.
    """
    store = Store(home)

    def look_up(stage: Stage, inputs: Inputs) -> Artifact:
        job = Job.of(stage, inputs, params)
        if job.key != record.fingerprints.get(stage.name):
            raise PublishError(_what_changed(store, job, record))
        found = store.find(job)
        if found is None or found.artifact.digest != record.digests[stage.name]:
            raise PublishError(
                f"run {record.name!r}: {home / 'store'} no longer has its result of {stage.name} "
                f"({job.key}); {AGAIN}"
            )
        return found.artifact

    return walk(GRAPH, external_inputs(params), look_up)


def _what_changed(store: Store, job: Job, record: Record) -> str:
    """Why the stage has another fingerprint than in the run."""
    stage, now, commit = job.stage, job.manifest_head(), ""
    recorded = record.fingerprints.get(stage.name, "none")
    fields = ("code", "packages", "inputs", "config", "device", "dtype")
    try:
        entry = store.entry(stage, recorded)
        then = untrusted.read_json(entry / "manifest.json", ArtifactError)
        differ = [name for name in fields if then[name] != now[name]]
        commit = f", as of commit {then['commit'][:12]}" if then["commit"] else ""
    except (ArtifactError, OSError, KeyError, TypeError):
        differ = []
    what = ", ".join(differ) or "code, packages or inputs"
    return (
        f"run {record.name!r}: {stage.name} would no longer be the same, its {what} changed since "
        f"the run{commit}; {AGAIN}"
    )


def _check_checkout(checkout: Path) -> None:
    """Refuse a folder that DVC would not take for this code's checkout."""
    for name in ("dvc.yaml", ".dvc"):
        if not (checkout / name).exists():
            raise PublishError(f"{checkout}: no {name}; go to the checkout and publish there")
    if not (checkout / PACKAGE_DIR.name).exists():
        return  # a project: DVC does not see the code
    for file in (path for suffix in CODE for path in PACKAGE_DIR.rglob(f"*{suffix}")):
        there = checkout / file.relative_to(PACKAGE_DIR.parent)
        if not there.is_file() or there.read_bytes() != file.read_bytes():
            raise PublishError(
                f"{there}: is not the running code, {file}; publish in that checkout, or install "
                "this one (`make setup`)"
            )


def _what_changes(checkout: Path, params: Params, force: bool) -> list[str] | None:
    """What publishing changes in params.yaml. Raises DvcError if DVC is busy, PublishError if that
    would lose edits."""
    program.refuse_busy(checkout)
    overrides = _differences(checkout / "params.yaml", params)
    if overrides != [] and not force:
        _refuse_unsaved(checkout)
    return overrides


def _differences(file: Path, params: Params) -> list[str] | None:
    """The overrides that turn params.yaml into these parameters; None if it cannot be read."""
    try:
        return config.differences(params, config.load(file))
    except ConfigError:
        return None


def _refuse_unsaved(checkout: Path) -> None:
    """Raise PublishError if params.yaml is there and differs from what git's index has."""
    if not (checkout / "params.yaml").exists():
        return
    said = program.git(checkout, "status", "--porcelain", "--ignored", "--", "params.yaml")
    if said is None or said[1:2].strip():  # the second letter is about the file, `?`, `!` or `M`
        raise PublishError(
            f"{checkout / 'params.yaml'}: has uncommitted edits that this would "
            "overwrite; commit them, or `git restore params.yaml`, or publish with --force"
        )


@contextlib.contextmanager
def _locked(checkout: Path) -> Iterator[None]:
    """Raise PublishError while another process publishes into this checkout."""
    path = checkout / DATA.parent / "publish.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(
                f"{checkout}: another `lightreasoner publish` is running; wait until it ends"
            ) from None
        yield


@contextlib.contextmanager
def _put_back_on_failure(data: Path, paths: Collection[Path]) -> Iterator[None]:
    """Keep these files, and directories by hard link, in `data`; put them back after an error.

    Meanwhile each is replaced as a whole, never written into.
    """
    data.mkdir(parents=True, exist_ok=True)
    for left in data.glob(".publish-*"):  # by one that was killed; there is no other now
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=data) as work:
        for path in paths:
            if path.is_dir():
                artifacts.place(Artifact(path, ""), Path(work, path.name))
            elif path.exists():
                shutil.copy2(path, work)
        try:
            yield
        except BaseException:
            for path in paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                if (kept := Path(work, path.name)).exists():
                    shutil.move(kept, path)
            raise


def _commit(checkout: Path, outs: Inputs, params: Params) -> None:
    """Let DVC take the stages' results into its cache and dvc.lock; nothing else that it tracks."""
    try:
        program.refuse_busy(checkout)
        program.dvc(checkout, "commit", "--force", "--quiet", "dvc.yaml")
        _check_lock(checkout, outs)
        if _differences(checkout / "params.yaml", params) != []:
            raise DvcError("params.yaml was changed in the meantime")
    except DvcError as error:
        raise DvcError(
            f"{error}; nothing was published, and params.yaml, dvc.lock and results are restored"
        ) from error


def _check_lock(checkout: Path, outs: Inputs) -> None:
    """Refuse a dvc.lock that does not say these results."""
    stages = yaml12.load((checkout / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    made = [out for stage in stages.values() for out in stage.get("outs", ())]
    locked = {out["path"]: out.get("md5") for out in made}
    for name, artifact in outs.items():
        found = locked.get(dvcfile.data(name))
        if found != artifact.digest:
            raise DvcError(
                f"dvc commit wrote {found} for {dvcfile.data(name)}, which has {artifact.digest}; "
                "run `make dvc.yaml` if dvc.yaml does not match this code"
            )
