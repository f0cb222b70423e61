"""Shapes by hand, and against transformers' own models on the device `meta`."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import write_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from lightreasoner import config
from lightreasoner.forecast import shapes
from lightreasoner.forecast.shapes import PUBLISHED, Shape
from lightreasoner.inference.batching import kept_bytes
from lightreasoner.presets import AMATEUR, EXPERTS, PRESETS

MATH = PUBLISHED["Qwen/Qwen2.5-Math-1.5B"]
MILLIONS = {"Qwen/Qwen2.5-0.5B": 494.0, "Qwen/Qwen2.5-Math-1.5B": 1543.7,
            "Qwen/Qwen2.5-Math-7B": 7615.6}  # fmt: skip


def on_meta(shape: Shape) -> torch.nn.Module:
    """Qwen2 of this shape, without weights."""
    names = {**shape.__dict__}
    names.pop("qkv_bias")
    names["head_dim"] = names.pop("head_dim")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(Qwen2Config(**names), dtype=torch.bfloat16)


def test_qwen25_math_15b_by_hand() -> None:
    """28 layers of 1536 x 1536 (twice), 1536 x 256 (twice), 1536 x 8960 (three times); one
    embedding of 151,936 x 1536, tied; 28 x (2 x 1536 + 1536 + 512) + 1536 in norms and biases.

    Keys and values of a token: 2 x 28 layers x 2 heads x 128 x 2 bytes = 28,672 bytes.
    """
    assert MATH.body == 28 * (2 * 1536**2 + 2 * 1536 * 256 + 3 * 1536 * 8960) == 1_310_195_712
    assert MATH.head == 151_936 * 1536 == 233_373_696
    assert MATH.parameters == 1_310_195_712 + 233_373_696 + 28 * 5120 + 1536 == 1_543_714_304
    assert MATH.cache_bytes("bfloat16") == 28_672
    assert MATH.weight_bytes("bfloat16") == 2 * 1_543_714_304
    lora = PRESETS["qwen2.5-math-1.5b"].finetune  # q_proj and v_proj, r 8
    assert MATH.adapter(lora) == 28 * 8 * ((1536 + 1536) + (1536 + 256)) == 1_089_536


@pytest.mark.parametrize("name", MILLIONS)
def test_published_shapes_are_those_of_transformers(name: str) -> None:
    model = on_meta(PUBLISHED[name])
    assert PUBLISHED[name].parameters == model.num_parameters()
    assert round(PUBLISHED[name].parameters / 1e6, 1) == MILLIONS[name]
    assert PUBLISHED[name].cache_bytes("bfloat16") == kept_bytes(model, 2)


def test_every_model_of_the_presets_has_a_shape() -> None:
    for name in (AMATEUR, *EXPERTS.values()):
        assert shapes.of(name, None) is PUBLISHED[name.partition("@")[0]]
    assert shapes.of("someone/else@" + "0" * 40, None) is None


def test_a_directorys_shape_is_its_config_json(tmp_path: Path) -> None:
    qwen = write_model(tmp_path / "qwen", seed=1, hidden=32, layers=2)
    llama = tmp_path / "llama"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 99}
    AutoModelForCausalLM.from_config(LlamaConfig(**sizes, num_hidden_layers=3)).save_pretrained(
        llama
    )
    for directory in (qwen, llama):
        model = AutoModelForCausalLM.from_pretrained(directory)
        found = shapes.of("x", directory)
        assert found is not None
        assert found.parameters == model.num_parameters()
        assert found.cache_bytes("float32") == kept_bytes(model, 4)


def test_loras_parameters_are_pefts() -> None:
    parameters = config.changed(
        PRESETS["microworld"],
        ["finetune.r=4", "finetune.target_modules=[q_proj,self_attn.k_proj,down_proj]"],
    ).finetune
    model = on_meta(MATH)
    lora = LoraConfig(r=4, target_modules=list(parameters.target_modules), task_type="CAUSAL_LM")
    trained = sum(w.numel() for w in get_peft_model(model, lora).parameters() if w.requires_grad)
    assert MATH.adapter(parameters) == trained


@pytest.mark.parametrize(
    "change", [{"hidden_size": None}, {"num_attention_heads": "4"}, {"vocab_size": -1}]
)
def test_what_a_config_json_does_not_say_is_unknown(
    tiny_expert: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    said = json.loads((tiny_expert / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(said | change), encoding="utf-8")
    assert shapes.of("x", tmp_path) is None
