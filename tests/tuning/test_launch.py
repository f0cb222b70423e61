"""Fine-tuning on several processes: as on one; all end together, whatever ends one of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from checkout import PATHS
from peft import PeftModel
from safetensors.torch import load_file
from test_finetune import CPU, run_tuning, settings
from test_trainer import PATIENCE, StoppedError, Until, tune

from lightreasoner import processes
from lightreasoner.config import Params
from lightreasoner.errors import ArtifactError, ModelError
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import external_inputs
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.tuning import finetune, launch
from lightreasoner.tuning.finetune import plan_updates
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import read_rows
from lightreasoner.tuning.trainer import last_good_checkpoint

TWO = {"processes": 2}
TOLERANCE = 1e-6
"""Of an adapter's weights, which an update moves by up to 1e-2; measured: 1.5e-8."""

needs_two_cores = pytest.mark.skipif(processes.usable_cores() < 2, reason="a core for each process")


def ranks() -> list[psutil.Process]:
    """Not what else the session of tests has started, such as Prefect's server."""
    with_lines = psutil.process_iter(["ppid", "cmdline"])
    ours = [each for each in with_lines if each.info["ppid"] == os.getpid()]
    return [each for each in ours if launch.__name__ in (each.info["cmdline"] or ())]


class Looking(Until):
    """Sees, after an update, how many processes this one has, and what they listen on."""

    def __init__(self, last: int = -1) -> None:
        super().__init__(last)
        self.addresses = set[str]()
        self.most = 0

    def progress(self, done: int, total: int, unit: str) -> None:
        found = ranks()
        self.most = max(self.most, len(found))
        for each in found:
            open_ = each.net_connections("inet")
            self.addresses |= {one.laddr.ip for one in open_ if one.status == psutil.CONN_LISTEN}
        super().progress(done, total, unit)


@pytest.fixture
def no_rank_is_left() -> Iterator[None]:
    yield
    assert not ranks()


def adapter(out: Path) -> torch.Tensor:
    weights = load_file(out / "adapter_model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


@pytest.mark.slow
@needs_two_cores
def test_two_processes_tune_as_one(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, no_rank_is_left: None
) -> None:
    """Without dropout, whose draws differ; on loopback alone, and nothing is left in scratch."""
    changes = {"lora_dropout": 0.0, "updates": 6, "samples_per_update": 4}
    changes |= {"evaluate_every": 4, "evaluate_max_new_tokens": 4}
    one, two = tmp_path / "one", tmp_path / "two"
    tune(tiny_expert, samples_dir, one, tmp_path / "s1", Silent(), **changes)
    looking = Looking()
    tune(tiny_expert, samples_dir, two, tmp_path / "s2", looking, **changes, **TWO)
    assert looking.most == 2
    assert looking.addresses == {"127.0.0.1"}
    print(f"largest difference: {(adapter(two) - adapter(one)).abs().max():.2g}")
    torch.testing.assert_close(adapter(two), adapter(one), rtol=0, atol=TOLERANCE)
    for file in ("curve.csv", "validation.csv", "accuracy.csv"):
        pd.testing.assert_frame_equal(
            pd.read_csv(two / file), pd.read_csv(one / file), rtol=1e-4, check_exact=False
        )
    names = {path.name for path in one.iterdir()}
    assert {path.name for path in two.iterdir()} == names
    assert not (tmp_path / "s2" / "meeting").exists()


def test_more_processes_than_cores_are_refused_before_anything_loads(tmp_path: Path) -> None:
    nothing = artifacts.Artifact(tmp_path / "nothing", "")
    inputs = dict.fromkeys(("expert", "samples", "problems"), nothing)
    work = artifacts.Workspace(tmp_path, tmp_path, CPU)
    n = processes.usable_cores()
    said = rf"finetune.processes 999: there are {n} cores, and each process takes one; lower it"
    with pytest.raises(ModelError, match=said):
        finetune.write(inputs, settings(processes=999), work, Silent())


def test_a_whole_run_is_refused_at_its_start(tiny_params: Params) -> None:
    changed = tiny_params.finetune.model_copy(update={"processes": 999})
    params = tiny_params.model_copy(update={"finetune": changed})
    with pytest.raises(ModelError, match=r"finetune.processes 999"):
        external_inputs(params)
    external_inputs(params, ("expert", "amateur", "benchmark_source"))


def test_a_start_by_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModelError, match="WORLD_SIZE is 2: finetune was started by torchrun"):
        launch.check(1, "cpu")


def test_no_rank_is_without_a_forward_pass(samples_dir: Path) -> None:
    """Where one pass could take all samples of an update."""
    rows = read_rows(samples_dir, "sample")
    one = settings(batching="sample", updates=1, samples_per_forward=99)
    two = one.model_copy(update={"processes": 2})
    assert [len(update) for config in (one, two) for update in plan_updates(rows, config)] == [1, 2]


