"""Copies of runs for an MLflow server elsewhere, which has a database of its own.

Runs are written to the database under home, whatever becomes of the server. It gets copies while a
run goes on, some seconds late, and the rest at its end or by `lightreasoner sync`. Sent again they
are the same copies: COPY_TAG names a copy's run, and MLflow takes a point (its key is name, step,
time and value), a parameter with the same value and the same files once.

    <home>/mlflow/unsent/<id>    a run that its server has not as a whole; the server's address

The run's process holds this file's lock (flock), so whoever gets it knows that the process is gone.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from lightreasoner.storage import places
from tasks.tracking import route

COPY_TAG = "sync.copy_of"
COPY = f"tags.`{COPY_TAG}`"
SECONDS = 5.0
"""Between two copies of a run that goes on."""

LONGEST = 2_000
"""Characters of a server's address."""

MOST = 10_000
FAILURES = (MlflowException, SQLAlchemyError, OSError)
"""What MLflow raises where it does not take something."""

log = logging.getLogger(__name__)


class Copier:
    """Copies runs of the database under home to a server; `ids` has what they are called there."""

    def __init__(self, home: Path, server: str):
        self.home, self.server = home, server
        self.ids: dict[str, str] = {}
        self._root = ""  # the run that goes on
        self._has_said = False
        self._whole: set[str] = set()  # runs that have ended here and there
        self._sent: set[tuple[str, str, int, int, float]] = set()  # points
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def during(self, root: str) -> Iterator[None]:
        """Copy a run and those under it while the block lasts, and the rest at its end."""
        path = places.folder(self.home, "mlflow", "unsent") / root
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(SECONDS):
                self.catch_up()

        new = path.parents[1] / f"{root}.new"  # others find it when it is locked
        with new.open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(self.server)
            file.flush()
            new.rename(path)
            self._root, thread = root, threading.Thread(target=work, name="mlflow", daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                if self.catch_up():
                    path.unlink(missing_ok=True)
                self._root = ""

    def catch_up(self) -> bool:
        """Whether the server has all of the current run; the first time that it has not is
        logged."""
        try:
            self.send(self._root)
        except FAILURES as error:
            if not self._has_said:
                log.warning(
                    "MLflow at %s lacks records (%s); it gets them when it is back, or "
                    "after this run from `lightreasoner sync --all`",
                    self.server,
                    route.reason(error),
                )
            self._has_said = True
            return False
        self._has_said = False
        return True

    def send(self, root: str) -> None:
        """Copy what is new of a run and those under it; nothing for no run.

        Raises FAILURES where the server is away, or does not take some of it.
        """
        if not route.answers(self.server):
            raise MlflowException(f"{self.server} does not answer")
        refusal = None
        with self._lock:
            source, target = _client(self.home), MlflowClient(self.server)
            experiment = route.ensure_experiment(target)
            for run in _tree(source, root, self._whole):
                try:
                    self._copy(source, target, experiment, run)
                except FAILURES as error:
                    refusal = error
                    if not route.answers(self.server):
                        break
        if refusal:
            raise refusal

    def _copy(self, source: MlflowClient, target: MlflowClient, experiment: str, run: Run) -> None:
        run_id, tags = run.info.run_id, {**run.data.tags, COPY_TAG: run.info.run_id}
        if parent := tags.get(MLFLOW_PARENT_RUN_ID):
            tags[MLFLOW_PARENT_RUN_ID] = self.ids.get(parent, parent)
        if run_id not in self.ids:
            here = f"attributes.run_id = '{run_id}'"
            # A server that is on the same database after all has the run itself.
            is_same = self.ids.get(parent) == parent if parent else _found(target, experiment, here)
            copy = run_id if is_same else _found(target, experiment, f"{COPY} = '{run_id}'")
            self.ids[run_id] = copy or _created(target, experiment, run, tags)
        there = self.ids[run_id]
        points = {
            (run_id, name, point.step, point.timestamp, point.value): point
            for name in run.data.metrics
            for point in source.get_metric_history(run_id, name)
        }
        target.log_batch(
            there,
            [points[key] for key in points.keys() - self._sent],
            [Param(*each) for each in run.data.params.items()],
            [RunTag(*each) for each in tags.items()],
        )
        self._sent |= points.keys()
        if run.info.status != "RUNNING":
            target.set_terminated(there, run.info.status, run.info.end_time)
            if run.inputs and run.inputs.dataset_inputs:
                target.log_inputs(there, run.inputs.dataset_inputs)
            if source.list_artifacts(run_id):
                _send_files(source, target, run_id, there)
            self._whole.add(run_id)


def send_all(home: Path, wanted: Collection[str] = ()) -> tuple[list[str], bool]:
    """Send servers what they miss of the runs with these names or ids, without any of all runs.

    Returns a line for each run, and whether no server misses any of them longer.
    """
    lines, is_done = [], True
    for path in sorted(_unsent(home).glob("*")):
        name = path.name
        if os.path.lexists(path) and not path.is_file():
            lines.append(f"{path} is no record of a run; remove it")
            is_done = False
            continue
        # What is gone was sent meanwhile by another process.
        with (
            contextlib.suppress(FileNotFoundError),
            path.open("r+", encoding="utf-8", errors="replace") as file,
        ):
            server = file.read(LONGEST)
            try:
                name = str(_client(home).get_run(path.name).info.run_name)
                if wanted and not {path.name, name} & set(wanted):
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end_killed(home, path.name)
                Copier(home, server).send(path.name)
                path.unlink(missing_ok=True)
                said = "sent"
            except BlockingIOError:
                said = "is still running; its own process sends it"
            except FAILURES as error:
                said, is_done = f"waits under {home} ({route.reason(error)})", False
            lines.append(f"{server}: {name} {said}")
    return lines, is_done


def _end_killed(home: Path, root: str) -> None:
    """Mark what has no end as FAILED, for a run whose process is gone."""
    for run in _tree(_client(home), root):
        if run.info.status == "RUNNING":
            _client(home).set_terminated(run.info.run_id, "FAILED")


def _unsent(home: Path) -> Path:
    return home / "mlflow" / "unsent"


def _client(home: Path) -> MlflowClient:
    return MlflowClient(route.database_of(home))


def _tree(client: MlflowClient, root: str, known: Collection[str] = ()) -> list[Run]:
    """A run and those under it that are not `known`, parents first; none for no run."""
    runs = [client.get_run(root)] if root else []
    for run in runs:
        under = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"
        if run.data.tags.get("kind") != "stage":
            found = client.search_runs([run.info.experiment_id], under, max_results=MOST)
            runs += [child for child in found if child.info.run_id not in known]
    return runs


def _send_files(source: MlflowClient, target: MlflowClient, run_id: str, there: str) -> None:
    """Raises MlflowException for whatever the client of the server's store of files raises."""
    with tempfile.TemporaryDirectory(prefix="lightreasoner-") as scratch:
        found = source.download_artifacts(run_id, "", scratch)
        try:
            target.log_artifacts(there, found)
        except Exception as error:  # boto3's and others' kinds, or that it is not installed
            said = f"{type(error).__name__}: {route.reason(error)}"
            raise MlflowException(f"files not taken ({said})") from error


def _found(target: MlflowClient, experiment: str, wanted: str) -> str | None:
    found = target.search_runs([experiment], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _created(target: MlflowClient, experiment: str, run: Run, tags: dict[str, str]) -> str:
    made = target.create_run(experiment, run.info.start_time, tags, run.info.run_name)
    return str(made.info.run_id)
