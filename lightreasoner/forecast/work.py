"""FLOP, bytes and passes of a model's work: pure formulas, on means over the rows.

A product of (n, a) with (a, b) is 2 n a b FLOP, as torch's FlopCounterMode counts. So a token costs
2 x the entries of all layers' matrices, a pair of a query and a key 4 x layers x heads x head size
(scores, then the sum of values; what the causal mask hides is computed all the same, unless a
kernel leaves it out), a position at which the LM head runs 2 x hidden x vocabulary. Bytes are those
of the weights, once a pass, of the keys and values that a decoded token reads, and of logits;
activations are left out.
"""

import math
from dataclasses import dataclass, fields

from lightreasoner.config import Finetune
from lightreasoner.forecast.shapes import ITEM_BYTES, Shape, targets

TRAINING_PASSES = 3
"""A pass forward, and one backward that launches about twice as much."""


@dataclass(frozen=True)
class Work:
    """What is to be computed, and how often a layer is called for it."""

    flop: float = 0.0
    bytes: float = 0.0
    layer_calls: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )

    def times(self, n: float) -> "Work":
        """The same work n times over."""
        return Work(n * self.flop, n * self.bytes, n * self.layer_calls)


def attention(shape: Shape, pairs: float) -> float:
    """FLOP of so many pairs of a query and a key, in all layers."""
    return 4.0 * shape.num_hidden_layers * shape.width * pairs


def read(shape: Shape, rows: float, tokens: float, logits: float, batch: float, dtype: str) -> Work:
    """Rows of `tokens` tokens read whole, `batch` tokens a pass; the head at `logits` positions."""
    passes = math.ceil(rows * tokens / batch)
    flop = 2.0 * shape.body * rows * tokens + attention(shape, rows * tokens**2)
    weights = shape.body + (shape.head if logits else 0)
    return Work(
        flop + 2.0 * shape.head * logits,
        ITEM_BYTES[dtype] * (passes * weights + shape.vocab_size * logits),
        passes * shape.num_hidden_layers,
    )


def decode(shape: Shape, rows: float, prompt: float, new: float, steps: float, dtype: str) -> Work:
    """`new` tokens after each of so many prompts that have been read, in `steps` batched steps.

    The first token is the prompt's own; each further one is read and sees all before it.
    """
    tokens = rows * max(0.0, new - 1)
    pairs = tokens * (prompt + new / 2)
    flop = 2.0 * (shape.body + shape.head) * tokens + attention(shape, pairs)
    each = steps * (shape.body + shape.head) + shape.vocab_size * tokens
    moved = ITEM_BYTES[dtype] * each + shape.cache_bytes(dtype) * pairs
    return Work(flop, moved, steps * shape.num_hidden_layers)


def steps(rows: float, mean: float, longest: float, slots: float, shard: float) -> float:
    """Batched steps in which `rows` completions of a mean length are written, `slots` at a time.

    A row that ends gives its slot to the next one of its shard, so that slots are full until none
    waits; then the longest completion ends alone, at most `longest - mean` steps later.
    """
    shards = math.ceil(rows / shard)
    full = max(1.0, rows / shards / min(slots, rows / shards))
    return shards * (full * mean + (longest - mean))


def train(
    shape: Shape,
    config: Finetune,
    rows: float,
    tokens: float,
    labels: float,
    passes: float,
    dtype: str,
    recompute: bool,
) -> Work:
    """LoRA updates on rows of `tokens` tokens, the head at `labels` positions, in so many passes.

    The base's matrices are fixed, so that backward is one product a matrix, not two; the lowest
    layer's queries, keys and values pass nothing further down. LoRA's own matrices take the usual
    two. The head runs forward and, for its states alone, back. `recompute` runs forward again.
    """
    adapter, of_attention = shape.adapter(config), attention(shape, rows * tokens**2)
    lowest = ("q_proj", "k_proj", "v_proj")
    inputs = sum(shape.linear[name][0] for name in targets(config) if name in lowest)
    forward = 2.0 * (shape.body + adapter) * rows * tokens + of_attention
    entries = shape.body - shape.entries(lowest) + 2 * adapter - config.r * inputs
    backward = 2.0 * entries * rows * tokens + 2 * of_attention
    times = TRAINING_PASSES + recompute
    moved = passes * times * shape.body + 2 * shape.head * passes + 2 * shape.vocab_size * labels
    return Work(
        (1 + recompute) * forward + backward + 4.0 * shape.head * labels,
        ITEM_BYTES[dtype] * moved,
        passes * times * shape.num_hidden_layers,
    )
