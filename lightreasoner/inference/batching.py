"""Batch plans: how many rows are decoded at once, and how many prompts make a shard.

Both follow from the model, the lengths and the machine's whole memory, not from what is free at
the moment, so that equal parameters plan the same batches on the same machine. Only where others
hold so much of a GPU that the plan does not fit are there fewer rows, and a warning.
"""

import logging
import math
from typing import TYPE_CHECKING

import torch

from lightreasoner.memory import machine_bytes
from lightreasoner.storage.shards import LARGEST_FLOP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute

log = logging.getLogger(__name__)

LARGEST_BATCH = 128
# Of what the weights leave: a CPU's memory serves others, too; a GPU's allocator loses a part.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.75}
# What two cores' caches hold runs faster; a GPU wants more at a time.
PREFILL_TOKENS = {"cpu": 1024, "cuda": 16384}
LOGIT_BYTES = 32
"""A logit's own bytes, and those of the float32 and whole numbers that a draw makes of it."""

USABLE_SHARE = 0.9
"""Of a GPU's free memory: what its allocator can be expected to give out in pieces of any size."""

FILLS = 4
"""Prompts per shard for each row: towards its end, rows find no new prompt."""


def fitting_rows(model: "PreTrainedModel", tokens: int) -> int:
    """How many rows of at most `tokens` tokens can be decoded at once, at most 128."""
    device = model.device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = machine_bytes()
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    share = MEMORY_SHARE[device.type]
    reading = PREFILL_TOKENS[device.type] * _read_bytes(model)
    row = tokens * kept_bytes(model, model.dtype.itemsize) + LOGIT_BYTES * model.config.vocab_size
    rows = rows_within(int(share * (memory - weights)), reading, row)
    if device.type == "cuda" and reading + rows * row > USABLE_SHARE * (
        free := _free_bytes(device)
    ):
        fewer = min(rows, rows_within(int(share * free), reading, row))
        log.warning(
            "%d rows at once instead of %d: %.1f of the GPU's %.1f GiB are free; in bfloat16 "
            "another batch changes some texts; end what else uses it, or set compute.batch_size",
            fewer, rows, free / 2**30, memory / 2**30,
        )  # fmt: skip
        return fewer
    return rows


def _free_bytes(device: torch.device) -> int:
    """What a GPU can still give: its free memory, and what torch keeps of it for its next use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def rows_within(memory: int, reading: int, row: int) -> int:
    """How many rows of `row` bytes fit beside the `reading` of prompts; 1 to 128."""
    return max(1, min(LARGEST_BATCH, (memory - reading) // row))


def kept_bytes(model: "PreTrainedModel", size: int) -> int:
    """Keys and values of a token, numbers of `size` bytes: 2 x layers x kv heads x head size."""
    config = model.config
    head_size = (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_size * size


def _read_bytes(model: "PreTrainedModel") -> int:
    """A token of a prompt that is read: its keys and values, and a layer's activations."""
    config = model.config
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    size = model.dtype.itemsize
    return kept_bytes(model, size) + (3 * inner + 8 * config.hidden_size) * size


def shard_prompts(model: "PreTrainedModel", tokens: int, total: int, compute: "Compute") -> int:
    """Of `total` prompts, how many make a shard; `tokens` are a typical prompt and its completion.

    Four for each row that is decoded at once, so that rows that end can be filled again. On a CPU
    no more than about a minute's work, but enough for each row once; on a GPU, where steps count
    and not FLOP, a shard takes about twice the steps of the longest completion. Every worker gets
    one.
    """
    rows = compute.batch_size or fitting_rows(model, tokens)
    prompts = FILLS * rows
    if model.device.type == "cpu":
        flop = 2.0 * model.num_parameters() * tokens
        prompts = max(rows, min(prompts, int(LARGEST_FLOP["cpu"] / flop)))
    return min(prompts, math.ceil(total / compute.workers))
