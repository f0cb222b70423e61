"""Too little memory: one line with the remedy, in every stage and every bench that loads a model.

There is no GPU here. CUDA's error is the class that CUDA raises; a CPU runs out for real.
"""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import bench, sampling, training
from lightreasoner import config, memory
from lightreasoner.config import Compute, Params
from lightreasoner.errors import NoMemoryError
from lightreasoner.pipeline import store
from lightreasoner.pipeline.graph import STAGES, resolved
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.storage.artifacts import Workspace

CUDA_SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"


def no_room_on_cuda(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError(CUDA_SAYS)


def no_room_on_cpu(*_: object) -> None:
    torch.empty(1 << 55)


@pytest.mark.parametrize("write", [no_room_on_cuda, no_room_on_cpu])
@pytest.mark.parametrize(
    ("stage", "remedy"),
    [
        ("generate", r"set compute.batch_size \(now None\) lower"),
        ("evaluate_base", r"set compute.batch_size \(now None\) lower"),
        ("evaluate", r"set compute.batch_size \(now None\) lower"),
        ("finetune", r"lower finetune.samples_per_forward \(now 4; .*gradient_checkpointing=true"),
        ("score", "end other programs on cpu, or use one with more memory"),
        ("merge", "end other programs on cpu"),
    ],
)
def test_a_stage_says_what_helps(
    write: object,
    stage: str,
    remedy: str,
    tiny_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = STAGES[stage]
    monkeypatch.setattr(f"{short.module}.write", write)
    work = Workspace(tmp_path, tmp_path, resolved(tiny_params.compute))
    said = rf"^{stage}: no memory is left on cpu \(.*allocate.*\); {remedy}"
    with pytest.raises(NoMemoryError, match=said) as raised:
        short.run({}, short.settings(tiny_params), work, Silent())
    assert "\n" not in str(raised.value)


def test_another_error_stays_what_it_is() -> None:
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2"),
        memory.errors_with_remedy("x", "cpu", "y"),
    ):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("command", "module", "remedy"),
    [
        ("sampling", sampling, "lower compute.batch_size"),
        ("training", training, "lower finetune.samples_per_forward"),
    ],
)
def test_a_bench_says_what_helps(
    command: str, module: object, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    monkeypatch.setattr(module, command, no_room_on_cuda)
    result = CliRunner().invoke(bench.application(), [command])
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: bench: no memory is left on cpu (CUDA out of memory. Tried")
    assert remedy in line


def test_peak_memory_is_the_process_without_a_gpu_and_the_gpus_with_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.reset_peak_memory()
    before = store.peak_memory_mib()
    ballast = torch.ones(16 << 20)
    assert before + 50 < store.peak_memory_mib() < before + 500
    del ballast
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 30)
    assert store.peak_memory_mib() == 3072.0


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_for_a_gpu_that_has_it(
    native: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 emulates it, and torch says so only if it is asked without emulation."""

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolved.__wrapped__(Compute(device="cuda")).dtype == dtype
