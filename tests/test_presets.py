"""Every preset of the paper's, from its parameters to its registered version.

The models are tiny and random, in the layout of the preset's own (paper_models.py); beside them
only sources and sizes are not the preset's.
"""

import json
import logging
from pathlib import Path
from typing import Any

import json_lines
import mlflow
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from benchmarks import paper_models
from flows import registering
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.inference import loading, prompts, vocabulary
from lightreasoner.paper import BENCHMARKS
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect and of MLflow
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.timeout(900),
]
PAPER = [name for name in PRESETS if name != "microworld"]
SLOW = ("deepseek-r1-distill-qwen-1.5b",)
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.nightly)
    for name in PAPER
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


@pytest.fixture(scope="session")
def ordinary() -> str:
    """The tokenizer.json that all these models share, but for their added tokens."""
    return paper_models.ordinary().to_str()


@pytest.fixture(scope="module")
def amateur(ordinary: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amateur")
    return paper_models.write(folder, "amateur", ordinary, 2, paper_models.tiny(16))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seven sets in the toolkit's layout, and a training file, two to eight problems each."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, row in ROWS.items():
        (folder / name).mkdir()
        json_lines.write(folder / name / "test.jsonl", [row] * 2)
    demos = [[f"Question {n}?", f"The answer is ({n})."] for n in range(5)]
    (folder / "mmlu_stem" / "demos.json").write_text(json.dumps(demos), encoding="utf-8")
    json_lines.write(
        folder / "train.jsonl",
        [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(8)],
    )
    return folder


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


def run(params: Params, home: Path) -> tuple[Inputs, dict[str, Any]]:
    """Every stage through the store, then the registry; all artifacts, and the version."""

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        return Store(home).run(Job.of(stage, inputs, params), Silent()).artifact

    given = external_inputs(params)
    found = given | walk(GRAPH, given, make)
    return found, registering.register_stored(params, found["model"], home)


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
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    expert = paper_models.write(tmp_path / "expert", name, ordinary, 1, paper_models.tiny(32))
    params = tiny(name, expert, amateur, benchmarks)
    with caplog.at_level(logging.WARNING, "tasks"):
        found, registered = run(params, tmp_path / "home")
    assert not [each for each in caplog.messages if each.startswith("MLflow did not take")]
    assert registered["name"] == f"lightreasoner-{name.replace('.', '-')}"
    assert registered["gate"]["problem_set"] == "gsm8k"
    assert _rows(found, "samples", "samples.parquet")
    _check_prompts(found, params, paper_models.LAYOUTS[name].begin or "<|im_start|>system")
    _check_mlflow(registered)
    _check_loads_again(registered, found, tmp_path)


def _rows(found: Inputs, output: str, file: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(found[output].path / file).to_pylist()
    return rows


def _check_prompts(found: Inputs, params: Params, begin: str) -> None:
    """All were asked in the preset's styles: a chat begins with the expert's own token, once, and
    mmlu_stem has its five demos."""
    tokenizer = loading.load_tokenizer(found["expert"].path)
    for row in _rows(found, "trajectories", "trajectories.parquet"):
        prompt = tokenizer.decode(row["prompt_ids"])
        assert (prompt.startswith(begin), prompt.count(begin)) == (True, 1)
    for output, section in (
        ("scores_base", params.evaluate.of_base()),
        ("scores", params.evaluate.of_tuned()),
    ):
        rows = _rows(found, output, "scores.parquet")
        asked = {row["problem_set"]: row["prompt"] for row in rows}
        assert tuple(asked) == BENCHMARKS
        assert asked["mmlu_stem"].count("The answer is (") == 5
        assert asked["gsm8k"].startswith("Question: " if section.style == "cot" else begin)


def _check_mlflow(registered: dict[str, Any]) -> None:
    """The run has all parameters, metrics and its page, the version all tags, its model the gains.

    The registry is the one that `run` went to.
    """
    client = MlflowClient()
    version = client.get_model_version(registered["name"], registered["version"])
    made = client.get_run(version.run_id).data
    assert {f"accuracy/{name}" for name in BENCHMARKS} <= made.metrics.keys()
    assert made.params["register.name"] == registered["name"]
    assert {"digest.model", "digest.expert", "params", "gate"} <= version.tags.keys()
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key for metric in logged.metrics} >= {f"gain/{name}" for name in BENCHMARKS}


def _check_loads_again(registered: dict[str, Any], found: Inputs, scratch: Path) -> None:
    """The version's files are the merged ones: same rows, same prompts' ids, same ends."""
    uri = f"models:/{registered['name']}@candidate"
    path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(scratch))) / "model"
    assert artifacts.digest(path) == found["model"].digest
    expert = found["expert"].path
    loaded = loading.load_model(path, "cpu", "float32")
    assert loaded.config.vocab_size == vocabulary.vocabulary_size(expert)
    before, after = loading.load_tokenizer(expert), loading.load_tokenizer(path)
    for style in ("qwen25-math-cot", "chat"):
        expected = prompts.encode("1 + 1 é?", style, before)
        assert prompts.encode("1 + 1 é?", style, after) == expected
    assert loading.ordered_stop_ids(path, after) == loading.ordered_stop_ids(expert, before)
