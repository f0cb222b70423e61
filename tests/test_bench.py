"""The benchmark: its count of FLOP against torch's own, and the figures that it writes."""

import json
from pathlib import Path

import pytest
import torch
from conftest import write_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from lightreasoner import bench, cli, config, models
from lightreasoner.forward import hidden_states, logits_of
from lightreasoner.presets import PRESETS


@pytest.mark.parametrize("length", [1, 7])
def test_flop_are_torchs_count(tiny_expert: Path, length: int) -> None:
    """torch counts attention over all L x L pairs; the causal ones are L (L + 1) / 2."""
    model = models.load_model(tiny_expert, "cpu", "float32")
    # It does not count the fused kernel of the CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        states = hidden_states(model, torch.zeros(1, length, dtype=torch.long))
        logits_of(model, states[0])
    width = model.config.num_hidden_layers * model.config.hidden_size
    beyond = 4 * width * (length**2 - length * (length + 1) // 2)
    ours = bench.decoder_flop(model, [length]) + bench.head_flop(model, length)
    assert ours + beyond == counter.get_total_flops()


def test_the_figures_are_written(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MATRIX", 64)
    monkeypatch.chdir(tmp_path)
    amateur = write_model(tmp_path / "amateur", seed=2, hidden=16, layers=1)
    Path("params.yaml").write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    given = {
        "models.expert": tiny_expert,
        "models.amateur": amateur,
        "prepare.n_problems": 3,
        "generate.max_new_tokens": 4,
    }
    options = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(cli.application(), ["bench", "sampling", *options, "--naive", "1"])
    assert result.exit_code == 0, result.output
    found = json.loads(Path("benchmarks/results/sampling.json").read_text(encoding="utf-8"))
    assert found["score"]["steps"] == found["generate"]["new_tokens"] <= 12
    assert found["score"]["share_of_matrix_rate"] > 0
    assert found["naive"]["problems"] == 1
    assert found["machine"]["packages"]["torch"] in torch.__version__
    assert "naive scoring" in result.output
