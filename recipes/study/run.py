"""Runs the arms of each seed, stage by stage, all of them kept in the store: a study goes on."""

import contextlib
import itertools
import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from lightreasoner.config import Params
from lightreasoner.experiments.methods import METHODS, UNTUNABLE, before_samples, stages_of
from lightreasoner.grading.grade import shared_process
from lightreasoner.pipeline.graph import STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.processes import usable_cores
from lightreasoner.progress import Silent
from lightreasoner.storage.artifacts import Artifact
from recipes.study.arms import ARMS, OURS, TABLES, Arm

log = logging.getLogger(__name__)

_kept = contextlib.ExitStack()


@dataclass(frozen=True)
class Run:
    """An arm's parameters and the outcomes of its last round's stages by name; `missing` is why it
    has none."""

    params: Params
    outcomes: dict[str, Outcome]
    missing: str | None = None

    def path(self, stage: str) -> Path:
        """Where the payload of a stage lies."""
        return self.outcomes[stage].artifact.path


def run(params: Params, seeds: Sequence[int], home: Path) -> dict[int, dict[str, Run]]:
    """Every arm of every seed; what is in the store is taken from there."""
    fill(params, seeds, home)
    store, found = Store(home), {seed: dict[str, Run]() for seed in seeds}
    with shared_process():
        for seed, name in itertools.product(seeds, ARMS):
            found[seed][name] = _arm(ARMS[name], params, seed, store, found[seed])
    return found


def fill(params: Params, seeds: Sequence[int], home: Path) -> None:
    """Let the store have every arm of every seed: as many at once as there are cores, of one thread
    each, which tiny models use better than one arm on all cores."""
    asked = list(itertools.product(ARMS, seeds))  # two seeds at once have little to wait for
    context, clock = multiprocessing.get_context("spawn"), time.monotonic()
    pool = ProcessPoolExecutor(usable_cores(), context, initializer=_prepare)
    try:
        at_work = {pool.submit(_compute, *each, params, home): each for each in asked}
        for done, future in enumerate(as_completed(at_work), 1):
            future.result()
            left = (time.monotonic() - clock) / done * (len(asked) - done) / 60
            name, seed = at_work[future]
            log.info("%d of %d: %s, seed %d; %.0f min left", done, len(asked), name, seed, left)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """In a process of the pool: one thread, and one grader, which ends with the process."""
    import torch

    logging.captureWarnings(capture=True)
    torch.set_num_threads(1)
    _kept.enter_context(shared_process())


def _compute(name: str, seed: int, params: Params, home: Path) -> None:
    """Let the store have an arm, and first the arm whose model is its amateur."""
    store, arm, runs = Store(home), ARMS[name], dict[str, Run]()
    if arm.amateur:
        runs[arm.amateur] = _arm(ARMS[arm.amateur], params, seed, store, runs)
    _arm(arm, params, seed, store, runs)


def _arm(arm: Arm, params: Params, seed: int, store: Store, others: dict[str, Run]) -> Run:
    values = arm.params(params, seed)
    inputs = external_inputs(values)
    if arm.amateur:
        other = others[arm.amateur]
        if other.missing:
            return Run(values, {}, f"its amateur, {arm.amateur}, is missing: {other.missing}")
        inputs["amateur"] = other.outcomes["merge"].artifact
    outcomes: dict[str, Outcome] = {}
    make = _maker(values, store, outcomes)
    walk(before_samples(arm.method), inputs, make)
    try:
        for _ in range(arm.rounds):
            made = walk(stages_of(arm.method), inputs, make)
            inputs = {**inputs, "expert": made.get("model", inputs["expert"])}
        if arm in (ARMS[OURS], *TABLES["Amateurs"].values()):
            asked = {**inputs, "expert": inputs["amateur"]}
            outcomes["amateur"] = store.run(
                Job.of(STAGES["evaluate_base"], asked, values), Silent()
            )
    except UNTUNABLE as error:
        return Run(values, {}, str(error))
    return Run(values, outcomes)


def _maker(
    params: Params, store: Store, outcomes: dict[str, Outcome]
) -> Callable[[Stage, Inputs], Artifact]:
    def make(stage: Stage, needed: Inputs) -> Artifact:
        outcomes[stage.name] = store.run(Job.of(stage, needed, params), Silent())
        return outcomes[stage.name].artifact

    return make


def maker_of(arm: Arm) -> str | None:
    """The stage that made the arm's sample set; None for the base."""
    return METHODS[arm.method].maker
