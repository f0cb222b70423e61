"""Who writes a model's text: what an engine is, and what it gives back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass
class Completion:
    """The ids that a model wrote after a prompt; the id that ended it is the last."""

    ids: list[int]
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Response:
    """A model's text after a prompt, cut at the first stop word and stripped at both ends.

    `tokens` counts what the model wrote, the token that ended it included; `finish_reason` is
    "length" if it ran to its limit of new tokens and no stop word cut it.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """A model that answers prompts, best asked for `batch_size` at a time; `name` says where it
    runs."""

    @property
    def name(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    def respond(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Response]:
        """One response per prompt, in the prompts' order; each draws by its own seed, if at all."""
        ...
