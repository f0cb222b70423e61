"""The clock set back in the middle: what was stored before is from the future then.

Python's clock is (time.time and time.time_ns; witness/sitecustomize.py), and the times of files
are set forward instead of the kernel's clock back: only root could do that, for the whole machine.
"""

import os
import signal
import time
from pathlib import Path

import ledger
import pytest
from recovery import recovers
from reference import NAMES, Reference
from test_killed_stages import interrupted

from lightreasoner.pipeline.graph import STAGES

pytestmark = pytest.mark.timeout(900)
YEAR = 365 * 24 * 3600


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n == "merge" else pytest.mark.nightly)
        for n in NAMES
    ],
)
def test_the_clock_is_set_back(undisturbed: Reference, tmp_path: Path, name: str) -> None:
    stage = STAGES[name]
    with ledger.trial("clock set back", name) as trial:
        place, program = interrupted(undisturbed, tmp_path, stage, "clock")
        program.send(signal.SIGKILL)
        program.wait()
        later = time.time() + YEAR
        for path in place.home.rglob("*"):
            if path.is_file() and path.stat().st_nlink == 1:
                os.utime(path, (later, later))
        recovers(undisturbed, place, stage, trial, FAULTS_CLOCK=-YEAR)
        place.fork(stage, FAULTS_CLOCK=-2 * YEAR).succeeds()
        assert f"{stage.name}: cached " in place.said()
