"""The alias champion in a real registry (SQLite): who gets it, why, and that it never flaps."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import stored_pipeline
from checkout import PATHS
from mlflow import MlflowClient
from written_scores import write_scores

from flows import registering
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.data import sources
from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import STAGES, Inputs, external_inputs
from lightreasoner.pipeline.store import MANIFEST_FIELDS, Job, Outcome, Store, write_manifest
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import gate, versions
from tasks.registry.gate import Gated
from tasks.tracking import mlflow_runs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's
PARAMS = stored_pipeline.params()
EVALUATE = STAGES["evaluate"]
STYLE = "qwen25-math-cot"
BASE = "+" * 20 + "-" * 80
GOOD, BETTER = "+" * 50 + "-" * 50, "+" * 80 + "-" * 20

# Registers and gates as one of two processes, from the same moment on.
GATE = """
import json, sys, time
from pathlib import Path

import test_champion
from tasks.tracking import mlflow_runs

uri, home, name, marks, ready = sys.argv[1:]
mlflow_runs.configure(uri, Path(home))
world = test_champion.World(Path(home), Path(home).parent / "model")
candidate = world.candidate(name, marks)
candidate.version()
Path(ready, name).touch()
while len(list(Path(ready).iterdir())) < 2:
    time.sleep(0.001)
found = candidate.gate()
print(json.dumps(found.as_tree()))
"""


class World:
    """A home and what is registered from it; `model` is the directory that all models copy."""

    def __init__(self, home: Path, model: Path):
        self.home, self.model = home, model
        self.source = sources.resolve(PARAMS.evaluate.source)

    def candidate(self, name: str, marks: str, params: Params = PARAMS) -> "Candidate":
        """A pipeline's results whose model has these marks; the store has its scores."""
        folder = self.home / "candidates" / name
        if not folder.exists():
            shutil.copytree(self.model, folder / "merged")
            (folder / "merged" / "name.txt").write_text(name, encoding="utf-8")
            stored_pipeline.write(folder, folder / "merged")
        outcomes = stored_pipeline.read(folder)
        for stage, right in (("evaluate_base", BASE), ("evaluate", marks)):
            written = folder / f"scores-{stage}"
            if not written.exists():
                write_scores(written, STYLE, {"tuned": right, "transfer": "-" * 5})
            outcomes[stage] = Outcome(artifacts.of(written), outcomes[stage].manifest, False)
        self.store(outcomes["merge"].artifact.digest, outcomes["evaluate"], params)
        return Candidate(self, outcomes, params)

    def store(self, digest: str, scored: Outcome, params: Params) -> None:
        """Put a model's scores where the stage evaluate would."""
        key = self.job(digest, params).key
        entry = Store(self.home).entry(EVALUATE, key)
        if entry.exists():
            return
        shutil.copytree(scored.artifact.path, entry / "payload")
        (entry / "metrics.jsonl").touch()
        manifest = dict.fromkeys(MANIFEST_FIELDS, "") | {
            "fingerprint": key,
            "digest": scored.artifact.digest,
        }
        write_manifest(entry, manifest)

    def job(self, digest: str, params: Params = PARAMS) -> Job:
        """What makes a model's scores."""
        inputs = {"model": Artifact(self.home, digest), "benchmark_source": self.source}
        return Job.of(EVALUATE, inputs, params)

    def forget(self, candidate: "Candidate") -> None:
        """Remove a model's scores from the store."""
        shutil.rmtree(Store(self.home).entry(EVALUATE, self.job(candidate.digest).key))


class Candidate:
    """A model with its pipeline's outcomes; can be registered and gated."""

    def __init__(self, world: World, outcomes: dict[str, Outcome], params: Params):
        self.world, self.outcomes, self.params = world, outcomes, params
        self.digest = outcomes["merge"].artifact.digest

    def register(self) -> versions.Registered:
        """Register the model, or find its version."""
        return versions.register_version(
            self.outcomes["merge"].artifact, self.outcomes, self.params, None
        )

    def version(self) -> str:
        """Its version in the registry."""
        return self.register().version

    def gate(self, evaluate: Callable[[Job], Outcome] | None = None) -> Gated:
        """Register and gate it; nothing has to be graded unless `evaluate` is given."""
        return gate.run(
            self.register(),
            self.outcomes,
            self.params,
            self.world.source,
            self.world.home,
            evaluate or not_needed,
        )

    def tags(self) -> dict[str, str]:
        """Its version's tags."""
        tags: dict[str, str] = MlflowClient().get_model_version("micro", self.version()).tags
        return tags

    def description(self) -> str:
        """Its version's description."""
        return str(MlflowClient().get_model_version("micro", self.version()).description)


