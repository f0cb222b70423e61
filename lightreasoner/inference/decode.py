"""Batched decoding, greedy unless a temperature is given, on raw logits.

The longest prompts go first. A row that ends leaves its place to a prompt that waits: once a
sixteenth of the rows has ended, as many prompts are read together and join the others; when none
waits any more, ended rows leave the batch. Token ids go in and come out; text is never tokenised
again.

A GPU works through what it is asked while the host asks for more, unless the host wants to know
something. So it writes several tokens before the host looks at them: what a row has written past
its end is thrown away, and what the other rows write is the same.
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
from lightreasoner.inference.drawing import UNSOUND, choose, uniforms
from lightreasoner.inference.engine import Completion
from lightreasoner.inference.masks import unread_masks
from lightreasoner.inference.transfer import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDED_SHARE = 16
"""One in this many rows has ended before the others wait while prompts are read, or rows moved."""

LOOK_EVERY = {"cpu": 1, "cuda": 16}
"""Tokens of a row from one look of the host to the next."""


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

    slots = min(rows, len(prompts))
    with unread_masks():
        _Batch(model, prompts, completions, draws, temperature, slots, max_new_tokens).run(is_ended)
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
    """Prompts that wait, and slots, each with the row of a prompt that `held` names.

    On the device each slot has its last token, `ids` (slots,), at `positions` (slots,).
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: list[list[int]],
        completions: list[Completion],
        draws: list[Random],
        temperature: float,
        slots: int,
        max_new_tokens: int,
    ):
        self.prompts, self.completions = prompts, completions
        self.draws, self.temperature = draws, temperature
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
        self.waiting = deque(order)
        self.rows = _Rows(model, slots, _shared_prefix(model, prompts))
        self.held, self.is_live = [0] * slots, [False] * slots
        self.ids = torch.zeros(slots, dtype=torch.long, device=model.device)
        self.positions = torch.zeros_like(self.ids)
        self.max_new_tokens = max_new_tokens
        self.last_position = max(map(len, prompts)) + max_new_tokens - 1

    def run(self, is_ended: Callable[[Completion], bool]) -> None:
        """Write all completions, each until `is_ended`."""
        while self.waiting or any(self.is_live):
            free = [slot for slot, is_live in enumerate(self.is_live) if not is_live]
            are_many = len(free) >= max(1, len(self.held) // ENDED_SHARE)
            if are_many and self.waiting:
                slots, ids = self._admit(free)
                self._keep(slots, ids[None], is_ended)
                continue
            if are_many:
                self._drop_ended()
            self._keep(range(len(self.held)), self._write(), is_ended)

    def _admit(self, free: list[int]) -> tuple[list[int], Tensor]:
        """Read prompts into free slots; these, and the first token of each."""
        slots = free[: len(self.waiting)]
        found = [self.waiting.popleft() for _ in slots]
        prompts = [self.prompts[index] for index in found]
        logits = self.rows.prefill(slots, prompts, self._live())
        for slot, index in zip(slots, found, strict=True):
            self.held[slot], self.is_live[slot] = index, True
        ids = choose(logits, self.temperature, self._numbers(found, 1)[0])
        at, lengths = to_device([slots, [len(prompt) for prompt in prompts]], self.ids.device)
        self.ids[at], self.positions[at] = ids.clamp(min=0), lengths
        return slots, ids

    def _write(self) -> Tensor:
        """The next tokens of all slots (steps, slots), as many as pass before the host looks."""
        live = [index for index, is_live in zip(self.held, self.is_live, strict=True) if is_live]
        left = self.max_new_tokens - min(len(self.completions[index].ids) for index in live)
        steps = min(LOOK_EVERY[self.ids.device.type], left)
        written = []
        for numbers in self._numbers(self.held, steps):
            logits = self.rows.step(self.ids, self.positions)
            ids = choose(logits, self.temperature, numbers)
            written.append(ids)
            self.ids = ids.clamp(min=0)
            self.positions = (self.positions + 1).clamp_(max=self.last_position)
        return torch.stack(written)

    def _numbers(self, held: list[int], steps: int) -> Sequence[Tensor | None]:
        """What each of so many steps draws by; nothing if it is greedy."""
        if self.temperature == 0:
            return [None] * steps
        generators = [self.draws[index] for index in held]
        return uniforms(generators, steps, self.ids.device).unbind()

    def _keep(
        self, slots: Sequence[int], ids: Tensor, is_ended: Callable[[Completion], bool]
    ) -> None:
        """Read what `slots` wrote, `ids` (steps, slots): each live row's tokens until its end."""
        for slot, tokens in zip(slots, ids.T.tolist(), strict=True):
            completion = self.completions[self.held[slot]]
            for token in tokens:
                if not self.is_live[slot]:
                    break
                _check_sound(token)
                completion.ids.append(token)
                self.is_live[slot] = not is_ended(completion)

    def _drop_ended(self) -> None:
        live = self._live()
        kept = self.rows.keep(live)
        self.ids, self.positions = self.ids[kept], self.positions[kept]
        self.held, self.is_live = [self.held[slot] for slot in live], [True] * len(live)

    def _live(self) -> list[int]:
        return [slot for slot, is_live in enumerate(self.is_live) if is_live]


def _check_sound(token: int) -> None:
    if token == UNSOUND:
        raise ModelError(
            "decoding: the model gave NaN or infinite logits; try compute.dtype float32 or "
            "check the weights"
        )


class _Rows:
    """What the model has read: a cache of `slots` rows that end in one column.

    The mask (slots, columns) is 0 where a row sees nothing, before its first token (`starts`, of
    all columns since the last start) or between a beginning that all share and its own rest
    (`gaps`): the host knows without asking the device. What all prompts begin with (a system
    prompt, few-shot examples) is read once.
    """

    def __init__(self, model: "PreTrainedModel", slots: int, prefix: list[int]):
        self.model, self.cache = model, new_cache(model)
        self.mask = torch.zeros(slots, 0, dtype=torch.bool, device=model.device)
        self.starts, self.gaps, self.end = [0] * slots, [0] * slots, 0
        self.prefix, self.shared = new_cache(model), len(prefix)
        if prefix:
            input_ids, _, positions = _pad_left([prefix], model.device)
            self._forward(input_ids, positions, None, self.prefix)

    def prefill(self, slots: list[int], prompts: list[list[int]], live: list[int]) -> Tensor:
        """Read prompts, the longest first, into `slots`; logits (prompts, vocab) after each.

        None may be longer than what a `live` slot has read. Rests of similar length are read
        together, so that little work goes into padding.
        """
        if live:
            self._trim(live)
        else:
            self.end = len(prompts[0])
            self.starts, self.gaps = [self.end] * len(self.mask), [0] * len(self.mask)
            self.mask = self.mask.new_zeros(len(self.mask), self.end)
        rests = [prompt[self.shared :] for prompt in prompts]
        tokens = PREFILL_TOKENS[self.model.device.type]
        return torch.cat(
            [
                self._prefill(slots[part], rests[part])
                for part in _groups([len(rest) for rest in rests], tokens)
            ]
        )

    def _prefill(self, slots: list[int], rests: list[list[int]]) -> Tensor:
        part = Cache(layers=[layer.repeated(len(rests)) for layer in self.prefix.layers])
        input_ids, mask, positions = _pad_left(rests, self.model.device, self.shared)
        padding = [len(rests[0]) - len(rest) for rest in rests]
        logits = self._forward(input_ids, positions, mask if any(padding) else None, part)
        for slot, columns in zip(slots, padding, strict=True):
            self.gaps[slot] = columns if self.shared else 0
            self.starts[slot] = self.end - mask.shape[1] + columns - self.gaps[slot]
        columns, at = self.mask.shape[1], to_device(slots, self.mask.device)
        self.mask[at] = pad(mask, (columns - mask.shape[1], 0))
        for layer, read in zip(self.cache.layers, part.layers, strict=True):
            layer.place(read, at, len(self.mask), columns)
        return logits

    def step(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits (slots, vocab) after one more token of each row, `ids` at `positions` (slots,)."""
        self.mask, self.end = pad(self.mask, (0, 1), value=True), self.end + 1
        sees_all = max(self.starts) <= self.end - self.mask.shape[1] and not any(self.gaps)
        mask = None if sees_all else self.mask
        return self._forward(ids[:, None], positions[:, None], mask, self.cache)

    def keep(self, slots: list[int]) -> Tensor:
        """Keep these rows only; their slots as a tensor."""
        self._trim(slots)
        self.starts, self.gaps = ([of[slot] for slot in slots] for of in (self.starts, self.gaps))
        kept = to_device(slots, self.mask.device)
        self.mask = self.mask[kept]
        for layer in self.cache.layers:
            layer.keep(kept)
        return kept

    def _trim(self, slots: list[int]) -> None:
        """Leave out the columns before the first that one of `slots` sees."""
        first = self.end - self.mask.shape[1]
        columns = min(self.starts[slot] for slot in slots) - first
        self.mask = self.mask[:, columns:]
        for layer in self.cache.layers:
            layer.trim(columns)

    def _forward(
        self, input_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """Logits (rows, vocab) after the last of `input_ids` (rows, new), which stand at
        `positions`; mask (rows, all), None where all is seen."""
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts to input_ids (batch, longest), padded on the left with 0, attention mask
    (batch, before + longest) if that many tokens were read before, and positions, as input_ids."""
    width = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.ones(len(prompts), before + width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, before : before + width - len(prompt)] = False
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, before:]
    return to_device(input_ids, device), to_device(mask, device), to_device(positions, device)
