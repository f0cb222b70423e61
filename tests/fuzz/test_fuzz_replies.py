"""Fuzz: what an endpoint answers, by its JSON and by its bytes, headers included."""

import json
import time
from collections.abc import Iterator
from random import Random
from socket import SHUT_WR, socket
from typing import Any

import pytest
from bounded_servers import Server, serving
from fuzzing import ODD_TEXTS, damaged, damaged_tree

from lightreasoner.serving.openai_engine import Endpoint

GOOD = {
    "id": "x",
    "object": "text_completion",
    "choices": [{"index": 0, "text": "7", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}
HEADERS = (
    b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", b"Content-Type: text/x; charset=bz2",
    b"Retry-After: 999999999999", b"Location: http://127.0.0.1:1/v1", b"x-should-retry: true",
    b"Set-Cookie: a=b", b"Connection: upgrade", b"Content-Length: 3", b"\xff: \xff", b"X:" * 9_000,
)  # fmt: skip


def reply(rng: Random, good: Any) -> bytes:
    body = json.dumps(damaged_tree(rng, good) if rng.random() < 0.8 else good).encode()
    status = rng.choice([b"200 OK"] * 12 + [b"204 No", b"302 There", b"400 No", b"500 No", b"777"])
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), b"Connection: close"]
    if rng.random() < 0.3:
        lines.append(rng.choice(HEADERS))
    whole = b"\r\n".join([*lines, b"", body])
    return damaged(rng, whole) if rng.random() < 0.4 else whole


class Scripted:
    """Says `answer` to each caller, and hangs up."""

    answer = b""

    def __call__(self, caller: socket) -> None:
        caller.sendall(self.answer)
        caller.shutdown(SHUT_WR)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, Scripted]]:
    script = Scripted()
    with serving(script) as server:
        yield server, script


@pytest.mark.parametrize("good", [GOOD, MODELS], ids=["completion", "models"])
def test_odd_replies(fuzz: Any, served: tuple[Server, Scripted], good: Any) -> None:
    server, script = served

    def attempt(answer: bytes) -> None:
        script.answer = answer
        asking = Endpoint(server.url, None, 8, 0.0, ("</s>",), retries=0, timeout=3.0)
        since = time.monotonic()
        try:
            if good is MODELS:
                asking.connect()
            else:
                (found,) = asking.respond(["1+1"], [0])
                found.text.encode()
        finally:
            assert time.monotonic() - since < 30

    fuzz(lambda rng: reply(rng, good), attempt, quick=5)


def test_odd_urls(fuzz: Any) -> None:
    """None is asked: that each is one of a server or refused is enough."""

    def make(rng: Random) -> str:
        parts = ["http://", "https://", "h", ":", "1", "99999", "@", "/v1", "[", "]", "::1", "%00"]
        return "".join(rng.choice((*parts, *ODD_TEXTS[:16])) for _ in range(rng.randint(1, 7)))

    fuzz(make, lambda url: Endpoint(url, "m", 8, 0.0, ()), quick=100)
