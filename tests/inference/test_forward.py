"""Forward passes in parts: the same logits as the whole model's, or a refusal."""

from pathlib import Path

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from lightreasoner.errors import ModelError
from lightreasoner.inference import loading
from lightreasoner.inference.forward import check_head, hidden_states, logits_of, pad_right


def test_states_and_head_are_the_model(tiny_expert: Path) -> None:
    """Padding on the right changes no real token; a shift of one position would be 1 off."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    rows = [[5, 6, 7, 8, 9], [10, 11]]
    padded = hidden_states(model, pad_right(rows, model.device))
    for states, row in zip(padded, rows, strict=True):
        whole = model(torch.tensor([row])).logits[0]
        torch.testing.assert_close(logits_of(model, states[: len(row)]), whole, atol=1e-5, rtol=0)
    check_head(model)


def test_a_model_that_scales_its_logits_is_refused() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.5}
    model = GraniteForCausalLM(GraniteConfig(**sizes, **heads, logits_scaling=8.0)).eval()
    with pytest.raises(ModelError, match=r"granite changes its logits after the LM head"):
        check_head(model)
