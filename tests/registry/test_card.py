"""The card: metadata as the hub reads it, and no name that the inputs do not give."""

from pathlib import Path

import pytest
import written_steps
from huggingface_hub import ModelCard

from lightreasoner import config
from lightreasoner.progress import Silent
from lightreasoner.sampling import select
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.tuning import model_card

HUB = "Qwen/Qwen2.5-Math-1.5B@4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
LOCAL = "0" * 32 + ".dir"
ADAPTER = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
SELECTED = {"steps": "informative", "label": "contrast"}
PARITY = {
    "kl_mean": 1e-6,
    "kl_max": 1.5e-5,
    "top1_agreement": 1.0,
    "cast_kl_mean": 0.002,
    "cast_kl_max": 0.25,
    "cast_top1_agreement": 0.75,
    "positions": 64,
    "prompts": 4,
    "held_out_prompts": 3,
}


def test_the_hub_reads_the_metadata() -> None:
    found = ModelCard(model_card.card_text(HUB, ADAPTER, LOCAL, SELECTED, PARITY))
    assert found.data.to_dict() == {
        "base_model": "Qwen/Qwen2.5-Math-1.5B",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lightreasoner", "lora", "merged", "arxiv:2510.07962"],
    }


def test_the_text_says_what_it_was_made_of() -> None:
    text = ModelCard(model_card.card_text(HUB, ADAPTER, LOCAL, SELECTED, PARITY)).text
    assert text.strip().startswith("# A model tuned with LightReasoner")
    assert f"- expert: `{HUB}`" in text
    assert f"- sample set: `{LOCAL}`" in text
    assert "rank 8, lora_alpha 16, on q_proj, v_proj" in text
    assert "1.00e-06 nats in the mean,\n  1.50e-05 at most, top-1 agreement 1.0000" in text
    assert "of the expert's own cast\n  2.00e-03, 2.50e-01, 0.7500" in text
    assert "64 positions of\n  4 prompts, 3 of them held out" in text


def test_a_local_expert_has_no_name_on_the_hub() -> None:
    found = ModelCard(model_card.card_text(LOCAL, ADAPTER, LOCAL, SELECTED, PARITY))
    assert found.data.base_model is None
    assert f"- expert: `{LOCAL}`" in found.text


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"source": "keep", "steps": "all", "label": "one_hot"}, "whose answer is the gold answer"),
        ({"source": "gold", "steps": "all", "label": "one_hot"}, "whole solutions that people"),
        ({"import": {"rows": 3}}, "a file in the format of LightReasoner's authors"),
        ({}, "does not say how it was made"),
        ({"source": "elsewhere"}, "does not say how it was made"),
    ],
)
def test_what_was_not_made_by_the_contrast_is_not_said_to_be(
    provenance: dict[str, object], said: str
) -> None:
    found = ModelCard(model_card.card_text(HUB, ADAPTER, LOCAL, provenance, PARITY))
    assert "arxiv:2510.07962" not in found.data.tags
    assert said in found.text
    for word in ("2510.07962", "amateur", "without gold answers"):
        assert word not in found.text


@pytest.mark.parametrize(
    ("changes", "said", "amateur"),
    [
        ({"steps": "all"}, "every step of its own responses towards its contrast", True),
        ({"label": "one_hot"}, "parts from it towards the token that it wrote there", True),
        ({"label": "expert"}, "parts from it towards its own distribution", True),
        (
            {"steps": "all", "label": "one_hot"},
            "every step of its own responses towards the",
            False,
        ),
    ],
)
def test_an_ablation_is_called_one(changes: dict[str, str], said: str, amateur: bool) -> None:
    found = ModelCard(model_card.card_text(HUB, ADAPTER, LOCAL, {**SELECTED, **changes}, PARITY))
    assert "arxiv:2510.07962" not in found.data.tags
    assert "2510.07962" not in found.text
    assert "# An ablation of LightReasoner" in found.text
    text = " ".join(found.text.split())
    assert said in text
    assert "without gold answers" in text
    assert ("amateur" in text) == amateur


def test_select_writes_what_the_card_reads(tmp_path: Path) -> None:
    steps = artifacts.of(written_steps.write_steps(tmp_path / "steps"))
    work = Workspace(tmp_path, tmp_path / "scratch", config.Compute())
    select.write({"steps": steps}, config.Select(), work, Silent())
    provenance = tables.provenance(tmp_path / "samples.parquet")
    assert model_card.origin(provenance) == model_card.origin(SELECTED)
    assert model_card.origin(SELECTED)[0] == model_card.METHOD
