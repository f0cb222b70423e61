"""Attention masks that are made without a look at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor


@contextmanager
def unread_masks() -> Iterator[None]:
    """transformers makes an attention mask of every padding mask that it is given.

    By itself it first asks the device whether all of it is seen, at every forward pass, to leave
    out such masks. Whoever pads knows that, and gives None then.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS

    before = MASKS["sdpa"]
    MASKS["sdpa"] = partial(_unread, before)
    try:
        yield
    finally:
        MASKS["sdpa"] = before


def _unread(
    make: Any, *, attention_mask: Tensor | None, allow_is_causal_skip: bool = True, **options: Any
) -> Tensor | None:
    may_skip = allow_is_causal_skip and attention_mask is None
    made: Tensor | None = make(
        attention_mask=attention_mask, allow_is_causal_skip=may_skip, **options
    )
    return made
