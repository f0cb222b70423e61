"""A vLLM server that is asked in token ids and answers in them; our stop ids end an answer.

No tokenizer or template of the server's has a say. An answer that cannot be right is an error.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import httpx
from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr

from lightreasoner.inference.engine import Completion
from lightreasoner.serving.endpoint_errors import clipped
from lightreasoner.serving.openai_engine import Endpoint
from lightreasoner.untrusted import shown

if TYPE_CHECKING:
    from openai import AsyncOpenAI

STILL = 600.0
"""Seconds without a new token after which a busy server hangs."""

FIRST = 60.0
"""Seconds for each of the few things that a server is asked before anything else."""

MADE = re.compile(
    rb"^vllm:(?:prompt|generation)_tokens_total\{[^}\n]*\} ([0-9.e+]+)$", re.MULTILINE
)
"""The tokens that a server has read and written, in what it says at /metrics."""


class _Logprobs(BaseModel):
    token_logprobs: list[Annotated[StrictFloat, Field(allow_inf_nan=False)]] = Field(min_length=1)


class _Choice(BaseModel):
    token_ids: list[StrictInt]
    prompt_token_ids: list[StrictInt]
    logprobs: _Logprobs | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


class _Version(BaseModel):
    version: StrictStr = Field(max_length=100)


@dataclass(frozen=True)
class Asked:
    """What is to be written: for each of `prompts`, drawn by its entry of `seeds` if at all, up to
    `max_new_tokens` ids, a stop id, or a stop word, which `is_over` finds in ids."""

    prompts: Sequence[list[int]]
    seeds: Sequence[int]
    stop_ids: set[int]
    max_new_tokens: int
    temperature: float
    stop_words: tuple[str, ...] = ()
    is_over: Callable[[list[int]], bool] = lambda ids: False


@dataclass(frozen=True, kw_only=True)
class TokenEndpoint(Endpoint):
    """A server of vLLM's `version` that serves the model in `directory`, which has `size` ids."""

    asked: Asked
    version: str
    size: int
    directory: Path

    def serves(self) -> bool:
        """Whether the server lists the model. Raises EndpointError if it does not answer."""
        return self.model in asyncio.run(replace(self, timeout=FIRST).served())

    def connect(self) -> Self:
        """This server, if it serves the model, is of the version, and gives ids and finite numbers.

        Raises EndpointError.
        """
        asyncio.run(replace(self, timeout=FIRST)._check())
        return self

    async def _check(self) -> None:
        served = await self.served()
        if self.model not in served:
            names = clipped(", ".join(served)) or "nothing"
            raise self.error(
                f"serves {names}, not {self.model}; start it with `vllm serve {self.directory} "
                f"--served-model-name {self.model} --generation-config vllm`"
            )
        async with self.client() as client:
            found = (await self.answer(self._get(client, "version"), _Version)).version
            if found != self.version:
                raise self.error(
                    f"is vLLM {shown(found)}, not {self.version}; set compute.endpoint_version"
                )
            request = self._request(client, 0, max_tokens=1, logprobs=1)
            (choice,) = (await self.answer(request, _Completion)).choices
            if choice.logprobs is None:
                raise self.error("gives no log probabilities; use vLLM")
            if not await self._made(client):
                raise self.error(
                    "counts no tokens at /metrics; start it without --disable-log-stats"
                )

    async def complete(self, client: "AsyncOpenAI", row: int) -> Completion:
        """The completion of a prompt. Raises EndpointError for one that cannot be."""
        (choice,) = (await self.answer(self._request(client, row), _Completion)).choices
        if wrong := self._wrong(self.asked.prompts[row], choice):
            raise self.error(f"{wrong}; start it anew, and run again")
        stopped = choice.token_ids[-1] in self.asked.stop_ids
        return Completion(choice.token_ids, "stop" if stopped else "length")

    def _wrong(self, prompt: list[int], choice: _Choice) -> str:
        """What cannot be in an answer; empty if nothing."""
        ids, asked = choice.token_ids, self.asked
        if choice.prompt_token_ids != prompt:
            return "answered another prompt than it was asked"
        if not 0 < len(ids) <= asked.max_new_tokens:
            return f"wrote {len(ids):,} tokens; the limit is {asked.max_new_tokens:,}"
        if odd := [id_ for id_ in ids if not 0 <= id_ < self.size]:
            return f"wrote the token {shown(odd[0], 40)}; the model has {self.size:,}"
        if not asked.stop_ids.isdisjoint(ids[:-1]):
            return "went on after an end token"
        if ids[-1] not in asked.stop_ids and len(ids) < asked.max_new_tokens:
            return "" if asked.is_over(ids) else f"stopped after {len(ids):,} tokens without an end"
        return ""

    def _request(self, client: "AsyncOpenAI", row: int, **more: int) -> "Awaitable[Any]":
        return self.request(
            client,
            self.asked.prompts[row],
            self.asked.seeds[row],
            stop_token_ids=sorted(self.asked.stop_ids),
            return_token_ids=True,
            skip_special_tokens=False,  # where it looks for stop words: so does decoding in process
            # none of the model's own sampling defaults
            top_k=0,
            min_p=0.0,
            presence_penalty=0.0,
            repetition_penalty=1.0,
            **more,
        )

    def _get(self, client: "AsyncOpenAI", path: str) -> "Awaitable[httpx.Response]":
        """What is not under /v1."""
        root = self.url.rstrip("/").removesuffix("/v1")
        return client.get(f"{root}/{path}", cast_to=httpx.Response)

    async def watch(self, client: "AsyncOpenAI", busy: Mapping[str, int]) -> None:
        """Raise EndpointError once the server makes no token for STILL seconds, though it is asked
        for some: `busy` counts by url."""
        before = b""
        while True:
            await asyncio.sleep(STILL)
            try:
                async with asyncio.timeout(STILL):
                    now = await self._made(client)
            except TimeoutError:
                now = before
            if now == before and busy[self.url]:
                raise self.error(f"hangs: no new token for {STILL:g} s; start it anew, run again")
            before = now if busy[self.url] else b""

    async def _made(self, client: "AsyncOpenAI") -> bytes:
        """The tokens that the server has made, by its own counters."""
        return b" ".join(MADE.findall(await self.body(self._get(client, "metrics"))))
