"""What a container may use of its machine: the limits of Linux's control groups, of either version.

A container sees all cores and all memory of the machine; what it is allowed stands in files. Where
there is no such limit, or no Linux, the answer is infinite.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def cores(root: Path = ROOT) -> float:
    """Of how many cores this process may use the time (`docker run --cpus`), which need not be a
    whole number."""
    shares = [_share(each.read_text()) for each in _files("cpu", "cpu.max", root)]
    for quota in _files("cpu", "cpu.cfs_quota_us", root):
        period = quota.with_name("cpu.cfs_period_us")
        shares.append(_share(f"{quota.read_text()} {period.read_text()}"))
    return min(shares, default=math.inf)


def memory(root: Path = ROOT) -> float:
    """Bytes of memory that this process and those beside it may hold (`docker run --memory`)."""
    names = "memory.max", "memory.limit_in_bytes"
    files = (each for name in names for each in _files("memory", name, root))
    return min((_number(each.read_text()) for each in files), default=math.inf)


def _files(controller: str, name: str, root: Path) -> Iterator[Path]:
    """The files of this name from the process's own group up to the topmost that is seen.

    `/proc/self/cgroup` has a line `0::PATH` for version 2 and `N:CONTROLLERS:PATH` for each of
    version 1, whose path may be the machine's, of which a container sees the last group alone.
    """
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / (controller if controllers else "")
            group = PurePosixPath(path.lstrip("/"))
            for each in (group, *group.parents):
                if (top / each / name).is_file():
                    yield top / each / name


def _share(text: str) -> float:
    """`200000 100000`, microseconds of each period, is 2 cores; `max` and a negative are all."""
    quota, period = text.split()
    return _number(quota) / int(period)


def _number(text: str) -> float:
    """`max` and -1 are no limit."""
    value = math.inf if text.strip() == "max" else float(text)
    return value if value >= 0 else math.inf
