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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.dvc import dvcfile, program
from flows.dvc.program import DvcError
from flows.results.records import Record
from lightreasoner import config, yaml12
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError, ConfigError
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs
from lightreasoner.pipeline.store import Store, describe, stage_key
from lightreasoner.storage import artifacts
from lightreasoner.storage.fingerprint import PACKAGE_DIR
from lightreasoner.storage.outputs import DATA

CODE = (".py", ".j2")
AGAIN = "run it again (`lightreasoner run`, or Prefect's *Copy to new run*) and publish that run"


class PublishError(ArtifactError):
    """A run cannot be published as it is, or not into this checkout."""


@dataclass(frozen=True)
class Published:
    """What has changed in params.yaml, as overrides (None: it could not be read, and is written
    anew), and how many results are in place."""

    changed: list[str] | None
    results: int


def publish(record: Record, checkout: Path, where: Path, force: bool = False) -> Published:
    """Make a run's parameters and results those of the checkout, and dvc.lock say so.

    Edits of params.yaml that git does not have are overwritten only with `force`. Raises
    PublishError, DvcError, RecordError, and what `external_inputs` raises; the checkout is then
    as it was.
    """
    params = record.values()
    if record.registered_model is None:
        raise PublishError(f"run {record.name!r}: its model was not registered; {AGAIN}")
    _check_checkout(checkout)
    _what_changes(checkout, params, force)
    outs = results(record, params, where)
    with _alone(checkout):
        overrides = _what_changes(checkout, params, force)  # time has passed
        with _Exchange(checkout) as exchange:
            if overrides != []:
                artifacts.write_text(exchange.aside("params.yaml"), config.dump(params))
            for name, artifact in outs.items():
                artifacts.place(artifact, exchange.aside(DATA / name))
            version = exchange.aside(DATA / "registered") / "registered_model.json"
            artifacts.write_text(version, json.dumps(record.registered_model, indent=1) + "\n")
            exchange.aside("dvc.lock")
            _commit(checkout, outs, params)
    return Published(overrides, len(outs) + 1)


def results(record: Record, params: Params, where: Path) -> Inputs:
    """Each stage's result from the store, by output. Raises PublishError: one is gone or another.

    A fingerprint other than the recorded one means that code, inputs or packages have changed.
    """
    store, inputs = Store(where), external_inputs(params)
    for stage in GRAPH:
        key, recorded = stage_key(stage, inputs, params), record.fingerprints.get(stage.name)
        if key != recorded:
            raise PublishError(_what_changed(store, stage, record, inputs, params))
        found = store.find(stage, key)
        if found is None or found.artifact.digest != record.digests[stage.name]:
            raise PublishError(
                f"run {record.name!r}: {where / 'store'} no longer has its result of {stage.name} "
                f"({key}); {AGAIN}"
            )
        inputs[stage.output] = found.artifact
    return {stage.output: inputs[stage.output] for stage in GRAPH}


def _what_changed(
    store: Store, stage: Stage, record: Record, inputs: Inputs, params: Params
) -> str:
    """Why the stage has another fingerprint than in the run."""
    recorded = record.fingerprints.get(stage.name, "none")
    now, commit = describe(stage, recorded, inputs, params), ""
    fields = ("code", "packages", "inputs", "config", "device", "dtype")
    try:
        entry = store.entry(stage, recorded)
        then = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
        differ = [name for name in fields if then[name] != now[name]]
        commit = f", as of commit {then['commit'][:12]}" if then["commit"] else ""
    except (OSError, ValueError, KeyError):
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
    for file in (path for suffix in CODE for path in PACKAGE_DIR.rglob(f"*{suffix}")):
        there = checkout / file.relative_to(PACKAGE_DIR.parent)
        if not there.is_file() or there.read_bytes() != file.read_bytes():
            raise PublishError(
                f"{there}: is not the code that runs, {file}; publish in that checkout, or install "
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
    known = program.git(checkout, "ls-files", "--error-unmatch", "params.yaml")
    changed = program.git(checkout, "diff", "--name-only", "--", "params.yaml")
    if known is None or changed is None or changed.strip():
        raise PublishError(
            f"{checkout / 'params.yaml'}: has edits that git does not have and that this would "
            "overwrite; commit them, or `git restore params.yaml`, or publish with --force"
        )


@contextlib.contextmanager
def _alone(checkout: Path) -> Iterator[None]:
    """Raise PublishError while another process publishes into this checkout."""
    path = checkout / DATA.parent / "publish.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(
                f"{checkout}: another `lightreasoner publish` is at work; wait for its end"
            ) from None
        yield


@dataclass
class _Exchange:
    """Replaces files and directories of a checkout, all of them or, after an error, none."""

    checkout: Path
    done: list[tuple[Path, Path, bool]] = field(default_factory=list)

    def __enter__(self) -> "_Exchange":
        data = self.checkout / DATA
        data.mkdir(parents=True, exist_ok=True)
        for left in data.glob(".publish-*"):  # by one that was killed; there is no other now
            shutil.rmtree(left)
        self.work = Path(tempfile.mkdtemp(prefix=".publish-", dir=data))
        return self

    def aside(self, name: str | Path) -> Path:
        """Keep what a checkout has there; the path where the new is to come.

        A directory is moved out of the way. A file may lie on another disk and stays, as a copy.
        """
        path, old = self.checkout / name, self.work / str(len(self.done))
        self.done.append((path, old, path.exists()))
        if path.is_dir():
            path.rename(old)
        elif path.exists():
            shutil.copy2(path, old)
        return path

    def __exit__(self, kind: type[BaseException] | None, *exc_info: Any) -> None:
        if kind is not None:
            for path, old, was_there in reversed(self.done):
                if was_there and not old.exists():
                    continue  # it was never moved
                _remove(path)
                if was_there:
                    shutil.move(old, path)
        shutil.rmtree(self.work, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _commit(checkout: Path, outs: Inputs, params: Params) -> None:
    """Let DVC take the stages' results into its cache and dvc.lock; nothing else that it tracks."""
    try:
        program.refuse_busy(checkout)
        program.dvc(checkout, "commit", "--force", "--quiet", "dvc.yaml")
        _check_lock(checkout, outs)
        if _differences(checkout / "params.yaml", params) != []:
            raise DvcError("params.yaml was changed meanwhile")
    except DvcError as error:
        raise DvcError(
            f"{error}; nothing was published, and params.yaml, dvc.lock and results are put back"
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
                "`make dvc.yaml` mends a dvc.yaml that is not this code's"
            )
