"""The benchmark: its count of FLOP against torch's own, and the figures that it writes."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import write_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from benchmarks import bench, gpu, grading, sampling, together, training
from lightreasoner import config
from lightreasoner.config import Finetune
from lightreasoner.inference import loading
from lightreasoner.inference.forward import hidden_states, logits_of
from lightreasoner.pipeline.graph import GRAPH
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.tuning.finetune import plan_updates, with_lora
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import read_rows, split_row


@pytest.mark.parametrize("length", [1, 7])
def test_flop_are_torchs_count(tiny_expert: Path, length: int) -> None:
    """torch counts attention over all L x L pairs; the causal ones are L (L + 1) / 2."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    # It does not count the fused kernel of the CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        states = hidden_states(model, torch.zeros(1, length, dtype=torch.long))
        logits_of(model, states[0])
    width = model.config.num_hidden_layers * model.config.hidden_size
    beyond = 4 * width * (length**2 - length * (length + 1) // 2)
    ours = sampling.decoder_flop(model, [length]) + sampling.head_flop(model, length)
    assert ours + beyond == counter.get_total_flops()


def test_the_figures_are_written(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MATRIX", 64)
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
    result = CliRunner().invoke(bench.application(), ["sampling", *options, "--naive", "1"])
    assert result.exit_code == 0, result.output
    found = json.loads(Path(".lightreasoner/bench/sampling.json").read_text(encoding="utf-8"))
    assert found["score"]["steps"] == found["generate"]["new_tokens"] <= 12
    assert found["score"]["share_of_matrix_rate"] > 0
    assert found["naive"]["problems"] == 1
    assert found["machine"]["packages"]["torch"] in torch.__version__
    assert "naive scoring" in result.output


def test_training_is_timed_beside_a_plain_trainer(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MATRIX", 64)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    given = ["--set", f"models.expert={tiny_expert}", "--set", "finetune.samples_per_update=3"]
    command = ["training", *given, "--samples", str(samples_dir), "--updates", "2"]
    result = CliRunner().invoke(bench.application(), command)
    assert result.exit_code == 0, result.output
    found = json.loads(Path(".lightreasoner/bench/training.json").read_text(encoding="utf-8"))
    assert found["sample"]["samples"] == 6
    assert found["naive"]["samples"] == 9
    assert found["trajectory"]["samples"] >= 6
    assert "times the plain trainer" in result.output


def test_the_plain_trainer_has_the_same_loss(tiny_expert: Path, samples_dir: Path) -> None:
    """Dense labels and whole logits against sparse labels at their positions."""
    settings = Finetune(updates=5, samples_per_update=4, learning_rate=1e-2, lora_dropout=0.0)
    updates = list(plan_updates(read_rows(samples_dir, "sample"), settings))
    model = with_lora(loading.load_model(tiny_expert, "cpu", "float32"), settings)
    updates = [[[part for row in f for part in split_row(row)] for f in u] for u in updates]
    rows = [row for forward in updates[0] for row in forward]
    ours = summed_divergence(model.get_base_model(), collate(rows, torch.device("cpu"))).item()
    plain = training.train_plainly(model, updates, settings, Silent())
    assert plain[0] == pytest.approx(ours / len(rows), rel=1e-5)
    assert plain[-1] < plain[0]


def test_grading_is_timed_with_hostile_answers_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 made answers every second is right, by the strict verdict; a verdict never changes."""
    monkeypatch.chdir(tmp_path)
    command = ["grading", "--answers", "80"]
    result = CliRunner().invoke(bench.application(), command)
    assert result.exit_code == 0, result.output
    found = json.loads(Path(".lightreasoner/bench/grading.json").read_text(encoding="utf-8"))
    assert found["outcomes"]["strict"] == {"wrong": 40, "correct": 40}
    assert (found["hostile"]["hostile"], found["hostile"]["ordinary"]) == (2, 10)
    assert found["hostile"]["changed_verdicts"] == 0
    assert "2 hostile ones among 10" in result.output


def test_made_answers_are_the_same_for_the_same_seed() -> None:
    assert grading.made(30, 1) == grading.made(30, 1) != grading.made(30, 2)


def test_every_stage_is_measured_at_the_presets_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small, and with a small vocabulary, whose models are made in no time."""

    def small(path: Path, name: str, tokenizer: str, seed: int, shape: object) -> Path:
        return write_model(path, seed, hidden=32, layers=2)

    monkeypatch.setattr(gpu.paper_models, "write", small)
    monkeypatch.setattr(sampling, "MATRIX", 64)
    found = gpu.measured(tmp_path, gpu.SMALL, True, ["compute.device=cpu", "select.beta=0"])
    assert list(found["stages"]) == [stage.name for stage in GRAPH]
    for name in ("generate", "score", "finetune", "evaluate_base", "evaluate"):
        assert found["stages"][name]["flop"] > 0
        assert 0 < found["stages"][name]["share_of_reading_rate"] < 1
    assert len(gpu.summary(found)) == 1 + len(GRAPH)


def test_the_least_that_decoding_reads(tiny_expert: Path) -> None:
    """Two texts in one row, 3 and 2 new tokens: five steps read the weights; the tokens see 4, 5, 6
    and 7, 8 columns of the cache before their own, 2 x 2 layers x 2 heads x 8 numbers each."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    _, read = gpu._decoding(model, [(4, 3), (7, 2)], 1, 4)
    assert read == 4 * 5 * model.num_parameters() + (4 + 5 + 6 + 7 + 8) * 4 * 2 * 2 * 2 * 8


@pytest.mark.nightly
def test_processes_side_by_side_are_rated_together(tiny_expert: Path) -> None:
    found = together.together(tiny_expert, 0.1, (1, 2))
    assert found["share_of_one"]["1"] == 1
    alone, both = found["responses_per_second"].values()
    assert found["share_of_one"]["2"] == both / alone > 0
    assert len(together.summary(found)) == 2
