"""A disk that is full, and folders that cannot be written to: one line, then as if nothing was.

In a mount namespace of its own, with the real console command; skipped where that is not allowed.
"""

import subprocess
from pathlib import Path

import ledger
import pytest
from place import CONSOLE, Place
from recovery import ends_as
from reference import NAMES, Reference

from lightreasoner.cli.options import command_name
from lightreasoner.pipeline.graph import STAGES

pytestmark = pytest.mark.timeout(900)
FULL = """
set -e
mount -t tmpfs -o size=64m tmpfs "$HOME_DIR"
cp -a kept/. "$HOME_DIR"
free=$(df --output=avail -k "$HOME_DIR" | tail -1)
head -c $(( (free - ROOM) * 1024 )) /dev/zero > "$HOME_DIR/ballast"
"$@" || echo "exit status $?"
rm "$HOME_DIR/ballast"
"$@" || echo "exit status $?"
cp -a "$HOME_DIR/." kept
"""
READ_ONLY = """
set -e
mount --bind "$FOLDER" "$FOLDER"
mount -o remount,ro,bind "$FOLDER"
"$@" || echo "exit status $?"
umount "$FOLDER"
"$@" || echo "exit status $?"
"""


def in_namespace(place: Place, script: str, name: str, **given: object) -> list[str]:
    """What the stage's command prints, run twice by the script; skips where it cannot mount."""
    command = [*CONSOLE, command_name(STAGES[name])]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *command],
        cwd=place.folder,
        env=place.environment(HOME_DIR=place.home, **given),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n == "generate" else pytest.mark.nightly)
        for n in NAMES
    ],
)
def test_a_full_disk(undisturbed: Reference, tmp_path: Path, name: str) -> None:
    """Somewhere between the first byte and the last."""
    stage = STAGES[name]
    with ledger.trial("full disk", name):
        place = undisturbed.place(tmp_path / "place", stage)
        place.home.rename(place.folder / "kept")
        place.home.mkdir()
        store = undisturbed.folder / name / ".lightreasoner" / "store"
        needed = sum(
            4 * -(-path.stat().st_size // 4096) for path in store.rglob("*") if path.is_file()
        )
        room = ledger.chance("full", name).randrange(max(1, needed // 2))
        said = in_namespace(place, FULL, name, ROOM=room)
        errors = [line for line in said if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert "no space left on the disk" in errors[0] or "no space left on device" in errors[0]
        assert [line for line in said if line.startswith("exit status")] == ["exit status 2"]
        assert not any("Traceback" in line for line in said)
        place.home.rmdir()
        (place.folder / "kept").rename(place.home)
        ends_as(undisturbed, place, stage)


FOLDERS = ("", "store", "store/locks", "store/{name}", "work", "data")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param(f, n, marks=pytest.mark.slow if f == "work" else pytest.mark.nightly)
        for f, n in zip(FOLDERS, ledger.chance("folders").sample(NAMES, len(FOLDERS)), strict=True)
    ],
)
def test_a_folder_that_is_read_only(
    undisturbed: Reference, tmp_path: Path, folder: str, name: str
) -> None:
    stage = STAGES[name]
    with ledger.trial("read-only folder", name):
        place = undisturbed.place(tmp_path / "place", stage)
        closed = place.home / folder.format(name=name)
        closed.mkdir(parents=True, exist_ok=True)
        said = in_namespace(place, READ_ONLY, name, FOLDER=closed)
        errors = [line for line in said if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert "read-only file system" in errors[0].lower()
        assert not any("Traceback" in line for line in said)
        ends_as(undisturbed, place, stage)
