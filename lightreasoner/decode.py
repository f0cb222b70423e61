"""Batched decoding, greedy unless a temperature is given, on raw logits.

Prompts are sorted by length and padded on the left; a row that ends leaves the batch, so that no
work goes into finished sequences. Token ids go in and come out; text is never tokenised again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
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
# What two cores' caches hold runs faster; a GPU wants more at a time.
PREFILL_TOKENS = {"cpu": 1024, "cuda": 16384}


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
    is_over: Callable[[list[int]], bool] = lambda ids: False,
) -> list[Completion]:
    """One completion a prompt, in the prompts' order.

    `on_done(done, total)` hears of finished prompts. With a temperature, each prompt draws from a
    generator of its own, seeded by its entry in `seeds` (0 to n - 1 if None), whatever the batch.
    A completion also ends where `is_over(ids)` says so; its finish_reason is then `length`,
    as no stop id ended it.
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
            model, [prompts[index] for index in batch], stop_ids, max_new_tokens, pick, is_over
        )
        completions |= dict(zip(batch, found, strict=True))
        on_done(len(completions), len(prompts))
    return [completions[index] for index in range(len(prompts))]


def draw_seed(seed: int, completion_id: str) -> int:
    """The seed of one completion's draws, whatever its place among the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{completion_id}".encode()).digest()[:8]) >> 1


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
    is_over: Callable[[list[int]], bool],
) -> list[Completion]:
    cache = _cache(model)
    logits, mask = _prefill(model, prompts, cache)
    stops = torch.tensor(sorted(stop_ids), device=model.device)
    completions = [Completion([], "length") for _ in prompts]
    rows = list(range(len(prompts)))
    while True:
        ids = pick(logits, rows)
        for row, token in zip(rows, ids.tolist(), strict=True):
            completions[row].ids.append(token)
        ended = torch.isin(ids, stops)
        for index in ended.nonzero().flatten().tolist():
            completions[rows[index]].finish_reason = "stop"
        over = [is_over(completions[row].ids) for row in rows]
        ended |= torch.tensor(over, device=ended.device)
        if ended.all() or len(completions[rows[0]].ids) == max_new_tokens:
            return completions
        if ended.any():
            going = (~ended).nonzero().flatten()
            rows = [rows[index] for index in going.tolist()]
            cache.batch_select_indices(going)
            ids, mask = ids[going], mask[going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _forward(model, ids[:, None], mask, cache)


def _prefill(
    model: "PreTrainedModel", prompts: list[list[int]], cache: Cache
) -> tuple[Tensor, Tensor]:
    """Read the prompts, sorted by length, into the cache; logits (batch, vocab) after the last
    token and the mask (batch, shared + longest rest).

    What all prompts begin with (a system prompt, few-shot examples) is read once, unless a layer
    has a window: windows are counted in places of the cache, padding included, which then lies
    between the beginning and the rest. The rests of similar length are read together, so that
    little work goes into padding.
    """
    shared = 0 if _has_windows(model) else _shared_prefix(prompts)
    rests = [prompt[shared:] for prompt in prompts]
    prefix = _cache(model)
    if shared:
        input_ids, mask = _pad_left([prompts[0][:shared]], model.device)
        _forward(model, input_ids, mask, prefix)
    logits = []
    for rows in _groups([len(rest) for rest in rests], PREFILL_TOKENS[model.device.type]):
        part = Cache(layers=[layer.repeated(rows.stop - rows.start) for layer in prefix.layers])
        input_ids, mask = _pad_left(rests[rows], model.device, shared)
        logits.append(_forward(model, input_ids, mask, part))
        for layer, read in zip(cache.layers, part.layers, strict=True):
            layer.place(read, rows, len(prompts), shared, shared + len(rests[-1]))
    return torch.cat(logits), _pad_left(rests, model.device, shared)[1]


def _shared_prefix(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with; each keeps at least one of its own."""
    if len(prompts) == 1:
        return 0
    first, last = min(prompts), max(prompts)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return min(sum(1 for _ in same), min(map(len, prompts)) - 1)


