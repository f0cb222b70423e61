"""The gate in MLflow's registry: who is `champion`, and why.

lightreasoner/evaluation/promotion.py decides.

A lock under home makes this machine's gates move the alias one at a time. Another machine shares
the registry without that lock, so the alias is read again just before it is moved and after; where
another version became champion meanwhile, the gate decides again, against that one.
"""

import contextlib
import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lightreasoner.config import CHAMPION, Params
from lightreasoner.errors import ArtifactError, ModelError
from lightreasoner.evaluation.promotion import Champion, Decision, Difference, decide
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.storage import artifacts, aside
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import card
from tasks.registry.flavor import MODEL_DIR
from tasks.registry.versions import DIGEST_TAG, REASON_TAG, Registered, reached
from tasks.tracking import mlflow_runs, route

TAG = "gate"
AGAINST, PROBLEMS, TRIED = "gate.champion", "gate.problems", "gate.tried"
SCORES = "gate.scores"
OVER_CHAMPION = "gate.over_champion"
NONE = "none"
Evaluate = Callable[[Job], Outcome]
"""Runs the stage evaluate."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gated:
    """What the gate decided, and the version that is champion now."""

    decision: Decision
    champion: str | None

    def as_tree(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**self.decision.as_tree(), "champion": self.champion}


def run(
    registered: Registered,
    outcomes: Mapping[str, Outcome],
    params: Params,
    source: Artifact,
    home: Path,
    evaluate: Evaluate,
) -> Gated:
    """Decide whether a registered version becomes champion; move the alias, and say why on it.

    `outcomes` are the candidate's pipeline's, by stage, `source` its problems. A champion of which
    the store under `home` has no scores of these is graded with `evaluate`. Raises RegistryError,
    DiskFullError, ArtifactError if base and candidate cannot be compared, and what `evaluate`
    raises, but for a ModelError: then the champion stays.
    """

    def settle() -> Gated:
        client = MlflowClient()
        return _Contest(client, registered, outcomes, params, source, home, evaluate).settle()

    with reached(outcomes["merge"].artifact):
        return mlflow_runs.at_the_registry(settle)


def champion(client: MlflowClient, name: str) -> str | None:
    """The version that has the alias; None if none has it."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


