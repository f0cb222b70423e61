"""The sweep, the controls and the evaluation of any model: real stages, a real Prefect API, a real
MLflow."""

import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import json_lines
import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console
from test_pipeline import CHAT, changed

from flows import controls, evaluation, pipeline, sweep
from flows import environment as homes
from flows.forms.form import ControlsForm, EvaluationForm, Form, SweepForm
from flows.results import terminal
from lightreasoner.config import Params
from lightreasoner.errors import ModelError, ProblemsError, SelectionError
from lightreasoner.evaluation.gains import Asked
from lightreasoner.experiments import table1
from lightreasoner.storage import artifacts, tables
from tasks import accelerator
from tasks.registry import lookup
from tasks.tracking import mlflow_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect and of MLflow
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]


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
def swept(home: Path, tiny_params: Params) -> dict[str, Any]:
    """A grid of four points, of which two keep nothing."""
    return sweep.sweep(SweepForm.over(tiny_params, betas=(0.0, 1000.0), alphas=(0.1, 0.2)))


def test_a_sweep_has_a_row_a_point(swept: dict[str, Any], home: Path) -> None:
    points = list(swept["methods"].values())
    assert [point["title"] for point in points] == [
        "base",
        *("alpha 0.1 beta 0", "alpha 0.1 beta 1000", "alpha 0.2 beta 0", "alpha 0.2 beta 1000"),
    ]
    assert [(point["alpha"], point["beta"]) for point in points[1:3]] == [(0.1, 0.0), (0.1, 1000.0)]
    assert points[1]["scores"]["small"]["n"] == 6
    assert "select.beta" in points[2]["missing"]
    folder = home / "sweep"
    assert json.loads((folder / "sweep.json").read_text(encoding="utf-8")) == swept
    text = (folder / "sweep.md").read_text(encoding="utf-8")
    assert sweep.NOTE in text
    assert f"alpha 0.1 beta 1000: {points[2]['missing']}" in text


def test_a_sweep_is_a_run_with_a_tagged_run_a_point(swept: dict[str, Any], home: Path) -> None:
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    (run,) = client.search_runs(experiment, "tags.kind = 'sweep'")
    assert "beta=0,1000 alpha=0.1,0.2" in run.info.run_name
    children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    nested = {each.info.run_name: each for each in client.search_runs(experiment, children)}
    # What the points share runs once, under the sweep itself.
    assert {"prepare", "generate", "score", "evaluate_base"} <= nested.keys()
    point = nested["alpha 0.2 beta 0"]
    assert (point.data.tags["alpha"], point.data.tags["beta"]) == ("0.2", "0")
    assert point.data.metrics["accuracy/small"] >= 0
    stages = f"tags.`mlflow.parentRunId` = '{point.info.run_id}'"
    names = {each.info.run_name.split()[0] for each in client.search_runs(experiment, stages)}
    assert names == {"select", "finetune", "merge", "evaluate"}
    assert nested["alpha 0.2 beta 1000"].info.status == "FINISHED"


@pytest.mark.parametrize(
    ("select", "name"),
    [
        ({"quantile": 0.8}, "alpha 0.1 quantile 0.8"),
        ({"steps": "all"}, "alpha 0.1 steps all"),
        ({"beta": 0.25}, "alpha 0.1 beta 0.25"),
        ({"label": "one_hot"}, "beta 0 label one_hot"),
    ],
)
def test_a_point_is_named_by_what_selects_its_steps(
    tiny_params: Params, select: dict[str, Any], name: str
) -> None:
    params = changed(tiny_params, select={"alpha": 0.1, **select})
    assert sweep.point_name(params) == name


@pytest.mark.usefixtures("swept")
def test_a_sweep_under_a_quantile(tiny_params: Params, home: Path) -> None:
    params = changed(tiny_params, select={"quantile": 0.5})
    found = sweep.sweep(SweepForm.over(params, betas=(0.0,), alphas=(0.1, 0.2)))
    points = list(found["methods"].values())[1:]
    assert [point["title"] for point in points] == [
        "alpha 0.1 quantile 0.5",
        "alpha 0.2 quantile 0.5",
    ]
    assert [(point["alpha"], point["quantile"]) for point in points] == [(0.1, 0.5), (0.2, 0.5)]
    assert all("beta" not in point and point["scores"]["small"]["n"] == 6 for point in points)
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    for point in points:
        (run,) = client.search_runs(experiment, f"run_name = '{point['title']}'")
        assert run.data.tags["quantile"] == "0.5"
        assert "beta" not in run.data.tags
    assert json.loads((home / "sweep" / "sweep.json").read_text(encoding="utf-8")) == found


