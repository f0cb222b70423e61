"""Merging: base + adapter and the merged directory compute the same, else it is refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_finetune import CPU, settings

from lightreasoner import artifacts, models
from lightreasoner.artifacts import Artifact
from lightreasoner.config import Merge
from lightreasoner.decode import decode
from lightreasoner.errors import ArtifactError, MergeError
from lightreasoner.finetune import write_adapter
from lightreasoner.merge import write_model
from lightreasoner.progress import Silent


@pytest.fixture
def adapter_dir(tiny_expert: Path, samples_dir: Path, tmp_path: Path) -> Path:
    out = tmp_path / "adapter"
    out.mkdir()
    config = settings(learning_rate=5e-2)
    write_adapter(artifacts.of(tiny_expert), samples_dir, config, CPU, out, Silent())
    return out


def merge(expert: Path, adapter: Path, samples: Path, out: Path, **changes: float) -> Artifact:
    out.mkdir()
    config = Merge.model_validate(changes)
    write_model(artifacts.of(expert), adapter, artifacts.of(samples), config, CPU, out, Silent())
    return artifacts.of(out)


def test_the_merged_directory_speaks_as_base_and_adapter(
    tiny_expert: Path,
    adapter_dir: Path,
    samples_dir: Path,
    tmp_path: Path,
) -> None:
    merge(tiny_expert, adapter_dir, samples_dir, tmp_path / "model")
    tuned = PeftModel.from_pretrained(
        models.load_model(tiny_expert, "cpu", "float32"), str(adapter_dir)
    ).eval()
    merged = models.load_model(tmp_path / "model", "cpu", "float32")
    prompts = [[n, n + 1, n + 2] for n in range(20)]
    one, other = (decode(m, prompts, {258}, 16) for m in (tuned.get_base_model(), merged))
    assert one == other
    base = decode(models.load_model(tiny_expert, "cpu", "float32"), prompts, {258}, 16)
    assert base != one
    parity = json.loads((tmp_path / "model" / "parity.json").read_text())
    assert parity["top1_agreement"] == 1.0
    assert parity["max_logit_difference"] < 1e-3


def test_it_is_a_whole_directory_without_pickles_or_paths(
    tiny_expert: Path,
    adapter_dir: Path,
    samples_dir: Path,
    tmp_path: Path,
) -> None:
    merge(tiny_expert, adapter_dir, samples_dir, tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    for name in names - {"model.safetensors"}:
        assert str(tmp_path) not in (tmp_path / "model" / name).read_text(encoding="utf-8")
    tokenizer = models.load_tokenizer(tmp_path / "model")
    assert models.stop_ids(tmp_path / "model", tokenizer) == {256, 258}


def test_a_difference_past_the_limit_fails(
    tiny_expert: Path,
    adapter_dir: Path,
    samples_dir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(MergeError, match=r"limit merge.max_logit_difference 1e-12"):
        merge(tiny_expert, adapter_dir, samples_dir, tmp_path / "m", max_logit_difference=1e-12)


def test_an_adapter_of_another_base_is_refused(
    tiny_amateur: Path,
    adapter_dir: Path,
    samples_dir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(ArtifactError, match=r"tuned on .*\.dir, not on this expert"):
        merge(tiny_amateur, adapter_dir, samples_dir, tmp_path / "model")


def test_weights_that_are_not_finite_are_refused(
    tiny_expert: Path,
    adapter_dir: Path,
    samples_dir: Path,
    tmp_path: Path,
) -> None:
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    first = next(iter(weights))
    weights[first] = torch.full_like(weights[first], float("nan"))
    save_file(weights, adapter_dir / "adapter_model.safetensors")
    with pytest.raises(MergeError, match=r"is not finite"):
        merge(tiny_expert, adapter_dir, samples_dir, tmp_path / "model")
