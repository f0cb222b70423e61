"""The store: computed once, taken after, made again when damaged, whole or not at all."""

import contextlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import standin_vllm

from lightreasoner import config, presets
from lightreasoner.config import Params, Prepare
from lightreasoner.errors import ArtifactError, DiskFullError
from lightreasoner.pipeline.graph import STAGES, Stage, walk
from lightreasoner.pipeline.store import Job, Outcome, Store
from lightreasoner.progress import Silent, Watcher
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace


def params(**prepare: object) -> Params:
    tree = presets.PRESETS["microworld"].model_dump(mode="json")
    tree["prepare"] |= prepare
    return config.parse(tree, "test")


def counting(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    """Writes the seed; leaves a mark per call beside the source."""
    with (inputs["problem_source"].path / "calls").open("a") as file:
        file.write("x")
    watcher.metric("loss", 0.5, 1)
    time.sleep(config.seed / 1000)
    quick(inputs, config, work, watcher)


def quick(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    """Writes the seed."""
    (work.out / "seed").write_text(str(config.seed))


def half_done(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    """Goes on from 0, then from 128 problems, as shards and checkpoints do."""
    file = work.scratch / "done"
    watcher.progress(1, 9, "seconds until a server answers")
    watcher.progress(128 if file.exists() else 0, 300, "trajectories")
    if not file.exists():
        file.touch()
        raise KeyboardInterrupt
    watcher.progress(256, 300, "trajectories")
    quick(inputs, config, work, watcher)


STAGE = Stage("prepare", "", ("problem_source",), "problems", "prepare", __name__, "counting")


def job(source: Path, stage: Stage = STAGE, **prepare: object) -> Job:
    return Job.of(stage, {"problem_source": Artifact(source, "same")}, params(**prepare))


def run(home: Path, source: Path, **prepare: object) -> bool:
    return Store(home).run(job(source, **prepare), Silent()).cached


def calls(source: Path) -> int:
    return len((source / "calls").read_text())


def test_computed_once_then_taken(tmp_path: Path) -> None:
    assert [run(tmp_path, tmp_path) for _ in range(3)] == [False, True, True]
    assert calls(tmp_path) == 1


def test_a_stage_says_where_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    it = job(tmp_path, replace(STAGE, function="half_done"))
    caplog.set_level(logging.INFO, "lightreasoner")
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).run(it, Silent())
    assert caplog.messages == []
    Store(tmp_path).run(it, Silent())
    assert caplog.messages == ["prepare: goes on at 128 of 300 trajectories"]


def test_why_it_is_computed_is_said_to_who_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`lightreasoner -v`: in what the job differs from the stage's newest result."""
    caplog.set_level(logging.DEBUG, "lightreasoner")
    for seed in (1, 2, 1):
        run(tmp_path, tmp_path, seed=seed)
    again = Job.of(STAGE, {"problem_source": Artifact(tmp_path, "other")}, params(seed=3))
    Store(tmp_path).run(again, Silent())
    first = Store(tmp_path).entry(STAGE, job(tmp_path, seed=1).key)
    assert caplog.messages == [
        "prepare: computed; the store has no result of this stage",
        "prepare: computed; unlike the newest result: config.seed",
        f"prepare: taken from {first}",
        "prepare: computed; unlike the newest result: config.seed, inputs.problem_source",
    ]


def test_another_setting_is_another_result(tmp_path: Path) -> None:
    assert [run(tmp_path, tmp_path, seed=s) for s in (1, 2, 1)] == [False, False, True]


def test_batch_size_is_not_part_of_the_key(tmp_path: Path) -> None:
    tree = params().model_dump(mode="json")
    tree["compute"]["batch_size"] = 3
    run(tmp_path, tmp_path)
    inputs, other = {"problem_source": Artifact(tmp_path, "same")}, config.parse(tree, "test")
    assert Store(tmp_path).run(Job.of(STAGE, inputs, other), Silent()).cached


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest"])
def test_a_damaged_result_is_made_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run(tmp_path, tmp_path)
    payload = next((tmp_path / "store" / "prepare").glob("*/payload/seed"))
    if damage == "changed":
        payload.chmod(0o644)
        payload.write_text("43")
    elif damage == "gone":
        payload.unlink()
    else:
        (payload.parents[1] / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert not run(tmp_path, tmp_path)
    assert "is damaged; making it again" in caplog.text
    assert run(tmp_path, tmp_path)


def test_the_manifest_says_where_it_comes_from(tmp_path: Path) -> None:
    outcome = Store(tmp_path).run(job(tmp_path), Silent())
    entry = outcome.artifact.path.parent
    manifest = json.loads((entry / "manifest.json").read_text())
    assert manifest == outcome.manifest
    assert manifest["inputs"] == {"problem_source": "same"}
    assert manifest["config"]["n_problems"] == 300
    assert manifest["digest"] == artifacts.digest(entry / "payload")
    assert set(manifest["sha256"]) == {"seed"}
    assert {"commit", "packages", "device", "dtype", "seconds", "peak_memory_mib"} <= set(manifest)


def test_curves_are_told_again(tmp_path: Path) -> None:
    class Heard(Silent):
        curve: list[tuple[str, float, int]]

        def metric(self, name: str, value: float, step: int) -> None:
            self.curve.append((name, value, step))

    for _ in range(2):
        heard = Heard()
        heard.curve = []
        Store(tmp_path).run(job(tmp_path), heard)
        assert heard.curve == [("loss", 0.5, 1)]


def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=run, args=(tmp_path, tmp_path), kwargs={"seed": 500})
        for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
        assert each.exitcode == 0
    assert calls(tmp_path) == 1


def test_ten_at_once_compute_each_stage_once(tmp_path: Path) -> None:
    """Ten runs of a chain of two, in threads that start together; each stage takes 50 ms."""
    second = replace(STAGE, name="generate", inputs=("problem_source", "problems"))
    start, store = threading.Barrier(10), Store(tmp_path / "home")

    def whole(_: int) -> list[Outcome]:
        outcomes: list[Outcome] = []

        def make(stage: Stage, inputs: Inputs) -> Artifact:
            outcomes.append(store.run(Job.of(stage, inputs, params(seed=50)), Silent()))
            return outcomes[-1].artifact

        start.wait()
        walk((STAGE, second), {"problem_source": Artifact(tmp_path, "same")}, make)
        return outcomes

    with ThreadPoolExecutor(10) as pool:
        runs = list(pool.map(whole, range(10)))
    assert calls(tmp_path) == 2
    for outcomes in zip(*runs, strict=True):
        assert len({outcome.artifact for outcome in outcomes}) == 1
        assert [outcome.cached for outcome in outcomes].count(False) == 1


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=run, args=(tmp_path, tmp_path), kwargs={"seed": 60_000})
    holder.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "calls").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert not list((tmp_path / "store" / "prepare").glob("*"))
    again = job(tmp_path, replace(STAGE, function="quick"), seed=60_000)
    assert not Store(tmp_path).run(again, Silent()).cached


