"""Every preset of the paper's, from its parameters to its registered version.

The models are tiny and random, in the layout of the preset's own (paper_models.py); beside them
only sources and sizes are not the preset's.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import paper_models
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from prefect.testing.utilities import prefect_test_harness

from flows import home as homes
from flows import pipeline
from lightreasoner import artifacts, config, models, prompts
from lightreasoner.config import Params
from lightreasoner.presets import BASE_STYLES, PRESETS
from lightreasoner.published import BENCHMARKS
from tasks import tracking

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect and of MLflow
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]
PAPER = [name for name in PRESETS if name != "microworld"]
IN_EVERY_RUN = "deepseek-r1-distill-qwen-1.5b"
NAMES = [
    name if name == IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in PAPER
]
SOLVED = {"problem": "What is $1+1$?", "solution": r"It is $\boxed{2}$."}
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Ed has 2 figs and eats 1. How many are left?", "answer": "2-1\n#### 1"},
    "math": SOLVED,
    "svamp": {"Body": "Ed has 5 figs", "Question": "How many figs?", "Answer": 5.0},
    "asdiv": {"body": "Two and 7.", "question": "How many in all?", "answer": "9 (apples)"},
    "minerva_math": SOLVED,
    "olympiadbench": {"question": "Find $n$.", "final_answer": ["$2n$"], "context": None},
    "mmlu_stem": {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 2},
}


@pytest.fixture(scope="module", autouse=True)
def prefect_api() -> Iterator[None]:
    """A Prefect API of the tests' own, on a database of its own."""
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def ordinary() -> str:
    """The tokenizer.json that all these models share, but for their added tokens."""
    return paper_models.ordinary().to_str()


@pytest.fixture(scope="module")
def amateur(ordinary: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper_models.write(tmp_path_factory.mktemp("amateur"), "amateur", ordinary, 2, 16)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seven sets in the toolkit's layout, and a training file, two to eight problems each."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, row in ROWS.items():
        (folder / name).mkdir()
        _write(folder / name / "test.jsonl", [row] * 2)
    demos = [[f"Question {n}?", f"The answer is ({n})."] for n in range(5)]
    (folder / "mmlu_stem" / "demos.json").write_text(json.dumps(demos), encoding="utf-8")
    _write(
        folder / "train.jsonl",
        [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(8)],
    )
    return folder


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tiny(name: str, expert: Path, amateur: Path, benchmarks: Path) -> Params:
    """The preset with its models, sources and sizes replaced, and nothing else."""
    changes: dict[str, dict[str, Any]] = {
        "models": {"expert": str(expert), "amateur": str(amateur)},
        "prepare": {"source": str(benchmarks / "train.jsonl"), "n_problems": 8},
        "generate": {"max_new_tokens": 4},
        "finetune": {"updates": 2},
        "evaluate": {"source": str(benchmarks), "max_new_tokens": 2},
    }
    tree = PRESETS[name].model_dump(mode="json")
    return config.parse({k: {**v, **changes.get(k, {})} for k, v in tree.items()}, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_comes_to_its_registered_version(
    name: str,
    ordinary: str,
    amateur: Path,
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    expert = paper_models.write(tmp_path / "expert", name, ordinary, 1, 32)
    params = tiny(name, expert, amateur, benchmarks)
    with caplog.at_level(logging.WARNING, "tasks"):
        report = pipeline.lightreasoner(params)
    assert not [each for each in caplog.messages if each.startswith("MLflow did not take")]

    home = tmp_path / "home"
    assert json.loads((home / "latest" / "report.json").read_text("utf-8")) == report
    assert tuple(report["scores"]["lightreasoner"]) == BENCHMARKS
    assert report["stages"]["register"]["cached"] is False
    begin = paper_models.LAYOUTS[name].begin
    tokenizer = models.load_tokenizer(expert)
    for ids in _stored(home, report, "generate", "trajectories.parquet")["prompt_ids"].to_pylist():
        assert tokenizer.decode(ids).count(begin or "<|im_start|>system") == 1
    registered = report["registered_model"]
    assert registered["name"] == f"lightreasoner-{name.replace('.', '-')}"
    assert registered["gate"]["problem_set"] == "gsm8k"
    assert _stored(home, report, "select", "samples.parquet").num_rows > 0
    _check_prompts(home, report, params)
    _check_mlflow(home, registered)

    tracking.configure(homes.tracking_uri(home), home)
    uri = f"models:/{registered['name']}@candidate"
    model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))) / "model"
    merged = home / "store" / "merge" / report["fingerprints"]["merge"] / "payload"
    assert artifacts.digest(model) == artifacts.digest(merged)
    loaded = models.load_model(model, "cpu", "float32")
    assert loaded.config.vocab_size == paper_models.LAYOUTS[name].rows
    again = models.load_tokenizer(model)
    for style in ("qwen25-math-cot", "chat"):
        expected = prompts.encode("1 + 1 é?", style, tokenizer)
        assert prompts.encode("1 + 1 é?", style, again) == expected
    assert models.ordered_stop_ids(model, again) == models.ordered_stop_ids(expert, tokenizer)


def _stored(home: Path, report: dict[str, Any], stage: str, file: str) -> Any:
    payload = home / "store" / stage / report["fingerprints"][stage] / "payload"
    return pq.read_table(payload / file)


def _check_prompts(home: Path, report: dict[str, Any], params: Params) -> None:
    """Base and tuned model were asked in the preset's styles, mmlu_stem with its five demos."""
    for stage, evaluate in (
        ("evaluate_base", params.evaluate.of_base()),
        ("evaluate", params.evaluate.of_tuned()),
    ):
        rows = _stored(home, report, stage, "scores.parquet").to_pylist()
        by_set = {row["problem_set"]: row["prompt"] for row in rows}
        assert by_set["mmlu_stem"].count("The answer is (") == 5
        start = {"cot": "Question: ", "chat": "<｜begin▁of▁sentence｜>Please reason"}
        assert by_set["gsm8k"].startswith(start.get(evaluate.style, "<|im_start|>system\nPlease"))


def _check_mlflow(home: Path, registered: dict[str, Any]) -> None:
    """The run has all parameters and metrics, the version all tags, its model the headline."""
    tracking.configure(homes.tracking_uri(home), home)
    client = MlflowClient()
    version = client.get_model_version(registered["name"], registered["version"])
    run = client.get_run(version.run_id)
    assert {f"accuracy/{name}" for name in BENCHMARKS} <= run.data.metrics.keys()
    assert run.data.params["register.name"] == registered["name"]
    assert {"digest.model", "digest.expert", "params", "gate"} <= version.tags.keys()
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key for metric in logged.metrics} >= {f"gain/{name}" for name in BENCHMARKS}


def test_the_base_style_is_that_of_base_models() -> None:
    assert set(BASE_STYLES) == {name for name in PAPER if name.endswith(("-1.5b", "-7b"))} - {
        "deepseek-r1-distill-qwen-1.5b"
    }
