"""vLLM asked in token ids: what is asked, and what is not believed."""

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import standin_vllm
from standin_vllm import Standin, choice, standing_in

from lightreasoner.errors import EndpointError
from lightreasoner.inference.engine import Completion
from lightreasoner.serving import vllm_endpoint
from lightreasoner.serving.vllm_endpoint import Asked, TokenEndpoint

ASKED = Asked([[3, 4], [5]], [7, 8], {90, 91}, 4, 0.0)


def endpoint(server: Standin, asked: Asked = ASKED, **changes: Any) -> TokenEndpoint:
    defaults = {"retries": 0, "version": standin_vllm.VERSION, "size": 100, "directory": Path("D")}
    sampling = (asked.max_new_tokens, asked.temperature, asked.stop_words)
    return TokenEndpoint(server.url, "m", *sampling, asked=asked, **(defaults | changes))


def complete(server: Standin, row: int = 0, asked: Asked = ASKED) -> Completion:
    async def ask() -> Completion:
        at = endpoint(server, asked)
        async with at.client() as client:
            return await at.complete(client, row)

    return asyncio.run(ask())


def test_what_is_asked() -> None:
    """Ids, our stop ids, and none of the model's own sampling defaults; a seed if it draws."""
    with standing_in() as server:
        complete(server)
        drawn = Asked([[5]], [2**62], {90}, 4, 0.5, ("Question:",))
        complete(server, 0, drawn)
    greedy, drawing = (asked for asked, _ in server.asked)
    assert greedy == {
        "model": "m", "prompt": [3, 4], "max_tokens": 4, "temperature": 0.0, "top_p": 1.0,
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "top_k": 0,
        "min_p": 0.0, "stop_token_ids": [90, 91], "return_token_ids": True,
        "skip_special_tokens": False,
    }  # fmt: skip
    assert (drawing["seed"], drawing["temperature"], drawing["stop"]) == (
        2**62, 0.5, ["Question:"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([7, 91], Completion([7, 91], "stop")),
        ([7, 8, 9, 90], Completion([7, 8, 9, 90], "stop")),  # at the limit
        ([7, 8, 9, 10], Completion([7, 8, 9, 10], "length")),
        ([90], Completion([90], "stop")),
    ],
)
def test_how_it_ended_is_read_off_the_ids(ids: list[int], found: Completion) -> None:
    with standing_in(answer=lambda asked: choice(asked) | {"token_ids": ids}) as server:
        assert complete(server) == found


def test_a_stop_word_ends_where_decoding_in_process_would() -> None:
    asked = Asked([[3]], [0], {90}, 4, 0.0, ("!",), lambda ids: ids[-1] == 33)
    with standing_in(answer=lambda asked: choice(asked) | {"token_ids": [7, 33]}) as server:
        assert complete(server, 0, asked) == Completion([7, 33], "length")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt_token_ids": [3, 5]}, "answered another prompt than it was asked; "),
        ({"token_ids": []}, "wrote 0 tokens; the limit is 4; "),
        ({"token_ids": [7] * 5}, "wrote 5 tokens; the limit is 4; "),
        ({"token_ids": [7] * 100_000}, "wrote 100,000 tokens; the limit is 4; "),
        ({"token_ids": [7, 100, 8, 90]}, "wrote the token 100; the model has 100; "),
        ({"token_ids": [7, -1, 8, 90]}, "wrote the token -1; the model has 100; "),
        ({"token_ids": [7, 90, 8, 90]}, "went on after an end token; "),
        ({"token_ids": [7, 8]}, "stopped after 2 tokens without an end; "),
        ({"token_ids": [7, "8"]}, "not an OpenAI answer (choices.0.token_ids.1"),
        ({"token_ids": [7, True]}, "not an OpenAI answer (choices.0.token_ids.1"),
        ({"token_ids": None}, "not an OpenAI answer (choices.0.token_ids"),
    ],
)
def test_what_cannot_be_is_an_error(change: dict[str, Any], said: str) -> None:
    """The whole line is short, whatever was sent."""
    answer = lambda asked: choice(asked) | change  # noqa: E731
    with standing_in(answer=answer) as server, pytest.raises(EndpointError) as error:
        complete(server)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_server_that_returns_no_ids_is_refused() -> None:
    """As others than vLLM do, which ignore what they do not know."""
    said = r"choices\.0\.token_ids: Field required"
    answer = lambda asked: {"text": "7", "finish_reason": "stop"}  # noqa: E731
    with standing_in(answer=answer) as server, pytest.raises(EndpointError, match=said):
        endpoint(server).connect()


def test_connecting() -> None:
    """One token of the first prompt is asked for."""
    with standing_in() as server:
        endpoint(server).connect()
    ((asked, _),) = server.asked
    assert (asked["prompt"], asked["max_tokens"], asked["logprobs"]) == ([3, 4], 1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other"}, "serves other, not m; start it with `vllm serve D --served-model"),
        ({"version": "1.2"}, "is vLLM '1.2', not 9.8.7; set compute.endpoint_version"),
        (
            {"answer": lambda asked: choice(asked) | {"logprobs": None}},
            "gives no log probabilities",
        ),
        (
            {"answer": lambda asked: choice(asked) | {"logprobs": {"token_logprobs": [math.nan]}}},
            "not an OpenAI answer",
        ),
        ({"counter": "other"}, "counts no tokens at /metrics; start it without --disable-log"),
    ],
)
def test_connecting_refuses(change: dict[str, Any], said: str) -> None:
    with standing_in(**change) as server, pytest.raises(EndpointError) as error:
        endpoint(server).connect()
    assert said in str(error.value)


def test_a_server_that_hangs_is_given_up_and_a_slow_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token is a sign of life; so is that nothing is asked."""
    monkeypatch.setattr(vllm_endpoint, "STILL", 0.05)
    looks = 0

    def made() -> int:
        nonlocal looks
        looks += 1
        return min(looks, 5)

    async def watch(busy: dict[str, int]) -> None:
        at = endpoint(server)
        async with at.client() as client:
            await asyncio.wait_for(at.watch(client, {at.url: busy["n"]}), 5)

    with standing_in(made=made) as server:
        with pytest.raises(EndpointError, match=r"hangs: no new token for 0\.05 s"):
            asyncio.run(watch({"n": 1}))
        assert looks == 6
        monkeypatch.setattr(vllm_endpoint, "STILL", 0.01)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(watch({"n": 0}), 0.3))
    assert threading.active_count() < 50


def test_a_server_that_does_not_even_count_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_endpoint, "STILL", 0.05)
    ended = threading.Event()

    async def watch() -> None:
        at = endpoint(server)
        async with at.client() as client:
            await at.watch(client, {at.url: 1})

    with standing_in(made=lambda: ended.wait(20)) as server:
        with pytest.raises(EndpointError, match="hangs: no new token"):
            asyncio.run(asyncio.wait_for(watch(), 10))
        ended.set()
