"""Batched decoding, greedy unless a temperature is given, on raw logits.

The longest prompts go first. A row that ends leaves its place to a prompt that waits: once a
sixteenth of the rows has ended, as many prompts are read together and join the others; when none
waits any more, ended rows leave the batch. Token ids go in and come out; text is never tokenised
again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from lightreasoner.errors import ModelError
from lightreasoner.inference.batching import PREFILL_TOKENS, fitting_rows
from lightreasoner.inference.cache_layer import new_cache
from lightreasoner.inference.drawing import choose
from lightreasoner.inference.engine import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDED_SHARE = 16
"""One in this many rows has ended before the others wait while prompts are read, or rows moved."""


@torch.inference_mode()
def decode(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    stop_ids: set[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    is_over: Callable[[list[int]], bool] = lambda ids: False,
) -> list[Completion]:
    """One completion per prompt, in the prompts' order; `batch_size` rows at once, or as many as
    fit.

    With a temperature, each prompt draws from a generator of its own, seeded by its entry in
    `seeds` (0 to n - 1 if None), whatever the batch. A completion also ends where `is_over(ids)`
    says so; its finish_reason is then `length`, as no stop id ended it.
    Raises ModelError for logits that are not finite, and ids that the model has no row for.
    """
    _check_ids(model, prompts)
    rows = batch_size or fitting_rows(model, max(map(len, prompts)) + max_new_tokens)
    draws = [Random(seed) for seed in (range(len(prompts)) if seeds is None else seeds)]
    completions = [Completion([], "length") for _ in prompts]

    def is_ended(completion: Completion) -> bool:
        if completion.ids[-1] in stop_ids:
            completion.finish_reason = "stop"
            return True
        return len(completion.ids) == max_new_tokens or is_over(completion.ids)

    _Batch(model, prompts, completions, draws, temperature, min(rows, len(prompts))).run(is_ended)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()  # the next batch's cache has another shape
    return completions


def _check_ids(model: "PreTrainedModel", prompts: list[list[int]]) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if (largest := max(max(ids) for ids in prompts)) >= rows:
        raise ModelError(
            f"{model.name_or_path}: its tokenizer gives the token {largest}, but the model has "
            f"rows only for the first {rows}; use a style without it, or mend the tokenizer"
        )


class _Batch:
    """Prompts that wait, and slots, each with the row of a prompt that `held` names."""

    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: list[list[int]],
        completions: list[Completion],
        draws: list[Random],
        temperature: float,
        slots: int,
    ):
        self.prompts, self.completions = prompts, completions
        self.draws, self.temperature = draws, temperature
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        self.waiting = deque(order)
        self.rows = _Rows(model, slots, _shared_prefix(model, prompts))
        self.held, self.is_live = [0] * slots, [False] * slots
        self.ids = torch.zeros(slots, dtype=torch.long, device=model.device)

    def run(self, is_ended: Callable[[Completion], bool]) -> None:
        """Write all completions, each until `is_ended`."""
        while self.waiting or any(self.is_live):
            free = [slot for slot, is_live in enumerate(self.is_live) if not is_live]
            are_many = len(free) >= max(1, len(self.held) // ENDED_SHARE)
            if are_many and self.waiting:
                self._write(*self._admit(free), is_ended)
                continue
            if are_many:
                self._drop_ended()
            slots = list(range(len(self.held)))
            self._write(slots, self.rows.step(self.ids, self._positions()), is_ended)

    def _admit(self, free: list[int]) -> tuple[list[int], Tensor]:
        """Read prompts into free slots; these, and the logits of their first tokens."""
        slots = free[: len(self.waiting)]
        found = [self.waiting.popleft() for _ in slots]
        logits = self.rows.prefill(slots, [self.prompts[index] for index in found], self._live())
        for slot, index in zip(slots, found, strict=True):
            self.held[slot], self.is_live[slot] = index, True
        return slots, logits

    def _write(
        self, slots: list[int], logits: Tensor, is_ended: Callable[[Completion], bool]
    ) -> None:
        """A token of each slot; what an ended row would write is ignored."""
        held = [self.held[slot] for slot in slots]
        ids = choose(logits, self.temperature, [self.draws[index] for index in held])
        self.ids[slots] = ids
        for slot, index, token in zip(slots, held, ids.tolist(), strict=True):
            if self.is_live[slot]:
                self.completions[index].ids.append(token)
                self.is_live[slot] = not is_ended(self.completions[index])

    def _positions(self) -> Tensor:
        """Where the last token of each row stands in it; an ended row goes no further."""
        return self.ids.new_tensor(
            [len(self.prompts[i]) + len(self.completions[i].ids) - 1 for i in self.held]
        )

    def _drop_ended(self) -> None:
        live = self._live()
        self.rows.keep(live)
        self.ids = self.ids[live]
        self.held, self.is_live = [self.held[slot] for slot in live], [True] * len(live)

    def _live(self) -> list[int]:
        return [slot for slot, is_live in enumerate(self.is_live) if is_live]


class _Rows:
    """What the model has read: a cache of `slots` rows that end in one column.

    The mask (slots, columns) is 0 where a row sees nothing. What all prompts begin with (a system
    prompt, few-shot examples) is read once.
    """

    def __init__(self, model: "PreTrainedModel", slots: int, prefix: list[int]):
        self.model, self.cache = model, new_cache(model)
        self.mask = torch.zeros(slots, 0, dtype=torch.long, device=model.device)
        self.prefix, self.shared = new_cache(model), len(prefix)
        if prefix:
            self._forward(*_pad_left([prefix], model.device), self.prefix)

    def prefill(self, slots: list[int], prompts: list[list[int]], live: list[int]) -> Tensor:
        """Read prompts, the longest first, into `slots`; logits (prompts, vocab) after each.

        None may be longer than what a `live` slot has read. Rests of similar length are read
        together, so that little work goes into padding.
        """
        if live:
            self._trim(live)
        else:
            self.mask = self.mask.new_zeros(len(self.mask), len(prompts[0]))
        rests = [prompt[self.shared :] for prompt in prompts]
        tokens = PREFILL_TOKENS[self.model.device.type]
        return torch.cat(
            [
                self._prefill(torch.tensor(slots[part], device=self.mask.device), rests[part])
                for part in _groups([len(rest) for rest in rests], tokens)
            ]
        )

    def _prefill(self, slots: Tensor, rests: list[list[int]]) -> Tensor:
        part = Cache(layers=[layer.repeated(len(rests)) for layer in self.prefix.layers])
        input_ids, mask = _pad_left(rests, self.model.device, self.shared)
        logits = self._forward(input_ids, mask, part)
        columns = self.mask.shape[1]
        self.mask[slots] = pad(mask, (columns - mask.shape[1], 0))
        for layer, read in zip(self.cache.layers, part.layers, strict=True):
            layer.place(read, slots, len(self.mask), columns)
        return logits

    def step(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits (slots, vocab) after one more token of each row, `ids` at `positions` (slots,)."""
        self.mask = pad(self.mask, (0, 1), value=1)
        return self._forward(ids[:, None], self.mask, self.cache, positions[:, None])

    def keep(self, slots: list[int]) -> None:
        """Keep these rows only."""
        self._trim(slots)
        kept = torch.tensor(slots, device=self.mask.device)
        self.mask = self.mask[kept]
        for layer in self.cache.layers:
            layer.keep(kept)

    def _trim(self, slots: list[int]) -> None:
        """Leave out the columns before the first that one of `slots` sees."""
        columns = int(self.mask[slots].amax(dim=0).argmax())
        self.mask = self.mask[:, columns:]
        for layer in self.cache.layers:
            layer.trim(columns)

    def _forward(
        self, input_ids: Tensor, mask: Tensor, cache: Cache, positions: Tensor | None = None
    ) -> Tensor:
        """Logits (rows, vocab) after the last of `input_ids` (rows, new); mask (rows, all)."""
        if positions is None:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def _shared_prefix(model: "PreTrainedModel", prompts: list[list[int]]) -> list[int]:
    """What all prompts begin with; each keeps at least one token of its own.

    Nothing where a layer has a window: windows are counted in places of the cache, padding
    included, which would lie between the beginning and the rest.
    """
    if len(prompts) == 1 or _has_windows(model):
        return []
    first, last = min(prompts), max(prompts)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return first[: min(sum(1 for _ in same), min(map(len, prompts)) - 1)]


def _has_windows(model: "PreTrainedModel") -> bool:
    """Whether some layer sees only a number of last tokens."""
    config = model.config
    if getattr(config, "layer_types", None):
        return set(config.layer_types) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None


def _groups(lengths: list[int], tokens: int) -> Iterator[slice]:
    """Consecutive rows, each group at most `tokens` when padded to its longest (its first) row."""
    start = 0
    for row in range(1, len(lengths)):
        if (row + 1 - start) * lengths[start] > tokens:
            yield slice(start, row)
            start = row
    yield slice(start, len(lengths))


def _pad_left(
    prompts: list[list[int]], device: torch.device, before: int = 0
) -> tuple[Tensor, Tensor]:
    """Prompts to input_ids (batch, longest), padded on the left with 0, and attention mask
    (batch, before + longest) if that many tokens were read before."""
    width = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.ones(len(prompts), before + width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, before : before + width - len(prompt)] = 0
    return input_ids.to(device), mask.to(device)
