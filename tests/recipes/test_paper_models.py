"""The paper's shapes: what is counted from them is what their makers say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from benchmarks import paper_models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("amateur", 494_032_768),
        ("qwen2.5-math-1.5b", 1_543_714_304),
        ("deepseek-r1-distill-qwen-1.5b", 1_777_088_000),
        ("qwen2.5-math-7b", 7_615_616_512),
    ],
)
def test_a_shape_has_as_many_parameters_as_the_model(name: str, parameters: int) -> None:
    """On the hub's pages they are 0.49B, 1.54B, 1.78B and 7.62B; no weight is made here."""
    layout = paper_models.LAYOUTS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(paper_models.settings(layout, layout.shape))
    assert model.num_parameters() == parameters


def test_a_widened_model_is_the_same_in_float32(tmp_path: Path) -> None:
    shape = replace(paper_models.tiny(32), hidden=paper_models.LAYOUTS["amateur"].shape.hidden)
    tokenizer = paper_models.ordinary().to_str()
    path = paper_models.write(tmp_path, "amateur", tokenizer, 0, shape)
    (file,) = path.glob("*.safetensors")
    narrow = load_file(file)
    assert {weight.dtype for weight in narrow.values()} == {torch.bfloat16}
    narrow = {name: weight.clone() for name, weight in narrow.items()}
    paper_models.widen(path)
    wide = load_file(file)
    assert wide.keys() == narrow.keys()
    assert {weight.dtype for weight in wide.values()} == {torch.float32}
    assert all(torch.equal(wide[name], narrow[name].float()) for name in wide)
    assert json.loads((path / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