@pytest.mark.usefixtures("swept")
def test_a_sweep_fails_if_no_point_can_be_tuned(tiny_params: Params) -> None:
    with pytest.raises(SelectionError, match=r"no method could be tuned: alpha 0\.2 beta 900: "):
        sweep.sweep(SweepForm.over(tiny_params, betas=(900.0,), alphas=(0.2,)))


@pytest.mark.usefixtures("swept")
def test_a_point_whose_model_breaks_spares_the_later_ones(tiny_params: Params, home: Path) -> None:
    broken = changed(tiny_params, finetune={"target_modules": ["nothing"]})
    with pytest.raises(SelectionError, match=r"beta 0: finetune\..*; alpha 0\.2 beta 900: .*beta"):
        sweep.sweep(SweepForm.over(broken, betas=(0.0, 900.0), alphas=(0.2,)))
    found = json.loads((home / "sweep" / "sweep.json").read_text(encoding="utf-8"))["methods"]
    assert "finetune.target_modules nothing" in found["alpha 0.2 beta 0"]["missing"]
    assert "select.beta" in found["alpha 0.2 beta 900"]["missing"]


@pytest.fixture(scope="module")
def reported(home: Path, tiny_params: Params) -> dict[str, Any]:
    """A pipeline that has registered `tiny` as version 1."""
    return pipeline.lightreasoner(Form.of(tiny_params))


def asked(params: Params, model: str, **fields: Any) -> EvaluationForm:
    """The form of an evaluation of this model, on the tests' problems."""
    return EvaluationForm.model_validate(
        {**EvaluationForm.fields_of(params), "model": model, **fields}
    )


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize("model", ["models:/tiny@candidate", "models:/tiny/1", "tiny/1"])
def test_a_registered_model_is_evaluated_from_the_store(
    model: str, home: Path, tiny_params: Params, reported: dict[str, Any]
) -> None:
    found = evaluation.evaluation(asked(tiny_params, model))
    key = reported["fingerprints"]["evaluate"]
    manifest = home / "store" / "evaluate" / key / "manifest.json"
    assert json.loads(manifest.read_text())["inputs"]["model"] == found["digest"]
    assert (
        found["scores"]["small"]["accuracy"]
        == (reported["scores"]["lightreasoner"]["small"]["accuracy"])
    )


@pytest.fixture(scope="module")
def shown_params(tiny_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The pipeline's parameters, evaluated on a set that has a train split."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "own").mkdir()
    for split, first in (("test", 0), ("train", 10)):
        rows = [
            {"question": f"{i} + 1?", "answer": f"Add.\n#### {i + 1}"}
            for i in range(first, first + 4)
        ]
        json_lines.write(folder / "own" / f"{split}.jsonl", rows)
    source = {"source": str(folder), "problem_sets": ("own",), "n_problems": None}
    return changed(tiny_params, evaluate=source)


@pytest.mark.usefixtures("reported")
def test_controls_ask_both_models_in_every_way(shown_params: Params, home: Path) -> None:
    """Two styles, examples or none, two limits: 8 ways; the tuning is the pipeline's."""
    form = ControlsForm.over(shown_params, styles=["none"], shots=[2], budgets=[2])
    found = controls.controls(form)
    ways = [Asked(s, k, n) for n in (None, 2) for k in (None, 2) for s in (CHAT, "none")]
    assert [cell["model"] for cell in found["cells"]] == ["base"] * 8 + ["tuned"] * 8
    assert {table1.named(("base", way))["style"] for way in ways} == {CHAT, "none"}
    assert [table1.named(("tuned", way)) for way in ways] == [
        {name: value for name, value in cell.items() if name in ("model", *Asked._fields)}
        for cell in found["cells"][8:]
    ]
    assert found["problems"] == {"own": 4}
    folder = home / "controls"
    assert json.loads((folder / "controls.json").read_text(encoding="utf-8")) == found
    assert found["left"]["strict"] in (folder / "controls.md").read_text(encoding="utf-8")
    scores = [
        (tables.provenance(each), tables.read_table(each, tables.SCORES).to_pandas())
        for each in (home / "store" / "evaluate").glob("*/payload/scores.parquet")
    ]
    shown = [(said, rows) for said, rows in scores if said["shots"] == {"own": 2}]
    assert len(shown) == 4  # two styles, two limits
    for said, rows in shown:
        assert all(name.startswith("own/train/") for name in said["demos"]["own"])
        assert rows["prompt"].str.count(r"The answer is \\boxed\{1\d\}").eq(2).all()
        assert rows["tokens"].max() <= said["max_new_tokens"]
    mlflow_runs.configure(homes.tracking_uri(home), home)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    (run,) = client.search_runs(experiment, "tags.kind = 'controls'")
    assert "tuned/none_2-shot_2-tokens/own/strict" in run.data.metrics
    assert "reasoning_gain/mean/qwen" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "controls.json", "controls.md",
    }  # fmt: skip
    written = io.StringIO()
    terminal.show_table1(found, Console(width=40, file=written), folder, ["a note"])
    assert len([line for line in written.getvalue().splitlines() if "none, 2-shot" in line]) >= 8


