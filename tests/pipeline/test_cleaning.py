"""What a store holds, what may go of it, and that what stays is whole."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stored_pipeline
from checkout import PATHS

from lightreasoner.pipeline import cleaning, contents
from lightreasoner.pipeline.cleaning import FEEDS, LATELY, Needed
from lightreasoner.pipeline.graph import STAGES, external_inputs
from lightreasoner.pipeline.store import Job, Outcome, Store, note_inputs
from lightreasoner.presets import PRESETS
from lightreasoner.storage import in_use
from lightreasoner.storage.artifacts import Artifact

KILLED = """
import os, signal, sys
from pathlib import Path
from lightreasoner.pipeline import cleaning
from lightreasoner.storage import in_use

home, numbers = Path(sys.argv[1]), iter(map(int, sys.argv[2:]))
left = 0

def count(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
for left in numbers:
    child = os.fork()
    if not child:
        with in_use.alone(home):
            cleaning.carry_out(home, cleaning.plan(home, cleaning.Needed(), 1e11))
        os._exit(0)
    assert os.waitpid(child, 0)[1] in (0, signal.SIGKILL)
    print(sum(1 for _ in home.glob("store/*/*/manifest.json")), flush=True)
    input()
"""
"""Removes all, but is killed at a change of the disk; the numbers are the changes."""

DAY = 86400.0
NOW = time.time()


def key(outcome: Outcome) -> str:
    return str(outcome.manifest["fingerprint"])


def kept(home: Path, needed: Needed, days: float = 30) -> dict[str, str]:
    """The stages whose results stay, and why."""
    planned = cleaning.plan(home, needed, NOW - days * DAY)
    return {Path(path).parent.name: who for path, who in planned.stays.items()}


def half_done(home: Path, name: str, days: float, **inputs: str) -> Path:
    """Work that a killed process left."""
    path = home / "work" / name
    (path / "shards").mkdir(parents=True)
    note_inputs(path, {what: Artifact(path, digest) for what, digest in inputs.items()})
    stored_pipeline.age(path, days)
    return path


def test_what_nobody_needs_goes_as_a_whole(tmp_path: Path, made: dict[str, Outcome]) -> None:
    with Store(tmp_path).lock("0123"):
        pass
    planned = cleaning.plan(tmp_path, Needed(), NOW - 30 * DAY)
    assert {each.key for each in planned.goes} == set(map(key, made.values()))
    before, freed = sum(contents.disk_use(tmp_path).values()), contents.freed(planned.paths())
    with in_use.alone(tmp_path):
        cleaning.carry_out(tmp_path, planned)
    assert contents.results(tmp_path) == []
    assert [path.name for path in (tmp_path / "store" / "locks").iterdir()] == [in_use.NAME]
    assert list((tmp_path / "work").iterdir()) == []
    after = sum(contents.disk_use(tmp_path).values())
    assert before - after == pytest.approx(freed, abs=64 << 10)  # folders' own blocks


def test_what_is_named_or_was_used_stays_with_what_it_was_made_from(
    tmp_path: Path, made: dict[str, Outcome]
) -> None:
    """score is made from trajectories, these from problems; evaluate_base from neither."""
    by_key, by_digest = Needed(), Needed()
    by_key.add("a run", [key(made["score"])])
    by_digest.add("dvc.lock", digests=[made["score"].artifact.digest])
    chain = {"generate": FEEDS, "prepare": FEEDS}
    assert kept(tmp_path, by_key) == {**chain, "score": "a run"}
    assert kept(tmp_path, by_digest) == {**chain, "score": "dvc.lock"}
    os.utime(Store(tmp_path).entry(STAGES["score"], key(made["score"])))
    assert kept(tmp_path, Needed()) == {**chain, "score": LATELY}


def test_what_is_taken_was_used_now(tmp_path: Path, made: dict[str, Outcome]) -> None:
    params = PRESETS["microworld"]
    entry = made["prepare"].artifact.path.parent
    job = Job.of(STAGES["prepare"], external_inputs(params, ["problem_source"]), params)
    with Store(tmp_path).claim(job) as found:
        assert found is not None
    assert entry.stat().st_mtime >= NOW - 1


def test_half_done_work_stays_a_while_with_what_it_reads(
    tmp_path: Path, made: dict[str, Outcome]
) -> None:
    late = half_done(tmp_path, "1" * 32, 1, trajectories=made["generate"].artifact.digest)
    old = half_done(tmp_path, "2" * 32, 31)
    stored = half_done(tmp_path, key(made["select"]), 1)  # killed before it removed this
    other = tmp_path / "work" / "of-somebody"
    other.mkdir()
    planned = cleaning.plan(tmp_path, Needed(), NOW - 30 * DAY)
    assert {Path(path).name for path in planned.stays} == {
        late.name, key(made["generate"]), key(made["prepare"]),
    }  # fmt: skip
    with in_use.alone(tmp_path):
        cleaning.carry_out(tmp_path, planned)
    assert late.exists()
    assert other.exists()
    assert not old.exists()
    assert not stored.exists()


def test_a_killed_removal_leaves_whole_results(tmp_path: Path, made: dict[str, Outcome]) -> None:
    """Killed again and again at seeded changes; what is gone is made anew, what is left is whole.

    Each entry of this store is six changes or more.
    """
    changes = [random.Random(at).randint(1, 9) for at in range(8)]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *map(str, changes)]
    env = os.environ | {"PYTHONPATH": PATHS}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    seen = []
    with subprocess.Popen(command, **pipes) as killed:
        assert killed.stdin is not None
        assert killed.stdout is not None
        for line in killed.stdout:
            left = contents.results(tmp_path)
            assert int(line) == len(left)
            for each in left:
                assert Store(tmp_path).stored(STAGES[each.stage], each.key) is not None
            seen.append(len(left))
            killed.stdin.write("\n")
            killed.stdin.flush()
    assert len(seen) == len(changes)
    assert len(set(seen)) > 2, seen
    again = stored_pipeline.write_keyed(tmp_path, PRESETS["microworld"])
    assert {n: o.artifact.digest for n, o in again.items()} == {
        n: o.artifact.digest for n, o in made.items()
    }
    with in_use.alone(tmp_path):
        cleaning.carry_out(tmp_path, cleaning.plan(tmp_path, Needed(), NOW - DAY))
    assert len(contents.results(tmp_path)) == len(made)
    assert list((tmp_path / "work").iterdir()) == []
