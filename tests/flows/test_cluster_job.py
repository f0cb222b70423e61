"""scripts/cluster_job.sh as a plain script: ended early by SIGTERM, then started on a new home."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from checkout import ROOT

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not (ROOT / ".venv/bin/lightreasoner").is_file(), reason="needs make setup")
def test_a_job_that_is_ended_early_leaves_its_results_to_the_next(
    tmp_path: Path, tiny_params: Params
) -> None:
    place, params = tmp_path / "place", tmp_path / "params.yaml"
    params.write_text(config.dump(tiny_params), encoding="utf-8")
    words = ["bash", "scripts/cluster_job.sh", str(place), "--params", str(params)]

    def job(name: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "LIGHTREASONER_HOME": str(tmp_path / name)}
        environ.pop("PREFECT_HOME")  # the test process's own
        with (tmp_path / f"{name}.log").open("wb") as log:
            return subprocess.Popen(words, cwd=ROOT, env=environ, stdout=log, stderr=log)

    first = job("first")
    end = time.monotonic() + 500
    while not list((tmp_path / "first" / "store").glob("generate/*")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(300) == 128 + signal.SIGTERM
    sent = {path.parent.name for path in place.glob("entries/*/*.json")}
    assert {"prepare", "generate"} <= sent < {stage.name for stage in GRAPH}

    assert job("second").wait(500) == 0
    said = (tmp_path / "second.log").read_text(encoding="utf-8")
    assert said.count("  fetched, ") == len(sent)
    for name in sent:
        assert f"\n{name} " in said.partition("fetched")[2]
    assert said.count(" cached ") == len(sent)
    assert len(list(place.glob("entries/*/*.json"))) == len(GRAPH)
