"""`lightreasoner run` whose results are all in the store: it is quick, since it loads little."""

import ast
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml

from flows import environment
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH

HEAVY = (
    "torch", "transformers", "matplotlib", "reasoning_gym", "cellpylib",
    "prefect.server.api.server", "scipy.stats",
)  # fmt: skip
RUN = f"""
import atexit, json, pathlib, sys
loaded = lambda: [name for name in {HEAVY} if name in sys.modules]
atexit.register(lambda: pathlib.Path("loaded.json").write_text(json.dumps(loaded())))
from flows.cli.console import main
main()
"""


def run(workspace: Path) -> list[str]:
    """Run the pipeline there; what it said, a line each."""
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        environ.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "run"],
        cwd=workspace,
        env={**environ, "LIGHTREASONER_HOME": str(workspace / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).splitlines()


def test_what_every_run_imports_is_light() -> None:
    code = (
        "import sys; from flows import pipeline; from flows.cli import app\n"
        "from flows.results import terminal; print([*sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    imported = ast.literal_eval(done.stdout.splitlines()[-1])
    assert "mlflow" in imported
    assert not {*HEAVY} & {*imported}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cached_run_loads_no_model_library_and_is_recorded(
    tmp_path: Path, tiny_params: Params
) -> None:
    tree = tiny_params.model_dump(mode="json")
    if not torch.cuda.is_available():
        tree["compute"]["device"] = "auto"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    run(tmp_path)
    assert "torch" in json.loads((tmp_path / "loaded.json").read_text())
    lines = run(tmp_path)
    cached = {line.split()[0] for line in lines if " cached " in line}
    assert cached >= {stage.name for stage in GRAPH}
    assert json.loads((tmp_path / "loaded.json").read_text()) == []
    with closing(sqlite3.connect(tmp_path / "home" / "prefect" / "prefect.db")) as database:
        flows = database.execute("SELECT state_name FROM flow_run").fetchall()
        tasks = database.execute("SELECT state_name FROM task_run").fetchall()
    assert flows == [("Completed",)] * 2
    assert tasks.count(("Cached",)) == len(GRAPH)
    assert len(tasks) == 2 * (len(GRAPH) + 2)
    assert {name for (name,) in tasks} == {"Cached", "Completed"}
    assert "browse runs  lightreasoner up" in lines
