"""`lightreasoner runs`: past runs listed, shown and compared, from a real MLflow database."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import narrow
import pytest
import stored_pipeline
from command_line import call, faults
from written_scores import write_scores

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.evaluation import power
from lightreasoner.pipeline.graph import GRAPH, STAGES
from lightreasoner.pipeline.store import Outcome, Store
from lightreasoner.presets import PRESETS
from tasks.tracking import mlflow_runs

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow asks SQLAlchemy 2.1
)
NAMES = ("microworld aaaaaa", "my second run")
RIGHT = ("+" * 10 + "-" * 10, "+" * 19 + "-")


def graded(home: Path, params: Params, marks: str) -> dict[str, Outcome]:
    """A stored pipeline whose tuned model has these marks on one set."""
    outcomes = stored_pipeline.write_keyed(home, params)
    key = outcomes["evaluate"].manifest["fingerprint"]
    entry = Store(home).entry(STAGES["evaluate"], key)
    shutil.rmtree(entry / "payload")
    write_scores(entry / "payload", "cot", {"tuned": marks})
    summary = {"tuned": stored_pipeline.score(20, marks.count("+"))}
    (entry / "payload" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    stored_pipeline._write_entry(STAGES["evaluate"], entry, outcomes["evaluate"].manifest)
    found = Store(home).stored(STAGES["evaluate"], key)
    assert found
    return {**outcomes, "evaluate": found}


@pytest.fixture(scope="module")
def ids(
    new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """MLflow's ids of two pipelines' runs by name, and under `home` where they are."""
    home = tmp_path_factory.mktemp("home")
    mlflow_runs.configure(new_database(home), home)
    made = {"home": str(home)}
    for name, marks, beta in zip(NAMES, RIGHT, (0.4, 0.5), strict=True):
        params = config.changed(PRESETS["microworld"], [f"select.beta={beta}"])
        outcomes = graded(home, params, marks)
        with mlflow_runs.pipeline_run(params, name) as run:
            for stage in GRAPH:
                mlflow_runs.replay_stage(run, stage, outcomes[stage.name], home)
            mlflow_runs.log_report(run, outcomes["report"])
        made[name] = run
    return made


@pytest.fixture(autouse=True)
def _at_home(ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", ids["home"])
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def asked(*arguments: str) -> Any:
    """What a command says as JSON."""
    done = call("runs", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_runs_are_listed_the_newest_first(ids: dict[str, str]) -> None:
    """Pipelines alone, without their stages' runs; 480 of 600 on the first set, 40 points up."""
    found = asked("list")
    assert [(run["name"], run["id"]) for run in found] == [
        (name, ids[name]) for name in reversed(NAMES)
    ]
    assert found[0]["params"]["select.beta"] == "0.5"
    assert [run["name"] for run in asked("list", "--limit", "1")] == [NAMES[1]]
    first, *_ = call("runs", "list").stdout.splitlines()[2:]
    assert re.split(r" {2,}", first)[:3] == ["my second run", "pipeline", "finished"]
    assert "80.0% (+40.0) on set tuned" in first


def test_a_run_is_shown_by_name_and_id(ids: dict[str, str]) -> None:
    by_name, by_id = asked("show", NAMES[1]), asked("show", ids[NAMES[1]])
    assert by_name == by_id
    assert [stage["name"] for stage in by_name["stages"]] == [stage.name for stage in GRAPH]
    assert by_name["stages"][0]["cached"] is True
    shown = call("runs", "show", NAMES[1]).stdout
    assert shown.startswith(f"my second run  ({ids[NAMES[1]]})\npipeline, finished, started 2")
    assert "accuracy/tuned" in shown
    assert changed(shown) == [["select.beta", "0.5"]]
    assert changed(call("runs", "show", NAMES[0]).stdout) == [["none differs"]]


def changed(shown: str) -> list[list[str]]:
    """The rows of the table of parameters."""
    table = shown.partition("\n\n")[2].partition("\n\n")[0]
    assert table.startswith("differs from microworld")
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()[1:]]


def test_two_runs_are_compared_on_the_same_problems(ids: dict[str, str]) -> None:
    """By hand: 9 of 20 gained, none lost, so McNemar's exact p = 2 / 2 ** 9; Holm's of one set."""
    found = asked("compare", *NAMES)
    assert found["parameters"] == {"select.beta": ["0.4", "0.5"]}
    paired = found["scores"]["tuned"]["paired"]
    assert (paired["gained"], paired["lost"]) == (9, 0)
    assert paired["p_holm"] == pytest.approx(2 / 2**9)
    assert paired["difference"] == pytest.approx(0.45)
    back = asked("compare", *reversed(NAMES))
    assert back["scores"]["tuned"]["paired"]["difference"] == pytest.approx(-0.45)
    lines = call("runs", "compare", *NAMES).stdout.splitlines()
    assert any(line.split() == ["select.beta", "0.4", "0.5"] for line in lines)
    assert any(line.startswith("tuned") and line.endswith("0.0039") for line in lines)
    assert power.note({"tuned": 20}) in lines


@pytest.mark.parametrize("words", [("list",), ("show", NAMES[0]), ("compare", *NAMES)])
@pytest.mark.usefixtures("ids")
def test_the_tables_fit_80_columns(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    narrow.check(lambda: call("runs", *words).stdout, monkeypatch)


def test_without_scores_a_comparison_says_why(ids: dict[str, str]) -> None:
    key = asked("show", NAMES[0])["stages"][-2]["fingerprint"]
    entry = Store(Path(ids["home"])).entry(STAGES["evaluate"], key)
    entry.rename(entry.with_name("away"))
    try:
        found = asked("compare", *NAMES)
        assert f"{NAMES[0]!r} are not in this store" in found["without_scores"]
        assert found["parameters"]
        assert found["without_scores"] in call("runs", "compare", *NAMES).stdout
    finally:
        entry.with_name("away").rename(entry)


def test_what_is_no_run_is_refused(ids: dict[str, str], tmp_path: Path) -> None:
    (said,) = faults(call("runs", "show", "nope"))
    assert said == "run 'nope': MLflow has none; `lightreasoner runs list` lists them"
    (said,) = faults(call("runs", "show", "select"))
    assert said == f"run 'select' is part of {ids[NAMES[1]]}"


def test_a_new_home_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path))
    assert asked("list") == []
    assert call("runs", "list").stdout == (
        f"no run under {tmp_path} yet; `lightreasoner run` makes one\n"
    )
    (said,) = faults(call("runs", "compare", "a", "b"))
    assert said == f"run 'a': there is none under {tmp_path}; `lightreasoner run` makes one"
    assert not (tmp_path / "mlflow").exists()
