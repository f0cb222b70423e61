"""Training: a restart goes on from the last good checkpoint and ends at the same bytes."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkout import PATHS
from test_finetune import CPU, settings

from lightreasoner.config import Finetune
from lightreasoner.inference import loading
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.tuning import trainer
from lightreasoner.tuning.finetune import with_lora, write
from lightreasoner.tuning.trainer import SEAL, last_good_checkpoint

KILLS = 10
CHANGES = {"updates": 30, "validation_share": 0.3, "validate_every": 3, "batching": "sample"}
PATIENCE = {"learning_rate": 0.5, "stop": "loss", "patience": 2}
PATIENCE = {"learning_rate": 0.5, "stop": "loss", "patience": 2}
DRIFT = {"learning_rate": 0.01, "stop": "drift", "drift_limit": 0.3}
CHILD = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_trainer import Talking, tune
tune(*map(Path, sys.argv[2:6]), watcher=Talking())
"""


class StoppedError(Exception):
    """Stands for whatever ends a process."""


class Until(Silent):
    """A watcher that ends the tuning after an update, and hears the curve."""

    def __init__(self, last: int):
        self.last, self.heard = last, list[tuple[str, int]]()
        self.begun: tuple[int, int, str] | None = None  # what it hears first

    def metric(self, name: str, value: float, step: int) -> None:
        self.heard.append((name, step))

    def progress(self, done: int, total: int, unit: str) -> None:
        self.begun = self.begun or (done, total, unit)
        if done == self.last:
            raise StoppedError


class Talking(Silent):
    """A watcher that says so on stdout after each update."""

    def progress(self, done: int, total: int, unit: str) -> None:
        print(done, flush=True)


def tune(
    expert: Path, samples: Path, out: Path, scratch: Path, watcher: Silent, **changes: object
) -> str:
    """Tune into a new directory `out` and return its digest."""
    config: Finetune = settings(**{**CHANGES, **changes})
    out.mkdir(parents=True)
    paths = {"expert": expert, "samples": samples, "problems": samples.with_name("problems")}
    inputs = {name: artifacts.of(path) for name, path in paths.items()}
    write(inputs, config, Workspace(out, scratch, CPU), watcher)
    return artifacts.digest(out)


@pytest.mark.parametrize("last", [1, 10, 30])
def test_a_resumed_tuning_ends_at_the_same_bytes(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, last: int
) -> None:
    """Adapter, curves and the names of what was held out; checkpoints are at 3, 6, 9, ..."""
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent())
    scratch = tmp_path / "scratch"
    cut, again = Until(last), Until(-1)
    with pytest.raises(StoppedError):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, cut)
    assert tune(tiny_expert, samples_dir, tmp_path / "again", scratch, again) == whole
    assert cut.begun == (0, 30, "updates")
    assert again.begun == ((last - 1) // 3 * 3, 30, "updates")
    losses = [step for name, step in again.heard if name == "loss"]
    assert losses == list(range(1, 31))
    assert ("validation_entropy", 0) in again.heard


@pytest.mark.parametrize("rule", [PATIENCE, DRIFT])
def test_a_resumed_tuning_stops_where_it_would_have(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, rule: dict[str, object]
) -> None:
    """By patience two readings after the lowest loss: it is cut between those two, and once after
    the stop, when nothing is left to train."""
    changes = {**rule, "updates": 60, "validate_every": 2}
    out, scratch = tmp_path / "whole", tmp_path / "scratch"
    whole = tune(tiny_expert, samples_dir, out, tmp_path / "w", Silent(), **changes)
    stop = int(pd.read_csv(out / "curve.csv")["update"].max())
    assert 4 < stop < 60
    with pytest.raises(StoppedError):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, Until(stop - 1), **changes)
    assert whole == tune(tiny_expert, samples_dir, tmp_path / "again", scratch, Silent(), **changes)
    after = Until(-1)
    shutil.move(scratch, tmp_path / "moved")
    scratch = tmp_path / "moved"
    assert whole == tune(
        tiny_expert, samples_dir, tmp_path / "once more", scratch, after, **changes
    )
    assert max(step for _, step in after.heard) == stop