def test_stored_files_are_read_only(tmp_path: Path) -> None:
    run(tmp_path, tmp_path)
    payload = next((tmp_path / "store" / "prepare").glob("*/payload/seed"))
    assert payload.stat().st_mode & 0o222 == 0


def failing(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    (work.out / "half").write_text("half")
    raise OSError(28, "No space left on device")


def test_a_failed_stage_leaves_no_result(tmp_path: Path) -> None:
    failed = job(tmp_path, replace(STAGE, function="failing"))
    with pytest.raises(DiskFullError, match=r"no space left on the disk"):
        Store(tmp_path).run(failed, Silent())
    assert not list((tmp_path / "store" / "prepare").glob("*"))


FULL_DISK = """
import sys
from pathlib import Path
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.pipeline.store import Job, Store
from lightreasoner import config
tree = PRESETS["microworld"].model_dump(mode="json")
tree["prepare"] |= {"source": sys.argv[2], "n_problems": None}
inputs = {"problem_source": Artifact(Path(sys.argv[2]), "x")}
try:
    job = Job.of(STAGES["prepare"], inputs, config.parse(tree, "x"))
    Store(Path(sys.argv[1])).run(job, Silent())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_for_real(tmp_path: Path) -> None:
    """A tmpfs of 64 KiB in a mount namespace of its own; skipped where that is not allowed."""
    source = tmp_path / "big.jsonl"
    row = json.dumps({"question": "q" * 1000, "answer": "1"}) + "\n"
    source.write_text(row * 200)
    (tmp_path / "full").mkdir()
    script = (
        f"mount -t tmpfs -o size=64k tmpfs '{tmp_path}/full' && "
        f"'{sys.executable}' -c \"$0\" '{tmp_path}/full' '{source}'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    assert done.stdout.startswith("DiskFullError"), done.stderr
    assert "no space left on the disk; free some and run again" in done.stdout


def test_a_store_on_another_disk_is_refused_before_the_stage_runs(tmp_path: Path) -> None:
    """A folder in memory stands for the other disk; skipped where there is none."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        home = tmp_path / "home"
        home.mkdir()
        (home / "store").symlink_to(elsewhere)
        with pytest.raises(ArtifactError, match="are on different disks; keep all of"):
            run(home, tmp_path)
    assert not (tmp_path / "calls").exists()


def test_damaged_side_files_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, tmp_path)
    (entry,) = (tmp_path / "store" / "prepare").glob("*")
    for name, content in [
        ("manifest.json", b"\xff"),
        ("manifest.json", b"{}"),
        ("manifest.json", b"null"),
        ("metrics.jsonl", b'{"name": "loss", "va'),
        ("metrics.jsonl", None),
    ]:
        (entry / name).unlink()
        if content is not None:
            (entry / name).write_bytes(content)
        caplog.clear()
        assert not run(tmp_path, tmp_path), (name, content)
        assert "is damaged; making it again" in caplog.messages[0]
    assert run(tmp_path, tmp_path)


