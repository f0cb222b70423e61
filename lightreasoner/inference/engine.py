"""Who writes a model's text: what an engine gives back, and what identifies it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from lightreasoner.config import Compute


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


def identity(compute: "Compute") -> str:
    """The engine as it enters fingerprints: its name, version and dtype.

    Those of transformers are among the packages and settings of every fingerprint. Of endpoints it
    is what the user declares, and marked as such. Raises EndpointError without a vLLM.
    """
    if compute.engine == "transformers":
        return "transformers"
    if compute.endpoints:
        return f"vLLM {compute.endpoint_version}, {compute.endpoint_dtype}, endpoints"
    from lightreasoner.inference.vllm_server import installed_version

    return f"vLLM {installed_version(compute.device)}, {compute.dtype}"
