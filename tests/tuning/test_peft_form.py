"""An adapter as people take it away: peft's own class finds its base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel
from test_adapters import accepted
from test_merge import load, make_adapter
from transformers import AutoTokenizer
from typer.testing import CliRunner

from lightreasoner.cli import app
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import peft_form, upload

COMMIT = "4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def tuned(tiny_expert: Path, tmp_path: Path) -> PeftModel:
    """The expert with the adapter that lies in `payload`, as finetune leaves it."""
    model = make_adapter(tiny_expert, tmp_path / "payload")
    (tmp_path / "payload" / "validation.json").write_text("{}")
    return model


def settings(adapter: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    return found


def test_peft_loads_it_by_its_directory_alone(
    tuned: PeftModel, tiny_expert: Path, tmp_path: Path
) -> None:
    before = artifacts.digest(tmp_path / "payload")
    peft_form.export(tmp_path / "payload", artifacts.of(tiny_expert), tmp_path / "out")
    assert artifacts.digest(tmp_path / "payload") == before
    weights = [tmp_path / name / "adapter_model.safetensors" for name in ("payload", "out")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded(IDS).logits, tuned(IDS).logits)
    assert not torch.equal(loaded(IDS).logits, load(tiny_expert)(IDS).logits)
    base = loaded.peft_config["default"]
    tokenizer = AutoTokenizer.from_pretrained(base.base_model_name_or_path, revision=base.revision)
    assert tokenizer("12").input_ids


def test_peft_loads_it_by_the_hubs_name_and_commit(
    tuned: PeftModel, tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of the hub's cache, where another commit lies beside it."""
    cache = tmp_path / "hub" / "models--owner--name" / "snapshots"
    shutil.copytree(tiny_expert, cache / COMMIT)
    (cache / ("0" * 40)).mkdir()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    expert = Artifact(tiny_expert, f"owner/name@{COMMIT}")
    peft_form.place(tmp_path / "payload", expert, tmp_path / "out")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", cache_dir=tmp_path / "hub")
    assert torch.equal(loaded(IDS).logits, tuned(IDS).logits)
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model == "owner/name"
    accepted(tmp_path / "out", expert)


def test_it_is_still_this_experts_on_another_machine(
    tuned: PeftModel, tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_expert, tmp_path / "here")
    peft_form.export(tmp_path / "payload", artifacts.of(tmp_path / "here"), tmp_path / "out")
    (tmp_path / "here").rename(tmp_path / "there")
    accepted(tmp_path / "out", artifacts.of(tmp_path / "there"))
    with pytest.raises(ArtifactError, match="its base is"):
        accepted(tmp_path / "out", artifacts.of(tiny_amateur))


def test_what_goes_to_the_hub_names_no_directory_of_this_machine(
    tuned: PeftModel, tiny_expert: Path, tmp_path: Path
) -> None:
    """A payload without a card, and the exported directory with its own."""
    peft_form.export(tmp_path / "payload", artifacts.of(tiny_expert), tmp_path / "out")
    for name in ("payload", "out"):
        card = tmp_path / name / "README.md"
        folder = upload.prepare(tmp_path / name, card, tmp_path / f"{name} pushed", adapter=True)
        found = settings(folder.path)
        assert found["base_model_name_or_path"] == artifacts.digest(tiny_expert)
        assert found.get("revision") is None
        text = (folder.path / "README.md").read_text("utf-8")
        assert str(tmp_path) not in text
        assert str(tiny_expert) not in text
        assert artifacts.digest(tiny_expert) in text
        assert "AutoPeftModelForCausalLM.from_pretrained(" in text
        assert ModelCard(text).data.library_name == "peft"
        assert "validation.json" not in folder.sizes
        accepted(folder.path, artifacts.of(tiny_expert))


def test_the_command_refuses_another_expert_before_it_writes(
    tuned: PeftModel, tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    def run(expert: Path) -> tuple[int, str]:
        options = ["--adapter", str(tmp_path / "payload"), "--out", str(tmp_path / "new")]
        done = CliRunner().invoke(
            app.application(), ["adapter", *options, "--set", f"models.expert={expert}"]
        )
        return done.exit_code, done.output

    status, said = run(tiny_amateur)
    assert status == 2
    assert "its base is" in said
    assert not (tmp_path / "new").exists()
    assert run(tiny_expert)[0] == 0
    assert settings(tmp_path / "new")["base_model_name_or_path"] == str(tiny_expert.resolve())
    status, said = run(tiny_expert)
    assert status == 2
    assert "holds other files" in said