def not_needed(job: Job) -> Outcome:
    """For gates that find the champion's scores in the store."""
    raise AssertionError("the champion was graded again")


def aliases() -> dict[str, str]:
    """Every alias's version."""
    found = MlflowClient().get_registered_model("micro").aliases
    return {alias: str(version) for alias, version in found.items()}


@pytest.fixture
def world(new_database: Callable[[Path], str], tiny_expert: Path, tmp_path: Path) -> World:
    """A home of the test's own, nothing registered."""
    home = tmp_path / "home"
    mlflow_runs.configure(new_database(home), home)
    return World(home, tiny_expert)


def test_the_first_champion(world: World) -> None:
    candidate = world.candidate("a", GOOD)
    found = candidate.gate()
    assert (found.decision.verdict, found.champion) == ("promoted", "1")
    assert aliases() == {"candidate": "1", "champion": "1"}
    tags = candidate.tags()
    assert tags["gate"] == "promoted"
    assert tags["gate.reason"] == found.decision.reason
    assert (tags["gate.set"], tags["gate.n"], tags["gate.champion"]) == ("tuned", "100", "none")
    assert tags["gate.problems"] == found.decision.problems
    assert tags["gate.over_base"].startswith("0.300 [0.2")
    assert tags["gate.over_champion"] == "none"
    assert f"\n\n**Gate:** {found.decision.reason}\n\n#### A card" in candidate.description()
    assert candidate.description().startswith(
        "**Accuracy on the set tuned rises from 40.0% to 80.0%"
    )


def test_kept_where_it_is_not_shown_to_be_better(world: World) -> None:
    candidate = world.candidate("a", "+" * 22 + "-" * 78)
    found = candidate.gate()
    assert (found.decision.verdict, found.champion) == ("kept", None)
    assert aliases() == {"candidate": "1"}
    assert candidate.tags()["gate"] == "kept"
    assert "There is no champion yet" in candidate.description()


def test_kept_against_a_better_champion_whose_scores_are_in_the_store(world: World) -> None:
    world.candidate("b", BETTER).gate()
    candidate = world.candidate("a", GOOD)
    found = candidate.gate()
    assert (found.decision.verdict, found.decision.against, found.champion) == ("kept", "1", "1")
    assert aliases() == {"candidate": "2", "champion": "1"}
    tags = candidate.tags()
    assert (tags["gate"], tags["gate.champion"]) == ("kept", "1")
    assert tags["gate.over_champion"].startswith("-0.300 [-0.3")
    assert "Version 1 stays champion" in candidate.description()


def test_a_better_candidate_takes_over_and_reruns_change_nothing(world: World) -> None:
    """a, b (better), then each again, twice: the same decisions, one champion, the same words."""
    a, b = world.candidate("a", GOOD), world.candidate("b", BETTER)
    assert a.gate().decision.verdict == "promoted"
    first = b.gate()
    assert (first.decision.verdict, first.decision.against, first.champion) == (
        "promoted",
        "1",
        "2",
    )
    reason, words = b.tags()["gate.reason"], b.description()
    assert reason.startswith("Better than the base and than version 1, the champion.")
    decisions = []
    for _ in range(2):
        again = a.gate()
        assert (again.decision.verdict, again.champion) == ("kept", "2")
        decisions.append((again, a.tags(), a.description()))
        itself = b.gate()
        assert (itself.decision.verdict, itself.champion) == ("kept", "2")
        assert itself.decision.reason.startswith(
            "Version 2 stays champion: it is the candidate itself."
        )
        assert (b.tags()["gate"], b.tags()["gate.reason"]) == ("promoted", reason)
        assert b.description() == words
    assert decisions[0] == decisions[1]


def test_the_registry_counts_who_was_tried(world: World) -> None:
    """Ten gained: p is 1/1024, enough for the first and second, too little for the fourth.

    Places are kept by those who come again, counted per champion and per set of problems.
    """
    worse = [world.candidate(f"worse {n}", "+" * n + "-" * (100 - n)) for n in (20, 21, 22)]
    ten = world.candidate("ten", "+" * 30 + "-" * 70)
    assert [each.gate().decision.tried for each in (*worse, ten, *worse, ten)] == [1, 2, 3, 4] * 2
    assert (ten.tags()["gate"], ten.tags()["gate.tried"]) == ("kept", "4")
    assert ten.tags()["gate.level"] == "0.00095"
    assert "for candidate 4 on these problems" in ten.description()
    good = world.candidate("good", GOOD)
    assert (good.gate().champion, good.tags()["gate.tried"]) == ("5", "5")
    assert worse[0].gate().decision.tried == 1  # the first that meets this champion
    better = world.candidate("better", BETTER)
    assert better.gate().decision.tried == 2
    assert better.gate().champion == better.version()


