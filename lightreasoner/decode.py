"""Batched decoding, greedy unless a temperature is given, on raw logits.

Prompts are sorted by length and padded on the left; a row that ends leaves the batch, so that no
work goes into finished sequences. Token ids go in and come out; text is never tokenised again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psutil
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lightreasoner.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_BATCH = 128
MEMORY_SHARE = 0.25
ROOM = 64  # tokens


@dataclass
class Completion:
    """The ids that a model wrote after a prompt; the id that ended it is the last."""

    ids: list[int]
    finish_reason: Literal["stop", "length"]


def decode(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Completion]:
    """One completion a prompt, in the prompts' order.

    `on_done(done, total)` hears of finished prompts. With a temperature, each prompt draws from a
    generator of its own, seeded by its entry in `seeds` (0 to n - 1 if None), whatever the batch.
    Raises ModelError for logits that are not finite.
    """
    seeds = range(len(prompts)) if seeds is None else seeds
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    size = batch_size or fitting_batch_size(model, len(prompts[order[-1]]) + max_new_tokens)
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        generators = [torch.Generator().manual_seed(seeds[index]) for index in batch]
        pick = _Pick(temperature, generators)
        found = _decode_batch(
            model, [prompts[index] for index in batch], stop_ids, max_new_tokens, pick
        )
        completions |= dict(zip(batch, found, strict=True))
        on_done(len(completions), len(prompts))
    return [completions[index] for index in range(len(prompts))]


class _Pick:
    """Chooses the next token of each row: the largest logit, or a draw at a temperature."""

    def __init__(self, temperature: float, generators: list[torch.Generator]):
        self.temperature, self.generators = temperature, generators

    def __call__(self, logits: Tensor, rows: list[int]) -> Tensor:
        """`logits` (rows, vocab) to ids (rows,). Raises ModelError if they are not finite."""
        largest, ids = logits.max(dim=-1)
        if not torch.isfinite(largest).all():
            raise ModelError(
                "decoding: the model gave NaN or infinite logits; try compute.dtype float32 or "
                "check the weights"
            )
        if self.temperature == 0:
            return ids
        probs = torch.softmax(logits.float() / self.temperature, dim=-1).cpu()
        draws = [
            torch.multinomial(prob, 1, generator=self.generators[row])
            for prob, row in zip(probs, rows, strict=True)
        ]
        return torch.cat(draws).to(logits.device)


@torch.inference_mode()
def _decode_batch(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    stop_ids: set[int],
    max_new_tokens: int,
    pick: _Pick,
) -> list[Completion]:
    device = model.device
    input_ids, mask = _pad_left(prompts, device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    cache = Cache(layers=[_RoomyLayer() for _ in range(model.config.num_hidden_layers)])
    completions = [Completion([], "length") for _ in prompts]
    rows = list(range(len(prompts)))
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    for _ in range(max_new_tokens):
        output = model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        ids = pick(output.logits[:, -1], rows)
        for row, token in zip(rows, ids.tolist(), strict=True):
            completions[row].ids.append(token)
        ended = torch.isin(ids, stops)
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if ended.any():
            going = (~ended).nonzero().flatten()
            for index in ended.nonzero().flatten().tolist():
                completions[rows[index]].finish_reason = "stop"
            rows = [rows[index] for index in going.tolist()]
            if not rows:
                break
            cache.batch_select_indices(going)
            ids, mask, positions = ids[going], mask[going], positions[going]
        input_ids = ids[:, None]
    return completions


class _RoomyLayer(DynamicLayer):
    """Keys and values, each (batch, heads, tokens, head size), with room to grow in place.

    transformers' own layer concatenates anew at every token, which took half of the decoding time
    (SmolLM2-135M, 32 rows, two CPU cores).
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; returns those of all tokens."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = [key_states[:, :, :0], value_states[:, :, :0]]
        if end > self._rooms[0].shape[-2]:
            self._rooms = [_enlarged(room, start, end + ROOM) for room in self._rooms]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch only."""
        end = self.get_seq_length()
        self._rooms = [_enlarged(room[indices, :, :end], end, end + ROOM) for room in self._rooms]
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)


def _enlarged(room: Tensor, used: int, tokens: int) -> Tensor:
    """The first `used` tokens of a room, at the start of a new one of `tokens`."""
    larger = room.new_empty(*room.shape[:2], tokens, room.shape[-1])
    larger[:, :, :used] = room[:, :, :used]
    return larger


def _pad_left(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts to input_ids and attention mask, both (batch, longest), padded on the left with 0."""
    width = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return input_ids.to(device), mask.to(device)


def fitting_batch_size(model: "PreTrainedModel", tokens: int) -> int:
    """How many sequences of `tokens` fit into a quarter of the free memory, at most 128.

    A sequence costs its keys and values (2 x layers x kv heads x head size a token) and a few
    float32 rows of logits.
    """
    config = model.config
    head_size = (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size
    bytes_per_value = next(model.parameters()).element_size()
    per_sequence = tokens * per_token * bytes_per_value + 4 * config.vocab_size * 4
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(LARGEST_BATCH, int(free * MEMORY_SHARE / per_sequence)))