@pytest.mark.usefixtures("home")
def test_controls_that_leave_no_room_are_refused_first(shown_params: Params) -> None:
    long = changed(shown_params, evaluate={"max_new_tokens": 1000})
    with pytest.raises(ProblemsError, match=r"prompt of .* exceed the model's context of 1024"):
        controls.controls(ControlsForm.over(long, shots=[2]))
    with pytest.raises(ProblemsError, match="has 4 worked examples that are not evaluated, 5 are"):
        controls.controls(ControlsForm.over(shown_params, shots=[5]))


@pytest.mark.usefixtures("home")
def test_a_directory_is_evaluated(tiny_params: Params, tiny_amateur: Path) -> None:
    found = evaluation.evaluation(asked(tiny_params, str(tiny_amateur), n_evaluated=3))
    assert found["scores"]["small"]["n"] == 3
    assert found["digest"] == artifacts.digest(tiny_amateur)
    client, experiment = MlflowClient(), [mlflow_runs.experiment_id()]
    runs = client.search_runs(experiment, f"params.model = '{tiny_amateur}'")
    assert runs[0].data.metrics["n/small"] == 3
    assert runs[0].data.tags["kind"] == "evaluation"


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/tiny@champion9", "no such version"),
        ("models:/tiny/99", "no such version"),
        ("models:/tiny", "must read models:/NAME@alias"),
        ("nowhere", "neither a directory nor"),
    ],
)
def test_a_model_that_is_nowhere_is_said(model: str, said: str, home: Path) -> None:
    mlflow_runs.configure(homes.tracking_uri(home), home)
    with pytest.raises(ModelError, match=said):
        lookup.resolve(model, home)


def test_a_turn_is_one_at_a_time(tmp_path: Path) -> None:
    @flow
    def turns() -> None:
        for stage, held in ("finetune", 1), ("finetune", 1), ("select", 0):
            with accelerator.turn(stage, tmp_path), get_client(sync_client=True) as client:
                assert accelerator.ensure_limit(client) == (1, held)

    turns()


def hold(home: Path, held: Path) -> None:
    """Another process that holds the accelerator without a server."""
    with temporary_settings({PREFECT_API_URL: None}), accelerator.turn("score", home):
        held.touch()
        time.sleep(60)


def test_without_a_server_a_turn_ends_with_its_holder(tmp_path: Path) -> None:
    context, held = multiprocessing.get_context("fork"), tmp_path / "held"
    holder = context.Process(target=hold, args=(tmp_path, held))
    holder.start()
    while not held.exists():
        time.sleep(0.02)
    assert holder.pid is not None
    signal.signal(signal.SIGALRM, lambda *_: os.kill(int(holder.pid or 0), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    clock = time.monotonic()
    with temporary_settings({PREFECT_API_URL: None}), accelerator.turn("finetune", tmp_path):
        assert time.monotonic() - clock > 0.4
        holder.join()
    assert holder.exitcode == -signal.SIGKILL
