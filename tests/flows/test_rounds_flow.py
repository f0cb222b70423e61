"""The rounds: real stages, a real Prefect API, a real MLflow."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import environment as homes
from flows import rounds
from flows.forms.form import RoundsForm
from flows.registering import stored_outcomes
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.errors import SelectionError
from lightreasoner.pipeline.graph import Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Inputs
from tasks.tracking import mlflow_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect and of MLflow
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]
UP_TO_SCORES = tuple(stage for stage in rounds.CHAIN if stage.name != "report")


@pytest.fixture(scope="module")
def home(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The flows' home, with an MLflow database of its own."""
    home = tmp_path_factory.mktemp("home")
    new_database(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTREASONER_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield home


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> Params:
    """A KL of 0.9 to 1.3 nats between the pair, below a millionth after two updates."""
    return config.changed(tiny_params, ["select.beta=0.4"])


def stored(home: Path) -> dict[str, dict[str, str]]:
    """When each stored result of a stage was begun, by fingerprint."""
    return {
        stage.name: {
            entry.name: json.loads((entry / "manifest.json").read_text("utf-8"))["started"]
            for entry in (home / "store" / stage.name).glob("*")
        }
        for stage in (rounds.BASE, *rounds.CHAIN)
    }


def modules(frame: FrameType | None) -> Iterator[str]:
    """What is running: the modules of a frame and of its callers."""
    while frame is not None:
        yield frame.f_globals.get("__name__", "")  # a dataclass has code of none
        frame = frame.f_back


@pytest.fixture(scope="module")
def stopped(home: Path, params: Params) -> dict[str, dict[str, str]]:
    """What is stored after a Ctrl-C while round 2 is being tuned.

    It does not come amid a call of a database or a server: this process, which would end else, goes
    on with their connections.
    """

    def stop(_number: int, frame: FrameType | None) -> None:
        running = set(modules(frame))
        if (
            len(list((home / "store" / "select").glob("*"))) == 2
            and "lightreasoner.tuning.finetune" in running
            and not {name.partition(".")[0] for name in running} & {"mlflow", "httpx"}
        ):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            rounds.rounds(RoundsForm.over(params, rounds=2))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return stored(home)


@pytest.fixture(scope="module")
def found(stopped: dict[str, dict[str, str]], params: Params) -> dict[str, Any]:
    """Three rounds, on top of what was stored before."""
    assert stopped
    return rounds.rounds(RoundsForm.over(params, rounds=3))


def test_rounds_that_were_stopped_go_on(
    stopped: dict[str, dict[str, str]], found: dict[str, Any], home: Path
) -> None:
    counts = {name: len(entries) for name, entries in stopped.items()}
    assert (counts["evaluate"], counts["select"], counts["merge"]) == (1, 2, 1)
    after = stored(home)
    for name, entries in stopped.items():
        assert entries.items() <= after[name].items()
    once, thrice = {"prepare": 1, "evaluate_base": 1}, {stage.name: 3 for stage in rounds.CHAIN}
    drifts = {"score": 6}
    assert {name: len(entries) for name, entries in after.items()} == thrice | once | drifts
    assert len(found["rounds"]) == 3


def test_the_first_round_is_a_plain_run(found: dict[str, Any], params: Params, home: Path) -> None:
    """Every stage of one, its report included, is in the store under the same fingerprint."""
    plain = {
        name: each.manifest["fingerprint"] for name, each in stored_outcomes(params, home).items()
    }
    del plain["evaluate_base"]
    assert found["rounds"][0]["fingerprints"] == plain


def test_the_second_round_is_the_run_of_the_first_ones_model(
    found: dict[str, Any], params: Params, home: Path
) -> None:
    first, second, third = found["rounds"]
    assert second["expert"] == artifacts.digest(Path(first["model"]))
    assert third["expert"] == artifacts.digest(Path(second["model"]))
    assert first["amateur"] == second["amateur"] == third["amateur"]
    changed = config.changed(params, [f"models.expert={first['model']}"])
    keys = {}

    def look_up(stage: Stage, inputs: Inputs) -> Artifact:
        outcome = Store(home).find(Job.of(stage, inputs, changed))
        assert outcome is not None
        keys[stage.name] = outcome.manifest["fingerprint"]
        return outcome.artifact

    walk(UP_TO_SCORES, external_inputs(changed), look_up)
    assert keys == {name: second["fingerprints"][name] for name in keys}
    assert keys.keys() == second["fingerprints"].keys() - {"report"}


def test_what_a_round_says(found: dict[str, Any], home: Path) -> None:
    first, second, third = found["rounds"]
    assert first["paired_before"] is None
    assert second["scores"]["small"]["problems"] == 6
    assert first["samples"]["selected"] == first["samples"]["steps"] == 36
    moved = [each["drift_from_base"]["drift"] for each in (first, second, third)]
    assert 0 < moved[0] < moved[1] < moved[2] < 1e-4
    folder = home / "rounds"
    assert json.loads((folder / "rounds.json").read_text("utf-8")) == found
    assert f"Round 3: {third['model']}\n" in (folder / "rounds.md").read_text("utf-8")


def test_rounds_are_a_run_with_a_run_a_round(found: dict[str, Any], home: Path) -> None:
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    query = "tags.kind = 'rounds' and attributes.status = 'FINISHED'"
    run = client.search_runs(experiment, query)[-1].info.run_id
    history = client.get_metric_history(run, "accuracy/small")
    accuracies = [found["rounds"][0]["base"], *(each["scores"] for each in found["rounds"])]
    assert [(each.step, each.value) for each in history] == [
        (step, scores["small"]["accuracy"]) for step, scores in enumerate(accuracies)
    ]
    drift = client.get_metric_history(run, "drift_from_base")
    assert [each.step for each in drift] == [1, 2, 3]
    children = f"tags.`mlflow.parentRunId` = '{run}'"
    nested = {each.info.run_name: each for each in client.search_runs(experiment, children)}
    assert nested.keys() == {"evaluate_base", "round 1", "round 2", "round 3"}
    stages = f"tags.`mlflow.parentRunId` = '{nested['round 2'].info.run_id}'"
    names = {each.info.run_name for each in client.search_runs(experiment, stages)}
    assert {"finetune (round 2)", "score (round 2)", "score (round 2, drift)"} <= names
    assert "report.html" in [
        each.path for each in client.list_artifacts(nested["round 2"].info.run_id)
    ]


def test_a_later_round_that_selects_nothing_is_the_last(
    found: dict[str, Any], params: Params, home: Path
) -> None:
    """The model of round 1 is hardly another than its amateur, the expert that it was."""
    said = rounds.rounds(RoundsForm.over(params, rounds=3, later_amateur="previous"))
    first, second = said["rounds"]
    assert first == found["rounds"][0]
    assert "select.beta" in second["missing"]
    scored = [
        json.loads(path.read_text("utf-8"))["inputs"]
        for path in (home / "store" / "score").glob("*/manifest.json")
    ]
    expert = artifacts.digest(Path(first["model"]))
    amateurs = {each["amateur"] for each in scored if each["expert"] == expert}
    assert amateurs == {first["amateur"], first["expert"]}  # of the rounds by the same one, too
    assert f"Round 2: {second['missing']}" in (home / "rounds" / "rounds.md").read_text("utf-8")


@pytest.mark.usefixtures("found")
def test_a_first_round_that_selects_nothing_fails_as_a_run_does(params: Params) -> None:
    nothing = config.changed(params, ["select.beta=900"])
    with pytest.raises(SelectionError, match=r"select\.beta"):
        rounds.rounds(RoundsForm.over(nothing, rounds=2))
