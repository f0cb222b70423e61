"""Stored results damaged: the next run says so, makes them again, and all is as before."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ledger
import pytest
from place import Place
from recovery import ends_as, recovers
from reference import NAMES, Reference

from lightreasoner.pipeline.graph import STAGES

pytestmark = pytest.mark.timeout(900)
QUICK = "select"


def truncated(file: Path) -> None:
    content = file.read_bytes()
    _anew(file, content[: len(content) // 2])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[ledger.chance("flip", file.name).randrange(len(content))] ^= 1
    _anew(file, bytes(content))


def deleted(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    _anew(file, b"")


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def loop_of_folders(file: Path) -> None:
    """Where a walk could go on for ever."""
    file.unlink()
    file.mkdir()
    (file / "again").symlink_to("..")


def _anew(file: Path, content: bytes) -> None:
    """Another file in its place; what is linked to the old one stays."""
    file.unlink()
    file.write_bytes(content)


DAMAGE: list[Callable[[Path], None]] = [
    truncated, flipped, deleted, emptied, fifo, folder, dangling_link, link_to_itself,
    loop_of_folders,
]  # fmt: skip


def named(damage: Callable[[Path], None]) -> str:
    """What was done, in words."""
    return damage.__name__.replace("_", " ")


def entry_of(place: Place, name: str) -> Path:
    (entry,) = (place.home / "store" / name).iterdir()
    return entry


@pytest.fixture
def finished(undisturbed: Reference, tmp_path: Path) -> Callable[[str], Place]:
    """A place in which a stage has run, as the reference's own; nothing is shared with it."""

    def make(name: str) -> Place:
        place = Place(tmp_path / "place")
        shutil.copytree(undisturbed.folder / name, place.folder)
        (place.folder / "changes").unlink()
        return place

    return make


def cases() -> Iterator[Any]:
    """(damage, stage): each damage to one stage for CI, to three more by the seed."""
    for damage in DAMAGE:
        others = [name for name in NAMES if name != QUICK]
        yield pytest.param(damage, QUICK, marks=pytest.mark.slow)
        for name in ledger.chance(named(damage)).sample(others, 3):
            yield pytest.param(damage, name, marks=pytest.mark.nightly)


@pytest.mark.parametrize(
    ("damage", "name"),
    list(cases()),
    ids=lambda value: value if isinstance(value, str) else named(value),
)
def test_a_damaged_file(
    undisturbed: Reference,
    finished: Callable[[str], Place],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    """Any of the entry's files: one of the payload, the manifest, the curves."""
    stage = STAGES[name]
    with ledger.trial(f"{damage.__name__.replace('_', ' ')} in the store", name) as trial:
        place = finished(name)
        files = sorted(path for path in entry_of(place, name).rglob("*") if path.is_file())
        full = [path for path in files if path.stat().st_size]
        damage(ledger.chance("damage", name, damage.__name__).choice(full))
        recovers(undisturbed, place, stage, trial, again=True)
        assert "is damaged; making it again" in place.said()


def entry_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("in the way")


def entry_a_dangling_link(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.symlink_to("nowhere")


def entry_swapped(entry: Path) -> None:
    """Another stage's result stands here, whole."""
    other = entry.parents[1] / "other"
    other.mkdir()
    (other / "payload").mkdir()
    for name in ("manifest.json", "metrics.jsonl"):
        shutil.copy(entry / name, other)
    (other / "payload" / "problems.jsonl").write_text("{}\n")
    shutil.rmtree(entry)
    other.rename(entry)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [entry_a_file, entry_a_dangling_link, entry_swapped])
def test_a_damaged_entry(
    undisturbed: Reference, finished: Callable[[str], Place], damage: Callable[[Path], None]
) -> None:
    with ledger.trial(named(damage), QUICK) as trial:
        place = finished(QUICK)
        damage(entry_of(place, QUICK))
        recovers(undisturbed, place, STAGES[QUICK], trial, again=True)


def cases_beside() -> Iterator[Any]:
    """(damage, file): a folder directly under home may be someone's, and stays."""
    for damage in DAMAGE:
        mark = pytest.mark.slow if damage is fifo else pytest.mark.nightly
        for file in ("plan.json", "00001.parquet", "00001.sha256", "digests.json"):
            if file != "digests.json" or damage not in (folder, loop_of_folders):
                yield pytest.param(damage, file, marks=mark)


@pytest.mark.parametrize(
    ("damage", "file"),
    list(cases_beside()),
    ids=lambda value: value if isinstance(value, str) else named(value),
)
def test_a_damaged_file_beside_the_store(
    undisturbed: Reference,
    finished: Callable[[str], Place],
    damage: Callable[[Path], None],
    file: str,
) -> None:
    """The remembered digests, and the plan and a shard of work in progress."""
    name = "generate"
    with ledger.trial(f"{damage.__name__.replace('_', ' ')} beside the store", name) as trial:
        place = finished(name)
        entry = entry_of(place, name)
        shards = place.home / "work" / entry.name / "shards"
        shards.mkdir(parents=True)
        shutil.rmtree(entry)
        shutil.rmtree(place.out(STAGES[name]))
        for name_of_shard in ("plan.json", "00001.parquet", "00001.sha256"):
            (shards / name_of_shard).write_text('{"id": "x", "total": 100, "size": 32}\n')
        damage((place.home if file == "digests.json" else shards) / file)
        recovers(undisturbed, place, STAGES[name], trial, again=True)


@pytest.mark.slow
def test_a_file_flipped_on_the_disk_itself(
    undisturbed: Reference, finished: Callable[[str], Place]
) -> None:
    """The placed result is the same file as the stored one: the command does not replace what it
    does not know, and says how it will."""
    name = QUICK
    with ledger.trial("flipped on the disk", name):
        place = finished(name)
        shutil.rmtree(place.out(STAGES[name]))
        shutil.copytree(
            entry_of(place, name) / "payload", place.out(STAGES[name]), copy_function=os.link
        )
        with (place.out(STAGES[name]) / "samples.parquet").open("r+b") as file:
            file.seek(100)
            file.write(b"\0\1\2\3")
        assert place.fork(STAGES[name]).wait() == 2
        assert "or replace all that it holds by --overwrite" in place.said()
        place.fork(STAGES[name], "--overwrite").succeeds()
        ends_as(undisturbed, place, STAGES[name])