@pytest.mark.parametrize("file", ["manifest.json", "metrics.jsonl"])
def test_any_flipped_bit_beside_the_payload_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    """Each digit and letter is changed to another one in turn: the file stays readable."""
    run(tmp_path, tmp_path)
    (entry,) = (tmp_path / "store" / "prepare").glob("*")
    whole, store, wanted = (entry / file).read_bytes(), Store(tmp_path), job(tmp_path)
    assert store.find(wanted) is not None
    (entry / file).chmod(0o644)
    offsets = [at for at, byte in enumerate(whole) if bytes([byte]).isalnum()]
    assert len(offsets) > 10
    for at in offsets:
        (entry / file).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert store.find(wanted) is None, whole[max(0, at - 20) : at + 20]
    (entry / file).write_bytes(whole)
    assert store.find(wanted) is not None


KINDS = ["file", "pipe", "link to nowhere", "link to a folder", "folder"]


def put(kind: str, path: Path) -> None:
    """Something else in the place of what the store keeps there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "file":
        path.write_text("in the way")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "full").mkdir(parents=True)
    else:
        other = path.parent / "other"
        other.mkdir(exist_ok=True)
        path.symlink_to(other if kind.endswith("folder") else "nowhere")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "place",
    ["", "payload", "payload/seed", "payload/more", "manifest.json", "metrics.jsonl"],
)
def test_what_is_no_result_in_a_results_place_is_made_again(
    tmp_path: Path, place: str, kind: str
) -> None:
    """Nothing waits for a pipe, and what a link leads to stays."""
    home = tmp_path / "home"
    run(home, tmp_path)
    (entry,) = (home / "store" / "prepare").glob("*")
    put(kind, entry / place)
    is_harmless = place == "payload/more" and kind in ("folder", "link to a folder")
    assert run(home, tmp_path) == is_harmless
    assert run(home, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "place", ["store/prepare", "store/locks", "store/locks/KEY", "store/locks/in-use", "work/KEY",
              "work/KEY/entry", "work/KEY/shards", "work/KEY/inputs.json"]
)  # fmt: skip
def test_what_lies_in_the_way_of_work_is_cleared(tmp_path: Path, place: str, kind: str) -> None:
    home = tmp_path / "home"
    path = home / place.replace("KEY", job(tmp_path).key)
    path.parent.mkdir(parents=True)
    put(kind, path)
    assert not run(home, tmp_path)
    assert run(home, tmp_path)


@pytest.mark.parametrize("place", ["store", "work"])
def test_what_lies_directly_under_home_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "home").mkdir()
    put("file", tmp_path / "home" / place)
    with pytest.raises(ArtifactError, match=f"home/{place}: is no folder, but .*; move it"):
        run(tmp_path / "home", tmp_path)


def test_a_manifest_without_end_is_not_read(tmp_path: Path) -> None:
    run(tmp_path, tmp_path)
    (entry,) = (tmp_path / "store" / "prepare").glob("*")
    for text in ("[" * 100_000, '{"a":' * 5_000, "9" * 5_000, "[]", "Infinity"):
        (entry / "manifest.json").unlink()
        (entry / "manifest.json").write_text(text)
        assert Store(tmp_path).find(job(tmp_path)) is None


def several(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    for step in range(4):
        watcher.metric("loss", 1.0 - step / 4, step)
    (work.out / "made").write_text("x")


def test_half_of_the_curves_are_not_the_curves(tmp_path: Path) -> None:
    wanted = job(tmp_path, replace(STAGE, function="several"))
    for cached in (False, True):
        outcome = Store(tmp_path).run(wanted, Silent())
        assert outcome.cached == cached
    curves = outcome.artifact.path.parent / "metrics.jsonl"
    lines = curves.read_text().splitlines(keepends=True)
    curves.chmod(0o644)
    curves.write_text("".join(lines[:2]))
    assert not Store(tmp_path).run(wanted, Silent()).cached
    assert curves.read_text().splitlines(keepends=True) == lines


def edited(inputs: Inputs, config: Prepare, work: Workspace, watcher: Watcher) -> None:
    """Changes its input while it runs; the size stays."""
    inputs["problem_source"].path.write_text("new")
    (work.out / "read").write_text("new")


def test_an_input_that_changes_while_it_is_read_stores_nothing(tmp_path: Path) -> None:
    source = tmp_path / "problems.jsonl"
    source.write_text("old")
    inputs = {"problem_source": artifacts.of(source)}
    wanted = Job.of(replace(STAGE, function="edited"), inputs, params())
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"problem_source .*problems.jsonl changed"):
            Store(tmp_path).run(wanted, Silent())
    assert not list((tmp_path / "store" / "prepare").glob("*"))


def test_code_that_changes_while_the_process_runs_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightreasoner.pipeline.store.code_digest", lambda module: "another")
    with pytest.raises(ArtifactError, match=r"the code of test_store changed on disk"):
        run(tmp_path, tmp_path)
    assert not list((tmp_path / "store").glob("prepare/*"))


KILLED = """
import sys
from pathlib import Path
from lightreasoner import config
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.pipeline.graph import GRAPH, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
params = config.parse(PRESETS["microworld"].model_dump(mode="json"), "test")
def make(stage, inputs):
    print(stage.name, flush=True)
    return Store(Path(sys.argv[1])).run(Job.of(stage, inputs, params), Silent()).artifact
