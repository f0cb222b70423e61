"""Shared parts: two tiny random models of one vocabulary, problems for them, empty databases.

What is slow to import is imported where it is needed: the process that hands out the tests runs
none of them.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browsing
import json_lines
import pytest
import shared_folder
from hypothesis import settings

from flows import environment
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.grading import grade

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
"""A test that is slow on a busy machine has not failed."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports Prefect: nothing phones home, and no state is the user's."""
    folder = tempfile.TemporaryDirectory(prefix="lightreasoner-tests-")
    config.add_cleanup(folder.cleanup)
    environment.prepare_environment(Path(folder.name))


LONGEST = (
    "test_ui_browser", "test_servers", "test_killed_stages", "test_killed_drivers",
    "test_pipeline", "test_sweep", "test_champion", "test_presets", "test_trainer",
    "test_evaluate_command", "test_openai_engine", "test_registry", "test_sync", "test_microworld",
    "test_worker_pool", "test_cli", "test_fingerprint", "test_pair_cli", "test_grade", "test_up",
    "test_whole_solutions", "test_bench", "test_evaluate", "test_publish", "test_finetune",
    "test_merge",
)  # fmt: skip
"""Files that take longest, first: all others would wait for one that starts last."""

TOGETHER = {
    "test_sweep": "test_pipeline",  # one Prefect server
    "test_rounds_flow": "test_pipeline",
    "test_prefect_history": "test_pipeline",
    "test_evaluate_command": "test_openai_engine",  # one `transformers serve`
    "test_fuzz_form": "test_form",  # Prefect's import
}
"""Files that follow another one in the same process, for what both have to start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file stay together and come in their order, as with --dist loadfile."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            stem = Path(nodeid.partition("::")[0]).stem
            return TOGETHER.get(stem, stem)

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def shell() -> Iterator[None]:
    """What a command line sets in the environment (flows/environment.py) ends with its test.

    But for what Ray reads once in a process, its token.
    """
    before = dict(os.environ)
    yield
    kept = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    os.environ.clear()
    os.environ.update(before | kept)


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """What a command line shows of our log (lightreasoner/cli/output.py) ends with its test."""
    loggers = [logging.getLogger(name) for name in ("lightreasoner", "tasks", "flows")]
    before = [(each, each.level, each.handlers) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers = handlers


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run see."""
    return shared_folder.of_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def new_database(run_folder: Path) -> Callable[[Path], str]:
    """Puts an empty MLflow database into a home and returns its URI; making one takes seconds."""
    from mlflow import MlflowClient

    empty = shared_folder.once(
        run_folder / "mlflow", lambda folder: MlflowClient(environment.database(folder))
    )

    def put(home: Path) -> str:
        shutil.copytree(empty / "mlflow", home / "mlflow")
        return environment.database(home)

    return put


@pytest.fixture(scope="session", autouse=True)
def one_grader() -> Iterator[None]:
    """All tests of a process are graded by one other process, which takes seconds to start."""
    with grade.shared_process():
        yield


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect API of the tests' own."""
    import prefect_server

    with prefect_server.serving(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="module")
def prefect_api(prefect_url: str) -> Iterator[None]:
    """A module's flows go to the tests' own Prefect API."""
    import prefect_server

    with prefect_server.using(prefect_url):
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of `transformers serve` on the micro-world's expert."""
    import transformers_serve

    with transformers_serve.serving(tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 model's directory."""
    from tiny_models import write_model

    return write_model(tmp_path_factory.mktemp("expert"), seed=1, hidden=32, layers=2)


@pytest.fixture(scope="session")
def tiny_amateur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller random model of the same vocabulary."""
    from tiny_models import write_model

    return write_model(tmp_path_factory.mktemp("amateur"), seed=2, hidden=16, layers=1)


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small problems as JSONL."""
    rows = [
        {"question": f"What is {n} + {n + 1}?", "answer": f"{n}+{n + 1}\n#### {2 * n + 1}"}
        for n in range(12)
    ]
    return json_lines.write(tmp_path_factory.mktemp("problems") / "train.jsonl", rows)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    with browsing.chromium() as running:
        yield running


@pytest.fixture
def samples_dir(tmp_path: Path) -> Path:
    """Three trajectories with 1, 2 and 3 samples, of one and two tokens; `problems` beside them."""
    import pyarrow as pa

    from lightreasoner.storage import tables

    directory = tmp_path / "samples"
    directory.mkdir()
    one, two = ([40], [1.0]), ([41, 42], [0.75, 0.25])
    rows = [("a", 0, *one), ("b", 1, *two), ("b", 3, *one)]
    rows += [("c", 0, *two), ("c", 2, *two), ("c", 4, *one)]
    columns = [*map(list, zip(*rows, strict=True)), [0.5] * 6]
    tables.write_table(
        pa.table(columns, tables.SAMPLES), tables.SAMPLES, directory / "samples.parquet"
    )
    trajectories = pa.table(
        [["a", "b", "c"], [[1, 2], [3, 4, 5], [6]], [[9, 8], [7] * 5, [6] * 6], ["stop"] * 3],
        tables.TRAJECTORIES,
    )
    tables.write_table(trajectories, tables.TRAJECTORIES, directory / "trajectories.parquet")
    (tmp_path / "problems").mkdir()
    rows = [Problem(name, "What is it?", "7", "so it is 7") for name in "abc"]
    problems.write_problems(rows, tmp_path / "problems" / "problems.jsonl")
    return directory


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach at once, without the seconds of its clients' retries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def tiny_params(tiny_expert: Path, tiny_amateur: Path, problems_file: Path) -> Params:
    """Parameters of a pipeline of seconds: two random models, six problems, two updates."""
    source = {"source": str(problems_file), "n_problems": 6}
    tree = {
        "models": {"expert": str(tiny_expert), "amateur": str(tiny_amateur)},
        "compute": {"device": "cpu"},
        "prepare": {**source, "problem_set": "small"},
        "generate": {"max_new_tokens": 6},
        "score": {},
        "select": {"beta": 0.0},
        "finetune": {"updates": 2, "samples_per_update": 4, "samples_per_forward": 4},
        "merge": {"parity_prompts": 2},
        "evaluate": {**source, "problem_sets": ["small"], "max_new_tokens": 4},
        "register": {"name": "tiny"},
        "sft": {"n_problems": 6, "max_new_tokens": 4, "updates": 1},
    }
    return config.parse(tree, "test")