def test_a_champion_by_hand_that_is_the_candidate_says_so(world: World) -> None:
    candidate = world.candidate("a", "-" * 100)
    MlflowClient().set_registered_model_alias(candidate.register().name, "champion", "1")
    assert candidate.gate().champion == "1"
    assert candidate.tags()["gate"] == "kept"
    assert "it is the candidate itself" in candidate.description()


def test_a_champion_of_unknown_origin_stays(world: World) -> None:
    candidate, other = world.candidate("a", GOOD), world.candidate("b", BETTER)
    other.gate()
    MlflowClient().delete_model_version_tag("micro", other.version(), versions.DIGEST_TAG)
    found = candidate.gate()
    assert found.decision.verdict == "kept"
    assert "it has no tag digest.model, so it was not registered here" in found.decision.reason


def _artifacts(version: str) -> Path:
    """Where a version's files lie."""
    source = MlflowClient().get_model_version("micro", version).source
    logged = MlflowClient().get_logged_model(source.removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda files: shutil.rmtree(files), "its files cannot be read"),
        (lambda files: shutil.rmtree(files / "model"), "its files cannot be read"),
        (
            lambda files: artifacts.write_text(files / "model" / "name.txt", "c"),
            "its files have digest",
        ),
    ],
)
def test_a_champion_whose_files_are_damaged_stays_and_it_is_said(
    damage: Callable[[Path], Any], said: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    champion, candidate = world.candidate("a", GOOD), world.candidate("b", BETTER)
    champion.gate()
    world.forget(champion)
    damage(_artifacts("1"))
    with caplog.at_level(logging.WARNING, "tasks"):
        found = candidate.gate()
    assert (found.decision.verdict, found.champion) == ("kept", "1")
    assert f"Version 1 stays champion: it cannot be graded (micro version 1: {said}" in (
        candidate.description()
    )
    assert "move the alias champion by hand" in found.decision.reason
    assert any(said in record.message for record in caplog.records)
    assert not list((world.home / "work").iterdir())


def test_scores_of_the_champion_that_cannot_be_compared_keep_it(world: World) -> None:
    champion, candidate = world.candidate("a", GOOD), world.candidate("b", BETTER)
    champion.gate()
    world.forget(champion)
    fewer = write_scores(world.home / "fewer", STYLE, {"tuned": GOOD[:-1]})

    def evaluate(job: Job) -> Outcome:
        model = job.inputs["model"]
        assert model.digest == artifacts.digest(model.path) == champion.digest
        return Outcome(artifacts.of(fewer), {}, cached=False)

    found = candidate.gate(evaluate)
    assert found.decision.verdict == "kept"
    assert "it cannot be compared (" in found.decision.reason
    assert "1 rows differ" in found.decision.reason


def test_a_candidate_that_is_graded_anew_is_one_more_try(world: World) -> None:
    """Another evaluate.seed or limit of tokens: the problems are the same, the luck is not."""
    one = world.candidate("a", "+" * 20 + "-" * 80)
    assert [one.gate().decision.tried for _ in range(2)] == [1, 1]
    again = write_scores(world.home / "again", STYLE, {"tuned": "-" * 80 + "+" * 20})
    scored = Outcome(artifacts.of(again), one.outcomes["evaluate"].manifest, False)
    anew = Candidate(world, one.outcomes | {"evaluate": scored}, PARAMS)
    assert anew.version() == one.version()
    assert [anew.gate().decision.tried for _ in range(2)] == [2, 2]


@pytest.mark.timeout(60)
def test_a_champion_that_cannot_be_compared_is_kept_though_another_met_it(world: World) -> None:
    """The gate ends: the champion's other prompt makes no other place of the candidate's."""
    champion, worse = world.candidate("a", GOOD), world.candidate("worse", BASE)
    assert [each.gate().decision.tried for each in (champion, worse)] == [1, 1]
    world.forget(champion)
    asked = write_scores(world.home / "otherwise", "cot", {"tuned": GOOD, "transfer": "-" * 5})
    found = world.candidate("b", BETTER).gate(
        lambda job: Outcome(artifacts.of(asked), {}, cached=False)
    )
    assert (found.decision.verdict, found.champion, found.decision.tried) == ("kept", "1", 2)
    assert "it cannot be compared (" in found.decision.reason


def test_scores_of_base_and_candidate_that_cannot_be_compared_are_an_error(world: World) -> None:
    candidate = world.candidate("a", GOOD)
    fewer = write_scores(world.home / "fewer", STYLE, {"tuned": GOOD[:-1]})
    manifest = candidate.outcomes["evaluate"].manifest
    candidate.outcomes["evaluate"] = Outcome(artifacts.of(fewer), manifest, cached=False)
    with pytest.raises(ArtifactError, match="not of the same problems"):
        candidate.gate()


def test_a_champion_that_moves_meanwhile_is_met_too(world: World) -> None:
    """While c grades champion a, b takes over: c is then compared with b, and loses."""
    a, b = world.candidate("a", GOOD), world.candidate("b", "+" * 90 + "-" * 10)
    c = world.candidate("c", BETTER)
    a.gate()
    world.forget(a)
    graded = []

    def evaluate(job: Job) -> Outcome:
        graded.append(job.inputs["model"].digest)
        if len(graded) == 1:
            world.store(a.digest, a.outcomes["evaluate"], PARAMS)
            assert b.gate().champion == b.version()
        return a.outcomes["evaluate"]

    found = c.gate(evaluate)
    assert (found.decision.verdict, found.decision.against) == ("kept", b.version())
    assert aliases()["champion"] == b.version()
    assert graded == [a.digest]


@pytest.mark.slow
def test_two_gates_at_once_end_with_the_better_one(world: World, tiny_expert: Path) -> None:
    """Whichever comes first: the other is compared with it, or with none if it came first."""
    (world.home.parent / "model").symlink_to(tiny_expert)
    ready = world.home.parent / "ready"
    ready.mkdir()
    uri = mlflow.get_tracking_uri()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", GATE, uri, str(world.home), name, marks, str(ready)],
            env={**os.environ, "PYTHONPATH": PATHS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, marks in (("a", GOOD), ("b", BETTER))
    ]
    answers = []
    for process in both:
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        answers.append(json.loads(out.splitlines()[-1]))
    a, b = world.candidate("a", GOOD), world.candidate("b", BETTER)
    assert aliases()["champion"] == b.version()
    assert answers[1]["verdict"] == "promoted"
    won_first = answers[0]["verdict"] == "promoted"
    assert answers[1]["against"] == (a.version() if won_first else None)
    assert answers[0]["against"] == (None if won_first else b.version())


def small(expert: Path, amateur: Path, problems: Path) -> Params:
    """Parameters under which a tiny model is graded in a second."""
    tree = PARAMS.model_dump(mode="json")
    tree["models"] = {"expert": str(expert), "amateur": str(amateur)}
    tree["compute"]["device"] = "cpu"
    tree["evaluate"] |= {
        "source": str(problems),
        "problem_sets": ["small"],
        "n_problems": 6,
        "max_new_tokens": 4,
    }
    return config.parse(tree, "test")


def test_a_champion_without_scores_is_graded_from_the_registrys_files(
    world: World, tiny_expert: Path, tiny_amateur: Path, problems_file: Path
) -> None:
    """Really graded, base and candidate too: random models, none right, so the champion stays."""
    params = small(tiny_expert, tiny_amateur, problems_file)
    inputs = external_inputs(params, ["expert", "benchmark_source"])
    world.source = inputs["benchmark_source"]
    champion, candidate = (world.candidate(name, GOOD, params) for name in ("a", "b"))
    champion.register()
    MlflowClient().set_registered_model_alias("micro", "champion", "1")
    store = Store(world.home)
    shutil.rmtree(world.home / "store" / "evaluate")
    shutil.rmtree(champion.outcomes["merge"].artifact.path)
    graded: Inputs = {**inputs, "model": candidate.outcomes["merge"].artifact}
    for name in ("evaluate_base", "evaluate"):
        candidate.outcomes[name] = store.run(Job.of(STAGES[name], graded, params), Silent())

    def evaluate(wanted: Job) -> Outcome:
        assert wanted.inputs["model"].digest == champion.digest
        return registering._evaluate_champion(world.home, mlflow_runs.UNTRACKED, wanted)

    found = candidate.gate(evaluate)
    assert (found.decision.verdict, found.champion, found.decision.n) == ("kept", "1", 6)
    assert found.decision.over_champion is not None
    assert found.decision.over_champion.difference == 0
    assert store.find(world.job(champion.digest, params)) is not None
    assert candidate.gate().decision == found.decision  # now from the store
    assert not list((world.home / "work").iterdir())