def test_a_damaged_best_checkpoint_is_not_gone_on_from(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    changes = {
        "learning_rate": 0.5,
        "stop": "loss",
        "patience": 2,
        "updates": 60,
        "validate_every": 2,
    }
    whole = tune(
        tiny_expert, samples_dir, tmp_path / "w", tmp_path / "scratch", Silent(), **changes
    )
    newest = last_good_checkpoint(tmp_path / "scratch")
    assert newest is not None
    best = json.loads((newest / "trainer_state.json").read_text())["best_global_step"]
    assert newest.name != f"checkpoint-{best}"
    cut_short(tmp_path / "scratch" / f"checkpoint-{best}" / "adapter_model.safetensors")
    assert last_good_checkpoint(tmp_path / "scratch") is None
    again = tune(
        tiny_expert, samples_dir, tmp_path / "a", tmp_path / "scratch", Silent(), **changes
    )
    assert again == whole


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", SEAL])
def test_a_damaged_checkpoint_is_left_out_by_name(
    tiny_expert: Path,
    samples_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent())
    scratch = tmp_path / "scratch"
    with pytest.raises(StoppedError):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, Until(8))
    cut_short(scratch / "checkpoint-6" / name)
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        assert last_good_checkpoint(scratch) == scratch / "checkpoint-3"
    assert "checkpoint-6 is damaged or unfinished; skipping it" in caplog.text
    assert tune(tiny_expert, samples_dir, tmp_path / "again", scratch, Silent()) == whole


def test_checkpoints_from_the_future_are_older_by_number(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """A clock was set back, or a home moved: folders' times say nothing."""
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent())
    scratch, later = tmp_path / "scratch", time.time() + 3600
    with pytest.raises(StoppedError):
        tune(tiny_expert, samples_dir, tmp_path / "cut", scratch, Until(8))
    for path in scratch.glob("checkpoint-*"):
        os.utime(path, (later, later))
    assert tune(tiny_expert, samples_dir, tmp_path / "again", scratch, Silent()) == whole
    assert {path.name for path in scratch.glob("checkpoint-*")} == {
        "checkpoint-27",
        "checkpoint-30",
    }


@pytest.mark.timeout(30)
def test_what_is_no_checkpoint_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-old").mkdir()
    (tmp_path / "checkpoint-4").touch()
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / SEAL).write_text("[" * 100_000)
    (tmp_path / "checkpoint-6").mkdir()
    os.mkfifo(tmp_path / "checkpoint-6" / SEAL)
    (tmp_path / "checkpoint-7").symlink_to("checkpoint-7")
    assert last_good_checkpoint(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-old"]


@pytest.mark.nightly
def test_killed_at_random_moments_it_ends_at_the_same_bytes(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """SIGKILL at ten random moments, often while a checkpoint is written. A try first says
    where it goes on, then the updates that it found, so a kill is 1 to 8 updates and up to 50 ms
    after these."""
    whole = tune(tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", Silent())
    dice, scratch = random.Random(5), tmp_path / "scratch"
    killed = 0
    while True:
        out = tmp_path / f"try{killed}"
        arguments = [PATHS, tiny_expert, samples_dir, out, scratch]
        command = [sys.executable, "-c", CHILD, *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if killed < KILLS:
                found = last_good_checkpoint(scratch)
                known = 0 if found is None else int(found.name[11:])
                for _ in range(1 + min(29, known + dice.randint(1, 8))):
                    child.stdout.readline()
                time.sleep(dice.random() * 0.05)
                child.send_signal(signal.SIGKILL)
                killed += 1
            else:
                assert child.wait(120) == 0
                break
    assert artifacts.digest(out) == whole


class Asking(Silent):
    """A watcher that asks, after each update, how torch computes."""

    def __init__(self) -> None:
        self.heard = set[tuple[bool, bool, str]]()

    def progress(self, done: int, total: int, unit: str) -> None:
        self.heard.add(
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
                torch.get_float32_matmul_precision(),
            )
        )


def test_sums_have_one_order_and_nothing_is_cast(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """deviations.md: the authors train under autocast to bfloat16 and allow TF32."""
    asking = Asking()
    tune(tiny_expert, samples_dir, tmp_path / "out", tmp_path / "s", asking, updates=2)
    assert asking.heard == {(True, False, "highest")}
    assert not torch.are_deterministic_algorithms_enabled()
    arguments = trainer._arguments(2, True, settings(), CPU, tmp_path)
    assert (arguments.bf16, arguments.fp16, arguments.tf32) == (False, False, None)


def test_an_adapter_of_a_bfloat16_model_is_float32(tiny_expert: Path) -> None:
    model = with_lora(loading.load_model(tiny_expert, "cpu", "bfloat16"), settings())
    dtypes = {each.requires_grad: each.dtype for each in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
