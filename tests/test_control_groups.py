"""A container's limits, as the files of both versions of Linux's control groups say them."""

import math
import os
from pathlib import Path

import pytest

from lightreasoner import control_groups, memory, processes

UNLIMITED_V1 = "9223372036854771712\n"


def machine(root: Path, groups: str, **files: str) -> Path:
    """A root with this /proc/self/cgroup and these files."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


def grouped(**limits: str) -> dict[str, str]:
    return {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """Its own group looks like the topmost."""
    limits = grouped(**{"memory.max": "8589934592\n", "cpu.max": "150000 100000\n"})
    root = machine(tmp_path, "0::/\n", **limits)
    assert (control_groups.memory(root), control_groups.cores(root)) == (8 * 2**30, 1.5)


def test_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    """As a slice of systemd's has it; `max` is no limit."""
    limits = grouped(
        **{
            "work.slice/memory.max": "4294967296\n",
            "work.slice/job.scope/memory.max": "max\n",
            "work.slice/job.scope/cpu.max": "max 100000\n",
        }
    )
    root = machine(tmp_path, "0::/work.slice/job.scope\n", **limits)
    assert (control_groups.memory(root), control_groups.cores(root)) == (4 * 2**30, math.inf)


def test_version_1_with_the_machines_path(tmp_path: Path) -> None:
    """A container's own group is then mounted at the top, whatever the path says."""
    groups = "5:memory:/docker/70\n4:cpu,cpuacct:/docker/70\n1:name=systemd:/\n"
    limits = grouped(
        **{
            "memory/memory.limit_in_bytes": "2147483648\n",
            "cpu/cpu.cfs_quota_us": "400000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    root = machine(tmp_path, groups, **limits)
    assert (control_groups.memory(root), control_groups.cores(root)) == (2 * 2**30, 4)


def test_no_limit(tmp_path: Path) -> None:
    groups = "5:memory:/\n4:cpu:/\n0::/\n"
    limits = grouped(
        **{"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        **{"memory/memory.limit_in_bytes": UNLIMITED_V1},
    )
    root = machine(tmp_path, groups, **limits)
    assert control_groups.cores(root) == math.inf
    assert control_groups.memory(root) > 2**62
    assert control_groups.memory(tmp_path / "elsewhere") == math.inf


def test_what_is_used_is_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as cores, said only where a limit hides some."""
    assert processes.threads() == {} or processes.usable_cores() < len(os.sched_getaffinity(0))
    monkeypatch.setattr(control_groups, "cores", lambda: 0.5)
    monkeypatch.setattr(control_groups, "memory", lambda: 3e9)
    monkeypatch.setattr(processes, "_visible_cores", lambda: 64)
    assert (processes.usable_cores(), memory.machine_bytes()) == (1, 3_000_000_000)
    assert processes.threads() == {"OMP_NUM_THREADS": "1"}
