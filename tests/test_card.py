"""The card: metadata as the hub reads it, and no name that the inputs do not give."""

from huggingface_hub import ModelCard

from lightreasoner import card

HUB = "Qwen/Qwen2.5-Math-1.5B@4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
LOCAL = "0" * 32 + ".dir"
ADAPTER = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
PARITY = {
    "max_logit_difference": 1.5e-5,
    "mean_logit_difference": 1e-6,
    "top1_agreement": 1.0,
    "positions": 64,
    "prompts": 4,
    "held_out_prompts": 3,
}


def test_the_hub_reads_the_metadata() -> None:
    found = ModelCard(card.render(HUB, ADAPTER, LOCAL, PARITY))
    assert found.data.to_dict() == {
        "base_model": "Qwen/Qwen2.5-Math-1.5B",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lightreasoner", "lora", "merged", "arxiv:2510.07962"],
    }


def test_the_text_says_what_it_was_made_of() -> None:
    text = ModelCard(card.render(HUB, ADAPTER, LOCAL, PARITY)).text
    assert text.strip().startswith("# A model tuned with LightReasoner")
    assert f"- expert: `{HUB}`" in text
    assert f"- sample set: `{LOCAL}`" in text
    assert "rank 8, lora_alpha 16, on q_proj, v_proj" in text
    assert "difference\n  1.50e-05" in text
    assert "64 positions of 4 prompts, 3 of them held out" in text


def test_a_local_expert_has_no_name_on_the_hub() -> None:
    found = ModelCard(card.render(LOCAL, ADAPTER, LOCAL, PARITY))
    assert found.data.base_model is None
    assert f"- expert: `{LOCAL}`" in found.text
