"""The engine that asks an OpenAI-compatible server for responses (`POST /v1/completions`).

Prompts go out as text, byte for byte; no chat template of the server's touches them (in token ids
vLLM is asked: vllm_endpoint.py). Transient failures (429, 408, 409, 5xx, a lost connection, a
time-out) are retried by the openai client, after 0.5, 1, 2, 4, 8, 8, ... seconds less up to a
quarter, or after what Retry-After says, up to two minutes. All others raise EndpointError at once.
A redirection is not followed: the prompts are for the server that was named. Bytes and seconds of
an answer have limits (bounded_http.py).

The environment's proxies and OPENAI_* variables are ignored, except OPENAI_CUSTOM_HEADERS, which
the client itself reads. docs/how-to/serving.md says how to start a server, and what it must do.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StrictInt, StrictStr

from lightreasoner.errors import EndpointError
from lightreasoner.inference.engine import Response
from lightreasoner.inference.prompts import cut
from lightreasoner.serving.endpoint_errors import (
    START,
    clipped,
    excerpt,
    failure_message,
    fault,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from openai import AsyncOpenAI

ANSWER_BYTES, TOKEN_BYTES = 1 << 20, 1 << 10
"""The largest answer: so much, and so much more per token that is asked for."""


class _Usage(BaseModel):
    completion_tokens: StrictInt | None = Field(None, ge=0, lt=1 << 31)


class _Choice(BaseModel):
    text: StrictStr
    finish_reason: Literal["stop", "length"]


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage | None = None


class _Model(BaseModel):
    id: StrictStr = Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")


class _Models(BaseModel):
    data: list[_Model]


_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True)
class Endpoint:
    """A server, and how to ask it.

    `url` ends in /v1. Without a `model`, `connect` finds it. At `temperature` 0 decoding is greedy
    and no seed is sent. `stop` holds the words of `prompts.stop_words`. `concurrency` requests are
    in flight at a time; each is repeated up to `retries` times. An answer must be there whole
    `timeout` seconds after it was asked for, waiting in the server's queue included; one that has
    begun by then is not asked for again. The tokens of a response are the server's count. A server
    on this machine may listen on the file `socket`.
    """

    url: str
    model: str | None
    max_new_tokens: int
    temperature: float
    stop: Sequence[str]
    concurrency: int = 16
    retries: int = 5
    timeout: float = 600.0
    api_key: str | None = field(default=None, repr=False)
    socket: Path | None = None

    def __post_init__(self) -> None:
        if not _is_server(self.url):
            # Not quoted: a password may be in it.
            raise EndpointError(
                "endpoint: the url must be http://HOST:PORT/v1 or https://..., without a user name "
                "or password in it"
            )
        if self.api_key and not re.fullmatch("[!-~]+", self.api_key):
            raise EndpointError(
                "endpoint: the API key has spaces, line breaks or letters beyond ASCII; give it "
                "as the server has it"
            )

    @property
    def name(self) -> str:
        """The server and what it serves."""
        return f"{self.url} {self.model}"

    @property
    def batch_size(self) -> int:
        """Enough that a slow response leaves few of the slots empty for long."""
        return 8 * self.concurrency

    def connect(self) -> Self:
        """This endpoint with the name of a model that the server says it serves (GET /v1/models).

        Raises EndpointError if the server does not answer, does not serve `model`, or, where none
        is named, serves none or several.
        """
        served = asyncio.run(self.served())
        names = clipped(", ".join(served)) or "nothing"
        if self.model is None and len(served) != 1:
            raise self.error(f"serves {names}; name one model, or {START}")
        if self.model is not None and self.model not in served:
            raise self.error(
                f"serves {names}, not the model {self.model!r}; name one that it serves, or "
                f"{START} --served-model-name {self.model}"
            )
        return replace(self, model=self.model or served[0])

    def respond(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Response]:
        """One response per prompt, in the prompts' order; a seed is sent if temperature is above 0.

        Raises EndpointError for the first request that fails for good; the others are cancelled.
        Call it where no event loop runs.
        """
        return asyncio.run(self._ask_all(list(zip(prompts, seeds, strict=True))))

    def client(self) -> "AsyncOpenAI":
        """A client that asks this server alone; to be closed."""
        import httpx
        from openai import AsyncOpenAI

        from lightreasoner.serving.bounded_http import BoundedTransport

        most = ANSWER_BYTES + TOKEN_BYTES * self.max_new_tokens
        transport = BoundedTransport(most, self.timeout, self.socket)
        # Empty strings: the client would look for what is None in the environment.
        return AsyncOpenAI(
            base_url=self.url,
            api_key=self.api_key or "none",
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            max_retries=self.retries,
            timeout=self.timeout,
            # It takes httpx's clients as well as those that its annotation names.
            http_client=httpx.AsyncClient(transport=transport, trust_env=False),  # type: ignore[arg-type]
        )

    async def served(self) -> list[str]:
        """What the server says it serves."""
        async with self.client() as client:
            listed = await self.answer(client.models.with_raw_response.list(), _Models)
        return [model.id for model in listed.data]

    async def _ask_all(self, asked: list[tuple[str, int]]) -> list[Response]:
        slots = asyncio.Semaphore(self.concurrency)
        async with self.client() as client:

            async def ask(prompt: str, seed: int) -> Response:
                async with slots:
                    return await self._ask(client, prompt, seed)

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(prompt, seed)) for prompt, seed in asked]
            except* EndpointError as failed:
                first = failed.exceptions[0]
            else:
                return [task.result() for task in tasks]
        raise first

    async def _ask(self, client: "AsyncOpenAI", prompt: str, seed: int) -> Response:
        return self._response(await self.answer(self.request(client, prompt, seed), _Completion))

    def request(
        self, client: "AsyncOpenAI", prompt: str | list[int], seed: int, **more: object
    ) -> "Awaitable[Any]":
        """A completion's request, with `more` than OpenAI's fields."""
        from openai import omit

        # top_p and the penalty: some servers take a model's own sampling defaults for what is left
        # out, and transformers' reads its repetition penalty from here.
        return client.completions.with_raw_response.create(
            model=self.model or "",
            prompt=prompt,
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=1.0,
            frequency_penalty=0.0,
            seed=seed if self.temperature > 0 else omit,
            stop=list(self.stop) or omit,
            extra_body=more,
        )

    def _response(self, answer: _Completion) -> Response:
        (choice,) = answer.choices
        text, stopped = cut(choice.text, self.stop)
        return Response(text, self._tokens(answer), "stop" if stopped else choice.finish_reason)

    def _tokens(self, answer: _Completion) -> int:
        if answer.usage is None or answer.usage.completion_tokens is None:
            raise self.error(
                "does not say how many tokens it wrote (usage.completion_tokens); use a server "
                "that does, such as vLLM"
            )
        return answer.usage.completion_tokens

    async def answer(self, request: "Awaitable[Any]", kind: type[_Answer]) -> _Answer:
        """What the server answered, if it is what was asked for. Raises EndpointError."""
        body = await self.body(request)
        try:
            return kind.model_validate_json(well_formed(body))
        except ValueError as error:
            raise self.error(
                f"answered what is not an OpenAI answer ({fault(error)}): "
                f"{excerpt(body.decode(errors='replace'))}; check that the url is the server's, "
                "up to /v1"
            ) from error

    async def body(self, request: "Awaitable[Any]") -> bytes:
        """The bytes of an answer. Raises EndpointError."""
        from openai import APIError

        from lightreasoner.serving.bounded_http import UnboundedError

        try:
            answer: bytes = (await request).content
        except APIError as error:
            raise self.error(failure_message(error, self.timeout)) from error
        except UnboundedError as error:
            raise self.error(f"{error}; use a server that answers as OpenAI's does") from error
        return answer

    def error(self, what: str) -> EndpointError:
        """An error about `what` the server did; a key that it repeats is masked."""
        masked = what.replace(self.api_key, "***") if self.api_key else what
        return EndpointError(f"endpoint {self.url}: {masked}")


def _is_server(url: str) -> bool:
    """Whether a URL is one of http or https that names a host and nobody."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError, too
    except ValueError:
        return False
    named = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    return bool(named) and url.isascii() and url.isprintable() and " " not in url
