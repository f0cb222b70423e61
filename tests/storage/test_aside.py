"""Folders beside the place of what is written: gone at the end, and after a kill at the next."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightreasoner.storage import aside

KILLED = """
import os, signal, sys
from pathlib import Path
from lightreasoner.storage import aside
with aside.beside(Path(sys.argv[1])) as work:
    (work / "half").write_text("half")
    if len(sys.argv) > 2:
        print(flush=True)
        input()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_beside_and_gone_at_the_end(tmp_path: Path) -> None:
    with aside.beside(tmp_path / "set") as work:
        (work / "half").write_text("half")
        assert list(tmp_path.iterdir()) == [work]
    with pytest.raises(ZeroDivisionError), aside.beside(tmp_path / "set"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """Names that look alike, and a folder that a living process writes in, stay."""
    for name in (".set-previous", ".set.unfinished", ".sets.unfinished-1"):
        (tmp_path / name).mkdir()
    (tmp_path / ".set.unfinished-link").symlink_to(tmp_path / ".set-previous")
    kept = set(tmp_path.iterdir())
    place = tmp_path / "set"
    command = [sys.executable, "-c", KILLED, str(place)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert len([*tmp_path.iterdir()]) == len(kept) + 1
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "waits"], **pipes) as living:
        assert living.stdout is not None
        living.stdout.readline()
        (of_living,) = set(tmp_path.iterdir()) - kept
        with aside.beside(place) as work:
            assert set(tmp_path.iterdir()) == kept | {of_living, work}
        living.communicate(b"\n")
    aside.clear(place)
    assert set(tmp_path.iterdir()) == kept


def test_many_at_once_keep_their_own(tmp_path: Path) -> None:
    def write(number: int) -> str:
        with aside.beside(tmp_path / "set") as work:
            (work / "number").write_text(str(number))
            return (work / "number").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(write, range(200))] == [*map(str, range(200))]
    assert list(tmp_path.iterdir()) == []
