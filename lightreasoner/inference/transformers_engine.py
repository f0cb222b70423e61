"""The engine that decodes in this process, on transformers: no server needed."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lightreasoner.inference import loading, prompts
from lightreasoner.inference.batching import shard_prompts
from lightreasoner.inference.decode import decode
from lightreasoner.inference.engine import Completion, Response
from lightreasoner.storage.artifacts import Artifact

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightreasoner.config import Compute, Evaluate

TAIL = 24
"""How many of the last tokens are searched for a stop word after each new one."""


class InProcess:
    """A model as an engine for `total` prompts of typically `tokens` tokens."""

    name = "transformers"

    def __init__(
        self,
        model: Artifact,
        tokenizer: "PreTrainedTokenizerBase",
        config: "Evaluate",
        compute: "Compute",
        tokens: int,
        total: int,
    ):
        self.tokenizer, self.config = tokenizer, config
        self.stop_ids = loading.stop_ids(model.path, tokenizer)
        self.model = loading.load_model(model.path, compute.device, compute.dtype, model.derivation)
        self.rows = compute.batch_size
        self.batch_size = shard_prompts(self.model, tokens + config.max_new_tokens, total, compute)

    def respond(self, asked: Sequence[str], seeds: Sequence[int]) -> list[Response]:
        """One response per prompt. Raises ModelError for logits that are not finite."""
        style = self.config.style
        completions = decode(
            self.model,
            [prompts.tokenize(prompt, style, self.tokenizer) for prompt in asked],
            self.stop_ids,
            self.config.max_new_tokens,
            self.config.temperature,
            seeds,
            self.rows,
            is_over=stop_word_ends(style, self.tokenizer),
        )
        return [response_of(each, style, self.tokenizer) for each in completions]


def response_of(
    completion: Completion, style: str, tokenizer: "PreTrainedTokenizerBase"
) -> Response:
    """A completion as text."""
    stopped = completion.finish_reason == "stop"
    text, cut = prompts.response(completion.ids, stopped, style, tokenizer)
    return Response(text, len(completion.ids), "stop" if cut else completion.finish_reason)


def stop_word_ends(style: str, tokenizer: "PreTrainedTokenizerBase") -> Callable[[list[int]], bool]:
    """Whether ids end with one of the style's stop words."""
    words = prompts.STOP_WORDS.get(style, ())

    def is_over(ids: list[int]) -> bool:
        tail = tokenizer.decode(ids[-TAIL:]) if words else ""
        return any(word in tail for word in words)

    return is_over