KILLED = {"ended": -9}
LOST = {"error": {"kind": "RuntimeError", "text": "RuntimeError: peer", "traceback": "t"}}
MISTAKE = {"error": {"kind": "ArtifactError", "text": "damaged", "traceback": "t"}}


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ([LOST, {"ended": 1}, KILLED], ModelError, r"died \(SIGKILL\); the last checkpoint"),
        ([LOST, {"ended": 1}, MISTAKE, {"ended": 1}], ArtifactError, "^damaged"),
        ([LOST, {"ended": 1}], RuntimeError, "^RuntimeError: peer"),
        ([{"ended": 3}], ModelError, r"died \(status 3\)"),
    ],
)
def test_the_cause_is_told_not_what_followed_from_it(
    said: list[dict[str, Any]], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        raise launch._cause(said)


@pytest.mark.nightly
@needs_two_cores
def test_a_resumed_tuning_in_two_processes_ends_at_the_same_bytes(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, no_rank_is_left: None
) -> None:
    """With dropout: its draws belong to update and pass, not to what a process drew before."""
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent(), **TWO)
    scratch = tmp_path / "scratch"
    with pytest.raises(StoppedError):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, Until(10), **TWO)
    assert not ranks()
    again = Until(-1)
    assert tune(tiny_expert, samples_dir, tmp_path / "again", scratch, again, **TWO) == whole
    losses = [step for name, step in again.heard if name == "loss"]
    assert losses == list(range(1, 31))


@pytest.mark.nightly
@needs_two_cores
def test_patience_ends_all_ranks_and_the_best_adapter_is_kept(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, no_rank_is_left: None
) -> None:
    """The adapter of the reading that is named, not the last one. (At this rate, chosen to diverge,
    the last bits grow: weights of two processes and of one differ by 0.09, their readings hardly.)
    """
    changes = {**PATIENCE, "updates": 60, "validate_every": 2, "lora_dropout": 0.0}
    one, two = tmp_path / "one", tmp_path / "two"
    tune(tiny_expert, samples_dir, one, tmp_path / "s1", Silent(), **changes)
    tune(tiny_expert, samples_dir, two, tmp_path / "s2", Silent(), **changes, **TWO)
    assert (two / "validation.json").read_bytes() == (one / "validation.json").read_bytes()
    written = json.loads((two / "validation.json").read_text())
    losses = pd.read_csv(two / "validation.csv").set_index("update")["loss"]
    assert written["kept_update"] < losses.index[-1] < 60
    model = PeftModel.from_pretrained(loading.load_model(tiny_expert, "cpu", "float32"), str(two))
    rows = [
        row
        for row in read_rows(samples_dir, "trajectory")
        if row.problem_id in written["problem_ids"]
    ]
    batch = collate(rows, torch.device("cpu"))
    with torch.no_grad():
        loss = summed_divergence(model.eval().get_base_model(), batch) / len(batch.positions)
    assert loss.item() == pytest.approx(losses[written["kept_update"]], rel=1e-4)


@pytest.mark.nightly
def test_as_many_processes_as_you_like_draw_the_same_dropout(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """Three share the two passes of each update: one has none, and adds zeros."""
    found = []
    for n in (2, 3):
        plan = settings(updates=3, lora_dropout=0.5, processes=2, samples_per_forward=3)
        config = plan.model_copy(update={"processes": n})
        out = tmp_path / str(n)
        out.mkdir()
        paths = {
            "expert": tiny_expert, "samples": samples_dir,
            "problems": samples_dir.with_name("problems"),
        }  # fmt: skip
        inputs = {name: artifacts.of(path) for name, path in paths.items()}
        launch.run(inputs, config, artifacts.Workspace(out, tmp_path / f"s{n}", CPU), Silent())
        found.append(adapter(out))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=TOLERANCE)


class Killing(Silent):
    """Kills the last of the processes after an update."""

    def progress(self, done: int, total: int, unit: str) -> None:
        if done == 5:
            ranks()[-1].kill()


@pytest.mark.nightly
@needs_two_cores
def test_a_killed_process_ends_all_and_the_next_try_goes_on(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, no_rank_is_left: None
) -> None:
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent(), **TWO)
    scratch = tmp_path / "scratch"
    with pytest.raises(ModelError, match=r"a process of finetune.processes died \(SIGKILL\)"):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, Killing(), **TWO)
    assert not list((tmp_path / "cut").iterdir())
    assert last_good_checkpoint(scratch) is not None
    assert tune(tiny_expert, samples_dir, tmp_path / "again", scratch, Silent(), **TWO) == whole


@pytest.mark.nightly
@needs_two_cores
def test_a_mistake_there_is_an_error_here(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, no_rank_is_left: None
) -> None:
    config = settings(processes=2).model_copy(update={"learning_rate": 1e39})
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"^update 2: the loss is nan; lower finetune.learning"):
        run_tuning(tiny_expert, samples_dir, tmp_path / "out", config)


CHILD = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this was started with &
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_trainer import Talking, tune
tune(*map(Path, sys.argv[2:6]), watcher=Talking(), processes=2, updates=3000)
"""


@pytest.mark.nightly
@needs_two_cores
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_processes_end_with_who_started_them(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, how: signal.Signals
) -> None:
    arguments = [PATHS, tiny_expert, samples_dir, tmp_path / "out", tmp_path / "scratch"]
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        started = psutil.Process(child.pid).children()
        child.send_signal(how)
    assert len(started) == 2
    _, left = psutil.wait_procs(started, 20)
    assert not left, how
