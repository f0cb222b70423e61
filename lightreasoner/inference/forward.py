"""Forward passes in parts: the decoder's states first, the LM head only where it counts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightreasoner.errors import ModelError
from lightreasoner.inference.transfer import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


HEAD_TOLERANCE = 1e-2


@torch.inference_mode()
def check_head(model: "PreTrainedModel") -> None:
    """Refuse a model that does more than a linear LM head to its last states.

    Such models (soft-capped or scaled logits) would be scored on other distributions than they
    decode with. Raises ModelError.
    """
    input_ids = torch.arange(4, device=model.device)[None]
    whole = model(input_ids=input_ids, use_cache=False).logits.float()
    parts = logits_of(model, hidden_states(model, input_ids)).float()
    difference = (whole - parts).abs().max().item()
    if difference > HEAD_TOLERANCE * max(1.0, whole.abs().max().item()):
        raise ModelError(
            f"{model.name_or_path}: {model.config.model_type} changes its logits after the LM head "
            f"(by up to {difference:.3g}), which is not supported; use a model without soft caps "
            "or logit scales, such as Qwen2 or Llama"
        )


def batches(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Indices of sequences of similar length, at most this many padded tokens together."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batch and (len(batch) + 1) * lengths[index] > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad_right(rows: list[list[int]], device: torch.device) -> Tensor:
    """Ids (batch, longest), padded on the right with 0.

    Under causal attention no real token sees the padding, so that no mask is needed.
    """
    input_ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
    return to_device(input_ids, device)


def hidden_states(
    model: "PreTrainedModel", input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """The last layer's states (batch, seq, hidden), before the LM head."""
    decoder = model.get_decoder()
    return decoder(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state


def logits_of(model: "PreTrainedModel", hidden: Tensor) -> Tensor:
    """Logits (positions, vocab) of states (positions, hidden)."""
    return model.get_output_embeddings()(hidden)
