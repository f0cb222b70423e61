"""The paper's shapes: what is counted from them is what their makers say."""

import pytest
import torch
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