def _has_windows(model: "PreTrainedModel") -> bool:
    """Whether some layer sees the last so many tokens only."""
    config = model.config
    if getattr(config, "layer_types", None):
        return set(config.layer_types) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None


def _groups(lengths: list[int], tokens: int) -> Iterator[slice]:
    """Consecutive rows, each group at most `tokens` when padded to its longest (its last) row."""
    start = 0
    for row, length in enumerate(lengths):
        if row > start and (row + 1 - start) * length > tokens:
            yield slice(start, row)
            start = row
    yield slice(start, len(lengths))


def _forward(model: "PreTrainedModel", input_ids: Tensor, mask: Tensor, cache: Cache) -> Tensor:
    """Logits (batch, vocab) after the last of `input_ids` (batch, new); mask (batch, all)."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
    output = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def _cache(model: "PreTrainedModel") -> Cache:
    return Cache(layers=[_RoomyLayer() for _ in range(model.config.num_hidden_layers)])


class _RoomyLayer(DynamicLayer):
    """Keys and values, each (batch, heads, tokens, head size), with room to grow in place.

    transformers' own layer concatenates anew at every token, which took half of the decoding time
    (SmolLM2-135M, 32 rows, two CPU cores).
    """

    _rooms: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; returns those of all tokens."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = key_states[:, :, :0], value_states[:, :, :0]
        if end > self._rooms[0].shape[-2]:
            keys, values = (_enlarged(room, start, end + ROOM) for room in self._rooms)
            self._rooms = keys, values
        self._rooms[0][:, :, start:end] = key_states
        self._rooms[1][:, :, start:end] = value_states
        return self._show(end)

    def repeated(self, batch: int) -> "_RoomyLayer":
        """A layer that goes on from this one's only row in each of `batch` rows."""
        layer = _RoomyLayer()
        if self.is_initialized:
            layer.lazy_initialization(self.keys, self.values)
            # Full, so that the next token finds no room and makes a copy.
            keys, values = (s.expand(batch, -1, -1, -1) for s in (self.keys, self.values))
            layer._rooms = keys, values
            layer._show(self.get_seq_length())
        return layer

    def place(self, other: DynamicLayer, rows: slice, batch: int, shared: int, width: int) -> None:
        """Take another layer's states as rows of a batch: the first `shared` tokens on the left,
        the rest aligned on the right at `width`."""
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
            keys, values = (
                states.new_zeros(batch, states.shape[1], width + ROOM, states.shape[3])
                for states in (other.keys, other.values)
            )
            self._rooms = keys, values
        start = width - other.keys.shape[-2] + shared
        for room, states in zip(self._rooms, (other.keys, other.values), strict=True):
            room[rows, :, :shared] = states[:, :, :shared]
            room[rows, :, start:width] = states[:, :, shared:]
        self._show(width)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch only."""
        keys, values = (room[indices] for room in self._rooms)
        end = self.get_seq_length()
        self._rooms = keys, values
        self._show(end)

    def _show(self, tokens: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (room[:, :, :tokens] for room in self._rooms)
        return self.keys, self.values


def _enlarged(room: Tensor, used: int, tokens: int) -> Tensor:
    """The first `used` tokens of a room, at the start of a new one of `tokens`."""
    larger = room.new_empty(*room.shape[:2], tokens, room.shape[-1])
    larger[:, :, :used] = room[:, :, :used]
    return larger


def _pad_left(
    prompts: list[list[int]], device: torch.device, before: int = 0
) -> tuple[Tensor, Tensor]:
    """Prompts to input_ids (batch, longest), padded on the left with 0, and attention mask
    (batch, before + longest) if so many tokens were read before."""
    width = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.ones(len(prompts), before + width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, before : before + width - len(prompt)] = 0
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
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * head_size
    bytes_per_value = next(model.parameters()).element_size()
    per_sequence = tokens * per_token * bytes_per_value + 4 * config.vocab_size * 4
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(LARGEST_BATCH, int(free * MEMORY_SHARE / per_sequence)))