made = walk(GRAPH[:3], external_inputs(params), make)
print(*(artifact.digest for artifact in made.values()))
"""


def sample(home: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def digests(job: "subprocess.Popen[str]") -> str:
    """What a run that was left alone ends with."""
    with job:
        return job.communicate()[0].splitlines()[-1]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_killed_at_twenty_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at random moments of generate and score; each finished shard is kept."""
    expected = digests(sample(tmp_path / "whole"))
    moments, kills = random.Random(0), 0
    shards = set[Path]()
    while kills < 20:
        with sample(tmp_path / "killed") as job:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(moments.uniform(3, 9))
            if job.returncode is None:
                kills += 1
                job.kill()
            assert job.stdout is not None
            said = job.stdout.read().splitlines()
        found = set((tmp_path / "killed" / "work").glob("*/shards/*.parquet"))
        lost = {shard for shard in shards - found if shard.parent.parent.exists()}
        assert not lost
        shards = found
        if job.returncode == 0:
            assert said[-1] == expected
            shutil.rmtree(tmp_path / "killed")
            shards = set()
    assert digests(sample(tmp_path / "killed")) == expected


def test_texts_have_their_engine_in_their_key_and_nothing_else_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Engine, version and dtype; of endpoints what is declared, not where they are."""
    monkeypatch.setenv("LIGHTREASONER_VLLM_PYTHON", str(standin_vllm.python(tmp_path)))
    named = {"engine": "vllm", "endpoints": ["http://h/v1"], "endpoint_dtype": "float32"}
    named["endpoint_version"] = standin_vllm.VERSION
    computes: list[dict[str, object]] = [
        {}, {"engine": "vllm"}, named, named | {"endpoint_version": "1"},
        named | {"endpoint_dtype": "float16"},
    ]  # fmt: skip
    inputs = dict.fromkeys(
        ("expert", "model", "amateur", "problems", "benchmark_source", "trajectories"),
        Artifact(tmp_path, "same"),
    )

    def key(stage: str, compute: dict[str, object]) -> str:
        tree = presets.PRESETS["microworld"].model_dump(mode="json")
        tree["compute"] |= compute
        return Job.of(STAGES[stage], inputs, config.parse(tree, "test")).key

    for stage in ("generate", "evaluate", "evaluate_base"):
        assert len({key(stage, compute) for compute in computes}) == len(computes)
        elsewhere = named | {"endpoints": ["http://i/v1", "http://j/v1"], "endpoint_key_file": "k"}
        assert key(stage, elsewhere) == key(stage, named)
        more = {"engine": "vllm", "gpus": 4, "gpus_per_model": 2}
        assert key(stage, more) == key(stage, {"engine": "vllm"})
    assert len({key("score", compute) for compute in computes}) == 1
    tree = presets.PRESETS["microworld"].model_dump(mode="json")
    tree["compute"] |= {"engine": "vllm"}
    made = Job.of(STAGES["generate"], inputs, config.parse(tree, "test")).manifest_head()
    assert made["engine"] == f"vLLM {standin_vllm.VERSION}, float32"
