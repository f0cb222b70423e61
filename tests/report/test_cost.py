"""Tokens of a pass over the samples and over whole solutions, by hand.

Trajectory a has 3 prompt tokens and 4 of a response, b has 2 and 0, c has 1 and 2.
"""

from pathlib import Path

import pytest
from written_steps import write_samples, write_steps

from lightreasoner.errors import ArtifactError
from lightreasoner.report import cost

TRAJECTORIES = [
    ("a", [1, 2, 3], [5] * 4, "length"),
    ("b", [1, 2], [], "stop"),
    ("c", [1], [5, 6], "stop"),
]


def counted(root: Path, *steps: tuple[str, int]) -> dict[str, cost.Counts]:
    samples = [(id_, step, {5: 1.0}, 1.0) for id_, step in steps]
    write_steps(root / "steps", [], TRAJECTORIES)
    return cost.of(write_samples(root / "samples", samples), root / "steps")


def test_a_trajectory_is_read_once_to_its_last_label(tmp_path: Path) -> None:
    """a to step 2: 3 + 2 tokens; whole: 3 + 3 and 1 + 1; b, which says nothing, is in neither."""
    assert counted(tmp_path, ("a", 0), ("a", 2)) == {
        "lightreasoner": {"trajectories": 1, "labels": 2, "read": 5},
        "sft": {"trajectories": 2, "labels": 6, "read": 8},
        "scoring": {"models": 2, "read": 16},
    }


def test_samples_at_every_step_cost_what_whole_solutions_do(tmp_path: Path) -> None:
    every = [*(("a", step) for step in range(4)), ("c", 0), ("c", 1)]
    found = counted(tmp_path, *every)
    assert found["lightreasoner"] == found["sft"]


def test_samples_of_other_trajectories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="samples of 1 trajectories are not of these"):
        counted(tmp_path, ("a", 0), ("elsewhere", 0))