@dataclass(frozen=True)
class _Contest:
    """What `run` is given, and its steps."""

    client: MlflowClient
    registered: Registered
    outcomes: Mapping[str, Outcome]
    params: Params
    source: Artifact
    home: Path
    evaluate: Evaluate

    def settle(self) -> Gated:
        """Decide and record it, until no other version becomes champion meanwhile."""
        while True:
            before = champion(self.client, self.registered.name)
            decision = self.decide(before)
            if not self.conclude(decision, before):
                continue
            now = champion(self.client, self.registered.name)
            if decision.verdict == "kept" or now == self.registered.version:
                return Gated(decision, now)

    def decide(self, version: str | None) -> Decision:
        """The decision against the version that is champion.

        A champion whose scores are of other problems or prompts stays.
        """
        standing = self.standing(version) if version else None
        problem_set = self.params.gate_set
        base = self.outcomes["evaluate_base"].artifact.path
        candidate = self.outcomes["evaluate"].artifact.path
        try:
            return decide(problem_set, base, candidate, standing, self.earlier(version))
        except ArtifactError as error:
            if standing is None or standing.scores is None:
                raise
            unlike = Champion(standing.version, why=f"it cannot be compared ({error})")
            return decide(problem_set, base, candidate, unlike, self.earlier(version))

    def earlier(self, version: str | None) -> Callable[[str], int]:
        """Counts who met this champion, or none, on the problems with a digest before.

        A candidate that comes again with the scores that it had, and its base's, has the place that
        it had; with others it is one more. Tags hold the places, so a version that is deleted, or
        that met another champion since, no longer counts.
        """

        def count(problems: str) -> int:
            name, own = self.registered.name, self.registered.version
            against = version or NONE
            found = self.client.search_model_versions(
                f"name = '{name}' and tags.`{PROBLEMS}` = '{problems}'"
            )
            met = {
                str(each.version): each.tags
                for each in found
                if each.tags.get(AGAINST) == against
                and (version is None or each.tags.get(OVER_CHAMPION) != NONE)
            }
            places = {number: int(tags.get(TRIED, 1)) for number, tags in met.items()}
            if own in met and met[own].get(SCORES) == self.scores():
                return places[own] - 1
            return max(places.values(), default=0)

        return count

    def scores(self) -> str:
        """What names the scores that are compared: the base's and the candidate's digest."""
        stages = ("evaluate_base", "evaluate")
        return " ".join(self.outcomes[name].artifact.digest for name in stages)

    def standing(self, version: str) -> Champion:
        """The champion with its scores of the candidate's problems, or why there are none."""
        name = self.registered.name
        digest = self.client.get_model_version(name, version).tags.get(DIGEST_TAG)
        if digest == self.outcomes["merge"].artifact.digest:
            return Champion(version, why="it is the candidate itself")
        if digest is None:
            why = f"it has no tag {DIGEST_TAG}, so it was not registered here"
            return Champion(version, why=why)
        known = {"model": Artifact(self.home, digest), "benchmark_source": self.source}
        job = Job.of(STAGES["evaluate"], known, self.params)
        stored = Store(self.home).find(job)
        if stored is not None:
            return Champion(version, stored.artifact.path)
        try:
            with _downloaded(name, version, digest, self.home) as files:
                outcome = self.evaluate(replace(job, inputs={**known, "model": files}))
        except ModelError as error:
            log.warning("gate: version %s stays champion: %s", version, error)
            return Champion(version, why=f"it cannot be graded ({error})")
        return Champion(version, outcome.artifact.path)

    def conclude(self, decision: Decision, before: str | None) -> bool:
        """Record the decision and move the alias; False if `before` is no longer champion, or met
        another candidate meanwhile."""
        name, number = self.registered.name, self.registered.version
        with _lock(self.home, name):
            if champion(self.client, name) != before:
                return False
            if self.earlier(before)(decision.problems) != decision.tried - 1:
                return False
            self.record(decision)
            if decision.verdict == "promoted":
                self.client.set_registered_model_alias(name, CHAMPION, number)
        return True

    def record(self, decision: Decision) -> None:
        """Say the decision in the version's tags and description.

        A champion that meets itself keeps the reason that made it champion.
        """
        name, number = self.registered.name, self.registered.version
        version = self.client.get_model_version(name, number)
        if decision.against == number and version.tags.get(TAG) == "promoted":
            return
        for key, value in (_tags(decision) | {SCORES: self.scores()}).items():
            if version.tags.get(key) != value:
                self.client.set_model_version_tag(name, number, key, value)
        model = self.outcomes["merge"].artifact.path
        description = card.description(
            model, self.outcomes, self.params, version.tags, decision.reason
        )
        if description != version.description:
            self.client.update_model_version(name, number, description)


@contextlib.contextmanager
def _downloaded(name: str, version: str, digest: str, home: Path) -> Iterator[Artifact]:
    """A version's model directory, copied from the registry for the length of the block.

    Raises ModelError for files that are gone or have another digest than when registered.
    """
    (home / "work").mkdir(parents=True, exist_ok=True)
    with aside.beside(home / "work" / "champion") as scratch:
        try:
            uri = f"models:/{name}/{version}/{MODEL_DIR}"
            found = artifacts.of(
                Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(scratch)))
            )
        except (MlflowException, ArtifactError, OSError) as error:
            raise _missing(error, home, f"{name} version {version}") from error
        if found.digest != digest:
            raise ModelError(
                f"{name} version {version}: its files have digest {found.digest}, but {digest} "
                f"was registered; restore them, or move the alias {CHAMPION} by hand"
            )
        yield found


def _missing(error: Exception, home: Path, what: str) -> Exception:
    if isinstance(error, OSError) and artifacts.disk_full(error, home) is not error:
        return artifacts.disk_full(error, home)
    return ModelError(
        f"{what}: its files cannot be read ({route.reason(error)}); restore them, or move the "
        f"alias {CHAMPION} by hand"
    )


def _tags(decision: Decision) -> dict[str, str]:
    return {
        TAG: decision.verdict,
        REASON_TAG: decision.reason,
        "gate.set": decision.problem_set,
        "gate.n": str(decision.n),
        PROBLEMS: decision.problems,
        TRIED: str(decision.tried),
        "gate.level": f"{decision.level:.2g}",
        AGAINST: decision.against or NONE,
        "gate.over_base": _numbers(decision.over_base),
        OVER_CHAMPION: _numbers(decision.over_champion),
    }


def _numbers(difference: Difference | None) -> str:
    """A difference and its interval as fractions: `0.626 [0.584, 0.670]`."""
    if difference is None:
        return NONE
    low, high = difference.ci95
    return f"{difference.difference:.3f} [{low:.3f}, {high:.3f}]"


@contextlib.contextmanager
def _lock(home: Path, name: str) -> Iterator[None]:
    path = home / "mlflow" / f"{name}.gate.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
