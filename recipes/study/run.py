"""Runs the arms of each seed, stage by stage, all of them kept in the store: a study goes on."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightreasoner.config import Params
from lightreasoner.errors import SelectionError
from lightreasoner.experiments.methods import METHODS, stages_of
from lightreasoner.grading.grade import shared_process
from lightreasoner.pipeline.graph import STAGES, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.progress import Silent
from lightreasoner.storage.artifacts import Artifact
from recipes.study.arms import ARMS, OURS, TABLES, Arm

log = logging.getLogger(__name__)


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
    store, clock, found = Store(home), time.monotonic(), dict[int, dict[str, Run]]()
    total, computed = len(seeds) * len(ARMS), 0
    with shared_process():  # one process grades all
        for seed, name in itertools.product(seeds, ARMS):
            runs = found.setdefault(seed, {})
            runs[name] = one = _arm(ARMS[name], params, seed, store, runs)
            computed += not all(each.cached for each in one.outcomes.values())
            done = sum(map(len, found.values()))
            left = (time.monotonic() - clock) / max(1, computed) * (total - done) / 60
            log.info("%d of %d: %s, seed %d; at most %.0f min left", done, total, name, seed, left)
    return found


def _arm(arm: Arm, params: Params, seed: int, store: Store, others: dict[str, Run]) -> Run:
    values = arm.params(params, seed)
    inputs = external_inputs(values)
    if arm.amateur:
        inputs["amateur"] = others[arm.amateur].outcomes["merge"].artifact
    outcomes: dict[str, Outcome] = {}
    make = _maker(values, store, outcomes)
    try:
        for _ in range(arm.rounds):
            made = walk(stages_of(arm.method), inputs, make)
            inputs = {**inputs, "expert": made.get("model", inputs["expert"])}
        if arm in (ARMS[OURS], *TABLES["Amateurs"].values()):
            asked = {**inputs, "expert": inputs["amateur"]}
            outcomes["amateur"] = store.run(
                Job.of(STAGES["evaluate_base"], asked, values), Silent()
            )
    except SelectionError as error:
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
