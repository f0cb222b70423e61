"""Other trackers beside MLflow: what a run gets there, transformers' own callbacks are told, too.

A pipeline's run is one run of each tracker, and its stages' numbers have the stage's name before
theirs. All are told from one thread, as some keep their run by thread and none may hold up a stage;
one that fails costs its own record alone (docs/decisions/013-trackers.md).
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from lightreasoner.config import Params
from lightreasoner.errors import ConfigError
from lightreasoner.untrusted import one_line

WANDB = "wandb"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arguments:
    """What the callbacks read of a Trainer's arguments; `settings` are the run's parameters."""

    output_dir: str
    run_name: str
    settings: Mapping[str, str]
    project: str = "lightreasoner"
    trackio_space_id: None = None
    trackio_bucket_id: None = None
    trackio_static_space_id: bool = False
    hub_private_repo: None = None

    def to_dict(self) -> dict[str, str]:
        """The parameters, by name."""
        return dict(self.settings)

    def to_json_string(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)


class Trackers:
    """The callbacks of one run, in their thread."""

    def __init__(self, names: Sequence[str], arguments: Arguments):
        self._arguments = arguments
        self._lost: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "trackers")
        with contextlib.redirect_stdout(sys.stderr):  # transformers and trackio greet
            from transformers.integrations import get_reporting_integration_callbacks

            if WANDB in names:  # not in flows/environment.py: transformers prints it everywhere
                os.environ.setdefault("WANDB_MODE", "offline")
            kinds = get_reporting_integration_callbacks(list(names))
            self._callbacks = {name: kind() for name, kind in zip(names, kinds, strict=True)}
            wait(self._tell("on_train_begin"))

    def log(self, metrics: Sequence[Metric], prefix: str) -> None:
        """Pass numbers on, a call for each step."""
        steps: dict[int, dict[str, float]] = {}
        for metric in metrics:
            steps.setdefault(metric.step, {})[prefix + metric.key] = metric.value
        for step, values in steps.items():
            self._tell("on_log", step, logs=values)

    def close(self) -> None:
        """End the runs, when all has been passed on."""
        with contextlib.redirect_stdout(sys.stderr):
            self._tell("on_train_end")
            if WANDB in self._callbacks:  # which leaves its run open
                self._submit(WANDB, importlib.import_module(WANDB).finish)
            self._thread.shutdown()

    def _tell(self, event: str, step: int = 0, **more: Any) -> list[Future[None]]:
        from transformers import TrainerControl, TrainerState

        state, control = TrainerState(global_step=step), TrainerControl()
        return [
            self._submit(name, getattr(callback, event), self._arguments, state, control, **more)
            for name, callback in self._callbacks.items()
        ]

    def _submit(self, name: str, *call: Any, **more: Any) -> Future[None]:
        future: Future[None] = self._thread.submit(*call, **more)
        future.add_done_callback(functools.partial(self._note, name))
        return future

    def _note(self, name: str, future: Future[None]) -> None:
        error = future.exception()
        if error and name not in self._lost:
            self._lost.add(name)
            log.warning("%s misses numbers of the run (%s); MLflow has them", name, one_line(error))


_TOLD: dict[str, tuple[Trackers, str]] = {}
"""Who is told what a run of MLflow gets, and what stands before the names; by the run's id."""


@contextlib.contextmanager
def following(
    run_id: str, name: str, asked: Sequence[str], settings: Mapping[str, str], home: Path
) -> Iterator[None]:
    """Let the trackers `asked` for have what the run and those under it get."""
    names = _beside_mlflow(asked)
    if not (names and run_id):
        yield
        return
    run = f"{name.replace('/', '-')} {run_id[:8]}"
    trackers = Trackers(names, Arguments(str(home / "tensorboard" / run), run, settings))
    _TOLD[run_id] = (trackers, "")
    try:
        yield
    finally:
        for each in [each for each, (told, _) in _TOLD.items() if told is trackers]:
            del _TOLD[each]
        trackers.close()


def nest(run_id: str, parent_id: str, name: str) -> None:
    """Let what a nested run gets be told with its name before it."""
    if parent_id in _TOLD:
        trackers, prefix = _TOLD[parent_id]
        _TOLD[run_id] = (trackers, f"{prefix}{name}/")


def tell(run_id: str, metrics: Sequence[Metric]) -> None:
    """Pass on what MLflow's run got."""
    if run_id in _TOLD:
        trackers, prefix = _TOLD[run_id]
        trackers.log(metrics, prefix)


def check(params: Params) -> None:
    """Raise ConfigError for a tracker whose package is not here."""
    faults = [
        f"compute.track {name}: the package is not installed; `pip install {name}`, or take it out "
        "of the list"
        for name in _beside_mlflow(params.compute.track)
        if importlib.util.find_spec(name) is None
    ]
    if faults:
        raise ConfigError(faults)


def _beside_mlflow(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != "mlflow"]
