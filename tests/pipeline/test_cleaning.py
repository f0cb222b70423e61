"""What a store holds, what may go of it, and that what stays is whole."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import stored_pipeline
from checkout import PATHS
from command_line import call

from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline import cleaning, contents
from lightreasoner.pipeline.cleaning import FEEDS, LATELY, Needed
from lightreasoner.pipeline.graph import GRAPH, STAGES, external_inputs
from lightreasoner.pipeline.store import Job, Outcome, Store, note_inputs
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts, in_use
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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """A home with a finished run's results, and these by stage."""
    home = tmp_path_factory.mktemp("full")
    return home, stored_pipeline.write_keyed(home, PRESETS["microworld"])


@pytest.fixture
def made(full: tuple[Path, dict[str, Outcome]], tmp_path: Path) -> dict[str, Outcome]:
    """The same under `tmp_path`, last used 40 days ago."""
    home, outcomes = full
    shutil.copytree(home / "store", tmp_path / "store")
    for path in (tmp_path / "store").glob("*/*"):
        age(path, 40)

    def moved(outcome: Outcome) -> Outcome:
        path = tmp_path / outcome.artifact.path.relative_to(home)
        return replace(outcome, artifact=replace(outcome.artifact, path=path))

    return {name: moved(outcome) for name, outcome in outcomes.items()}


def age(path: Path, days: float) -> None:
    """Let a file, or folder, and all in it be as old."""
    for each in (path, *path.rglob("*")):
        os.utime(each, (NOW - days * DAY, NOW - days * DAY))


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
    age(path, days)
    return path


def test_what_nobody_needs_goes_as_a_whole(tmp_path: Path, made: dict[str, Outcome]) -> None:
    with Store(tmp_path).lock("0123"):
        pass
    planned = cleaning.plan(tmp_path, Needed(), NOW - 30 * DAY)
    assert {each.key for each in planned.goes} == set(map(key, made.values()))
    before = sum(contents.disk_use(tmp_path).values())
    with in_use.alone(tmp_path):
        cleaning.carry_out(tmp_path, planned)
    assert contents.results(tmp_path) == []
    assert [path.name for path in (tmp_path / "store" / "locks").iterdir()] == [in_use.NAME]
    assert list((tmp_path / "work").iterdir()) == []
    after = sum(contents.disk_use(tmp_path).values())
    assert before - after == pytest.approx(planned.freed(), abs=64 << 10)  # folders' own blocks


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


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"problems": {}}'])
def test_work_whose_notes_are_damaged_is_work(tmp_path: Path, said: str) -> None:
    work = half_done(tmp_path, "1" * 32, 0)
    (work / "inputs.json").write_text(said)
    (found,) = contents.work(tmp_path)
    assert found.stage == contents.WORK


def test_nothing_is_removed_while_another_process_uses_the_store(tmp_path: Path) -> None:
    """One that only waits to use it waits until that is over."""
    code = (
        "import sys; from pathlib import Path; from lightreasoner.storage import in_use\n"
        "print('asks', flush=True); in_use.hold(Path(sys.argv[1])); print('has it', flush=True)\n"
        "input()"
    )
    command, env = [sys.executable, "-c", code, str(tmp_path)], os.environ | {"PYTHONPATH": PATHS}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    in_use.hold(tmp_path)
    with in_use.alone(tmp_path), subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
        other.kill()
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() + other.stdout.readline() == "asks\nhas it\n"
        with (
            pytest.raises(ArtifactError, match="uses the store; let it end"),
            in_use.alone(tmp_path),
        ):
            raise AssertionError
        other.kill()
    with in_use.alone(tmp_path):
        pass


def test_files_that_others_share_free_nothing(tmp_path: Path, made: dict[str, Outcome]) -> None:
    entry = made["finetune"].artifact.path.parent
    alone = contents.freed([entry])
    artifacts.place(made["finetune"].artifact, tmp_path / "data" / "adapter")
    files = sum(file.stat().st_blocks for file in artifacts.files_under(entry / "payload"))
    assert contents.freed([entry]) == alone - contents.BLOCK * files
    use = contents.disk_use(tmp_path)
    folders = [tmp_path / "data", tmp_path / "data" / "adapter"]
    assert use["data"] == contents.BLOCK * sum(folder.stat().st_blocks for folder in folders)
    assert use["store/finetune"] >= contents.BLOCK * files


def test_ls_du_and_show(tmp_path: Path, made: dict[str, Outcome]) -> None:
    """For machines they say the same in bytes; a result of which much is not known, too."""
    home = ("--home", str(tmp_path))
    found = json.loads(call("store", "ls", "--json", *home).stdout)
    assert {each["key"] for each in found} == set(map(key, made.values()))
    entry = made["merge"].artifact.path.parent
    (size,) = [each["bytes"] for each in found if each["stage"] == "merge"]
    assert size == sum(file.stat().st_size for file in artifacts.files_under(entry))
    lines = call("store", "ls", "evaluate-base", *home).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["evaluate_base", key(made["evaluate_base"])[:12]]
    ]
    assert max(map(len, lines)) <= 80
    use = json.loads(call("store", "du", "--json", *home).stdout)
    assert use["total"] == sum(size for name, size in use.items() if name != "total")
    assert {f"store/{stage.name}" for stage in GRAPH} <= use.keys()
    shown = call("store", "show", key(made["score"])[:10], *home).stdout
    assert f"from trajectories: generate {key(made['generate'])[:12]}" in shown
    assert "payload/steps.parquet" in shown
    manifest = json.loads(call("store", "show", key(made["score"]), "--json", *home).stdout)
    assert manifest["manifest"] == made["score"].manifest
    (made["score"].artifact.path.parent / "manifest.json").write_text("{}")
    assert "damaged" in call("store", "show", key(made["score"]), *home).stdout


@pytest.mark.parametrize(("given", "said"), [("", "begins 9 results"), ("zz", "no result 'zz'")])
def test_a_key_names_one_result(
    given: str, said: str, tmp_path: Path, made: dict[str, Outcome]
) -> None:
    assert said in call("store", "show", given, "--home", str(tmp_path)).stderr
