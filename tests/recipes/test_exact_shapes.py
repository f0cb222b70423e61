"""The benchmark of a preset's stages at the shapes of its models, on two layers as a trial."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("layers", [None, "1"])
def test_stages_are_measured_in_float32(layers: str | None, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--tiny", "--dtype", "float32", "--until", "select", "--work", str(tmp_path)]
    options += ["--layers", layers] if layers else []
    script = [sys.executable, "-m", "benchmarks.exact_shapes", "qwen2.5-math-7b", "--out", str(out)]
    subprocess.run([*script, *options], cwd=ROOT, check=True)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["models"]["expert"]["shape"]["layers"] == int(layers or 2)
    assert found["models"]["amateur"]["shape"]["layers"] == 2
    assert found["float32"]["select"]["samples"] == 64
