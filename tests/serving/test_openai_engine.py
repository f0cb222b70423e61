"""The engine that asks a server: a real one of another project's, and real ones that misbehave.

The first is `transformers serve`, on the micro-world's expert (transformers_serve.py).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ports import free_port
from standin_vllm import in_thread
from transformers_serve import NAME

from lightreasoner.data import microworld
from lightreasoner.errors import EndpointError
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.decode import Completion, decode
from lightreasoner.inference.engine import Engine, Response
from lightreasoner.serving.openai_engine import Endpoint

EXPERT = loading.MICROWORLD / "expert"
QUESTIONS = [
    problem.question
    for name, n in (("tuned", 8), ("transfer", 4), ("chain_sum", 4))
    for problem in microworld.draw(name, "evaluate", n, seed=3)  # type: ignore[arg-type]
]
MAX_NEW_TOKENS = 96
NEAR_TIE = 1e-3
"""Nats. Float32 sums in another order move a logit by 1e-5 at most; a wrong prompt or a lost stop
word moves the first difference to a token that is nats away."""

KEY = "sk-" + "7" * 20


def endpoint(url: str, **options: Any) -> Endpoint:
    defaults = {"model": "m", "max_new_tokens": 8, "temperature": 0.0, "stop": (), "retries": 1}
    return Endpoint(url, **(defaults | options))


@pytest.mark.parametrize("style", ["qwen25-math-cot", "cot"])
def test_a_real_server_gives_what_decoding_in_process_gives(served: str, style: Any) -> None:
    """All 16 texts of both styles were equal, and their counts of tokens (no stop word cut any)."""
    tokenizer = loading.load_tokenizer(EXPERT)
    completions = decoded(QUESTIONS, style)
    engine: Engine = endpoint(
        served,
        model=None,
        max_new_tokens=MAX_NEW_TOKENS,
        stop=prompts.stop_words(style),
        concurrency=4,
    ).connect()
    texts = [prompts.render_prompt(question, style, tokenizer) for question in QUESTIONS]
    found = engine.respond(texts, range(len(texts)))
    for question, completion, response in zip(QUESTIONS, completions, found, strict=True):
        stopped = completion.finish_reason == "stop"
        text, cut = prompts.response(completion.ids, stopped, style, tokenizer)
        if response.text != text:
            assert tie(question, style, completion, response.text) < NEAR_TIE, response
            continue
        assert response.finish_reason == ("stop" if stopped or cut else "length")
        assert cut or response.tokens == len(completion.ids)


def test_a_real_server_stops_where_it_is_told(served: str) -> None:
    """The text before a stop word is what comes without it; a limit is a limit."""
    asking = endpoint(served, model=NAME, max_new_tokens=MAX_NEW_TOKENS)
    prompt = prompts.render_prompt(QUESTIONS[0], "qwen25-math-cot", loading.load_tokenizer(EXPERT))
    (whole,) = asking.respond([prompt], [0])
    (cut,) = endpoint(
        served, model=NAME, max_new_tokens=MAX_NEW_TOKENS, stop=("answer is",)
    ).respond([prompt], [0])
    assert whole.finish_reason == cut.finish_reason == "stop"
    assert cut.text == whole.text.partition("answer is")[0].strip() != whole.text
    assert cut.tokens < whole.tokens
    (short,) = endpoint(served, model=NAME, max_new_tokens=5).respond([prompt], [0])
    assert short.finish_reason == "length"
    assert short.tokens == 5
    assert whole.text.startswith(short.text)


def test_a_real_server_names_what_it_serves(served: str) -> None:
    assert endpoint(served, model=None).connect().model == NAME
    with pytest.raises(EndpointError, match=f"serves {NAME}, not the model 'other'; .*--served"):
        endpoint(served, model="other").connect()
    with pytest.raises(EndpointError, match=r"answered 400: .*pinned to"):
        endpoint(served, model="other").respond(["1+1"], [0])


def decoded(questions: list[str], style: Any) -> list[Completion]:
    tokenizer = loading.load_tokenizer(EXPERT)
    return decode(
        loading.load_model(EXPERT, "cpu", "float32"),
        [prompts.encode(question, style, tokenizer) for question in questions],
        loading.stop_ids(EXPERT, tokenizer),
        MAX_NEW_TOKENS,
    )


def tie(question: str, style: Any, completion: Completion, text: str) -> float:
    """How far apart, in nats, the two best tokens are where the completion leaves `text`."""
    tokenizer = loading.load_tokenizer(EXPERT)
    same = 0
    while text.startswith(tokenizer.decode(completion.ids[: same + 1]).strip()):
        same += 1
    ids = prompts.encode(question, style, tokenizer) + completion.ids[:same]
    with torch.no_grad():
        logits = loading.load_model(EXPERT, "cpu", "float32")(torch.tensor([ids])).logits[0, -1]
    best, second = logits.log_softmax(-1).topk(2).values.tolist()
    return best - second


Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's script: its n-th request by the n-th entry, the last for the rest."""

    server: "Scripted"

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, asked: dict[str, Any]) -> None:
        with self.server.lock:
            turn = len(self.server.asked)
            self.server.asked.append((time.monotonic(), asked, self.headers))
        self.asked = asked
        self.server.script[min(turn, len(self.server.script) - 1)](self)

    def send(self, status: int, body: bytes | str, **headers: str) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


class Scripted(ThreadingHTTPServer):
    """A server on this machine that does what its script says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, script: list[Answer]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.lock = script, threading.Lock()
        self.asked: list[tuple[float, dict[str, Any], Message]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *args: object) -> None:
        """A client that went away is part of these tests."""


@contextmanager
def scripted(*script: Answer) -> Iterator[Scripted]:
    with Scripted(list(script)) as server, in_thread(server):
        yield server


def status(code: int, body: str = "no way\n at  all", **headers: str) -> Answer:
    return lambda handler: handler.send(code, body, **headers)


def completion(text: Any = "7", **changes: Any) -> Answer:
    """An answer as OpenAI's schema has it, with changes of its choice and usage."""
    choice = {"index": 0, "text": text, "finish_reason": changes.get("finish_reason", "stop")}
    answer = {"choices": [choice], "usage": changes.get("usage", {"completion_tokens": 3})}
    return status(200, json.dumps(answer))


def echo(handler: Handler) -> None:
    """The prompt, the later the lower its number."""
    time.sleep(0.2 / (1 + int(handler.asked["prompt"])))
    completion(handler.asked["prompt"])(handler)


def served_models(*names: str) -> Answer:
    return status(200, json.dumps({"object": "list", "data": [{"id": name} for name in names]}))


def refused(url: str, **options: Any) -> str:
    """The one line that a request ends in."""
    with pytest.raises(EndpointError) as error:
        endpoint(url, **options).respond(["1+1"], [0])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"endpoint {url}: ")
    return str(error.value)


def test_responses_come_in_the_prompts_order() -> None:
    with scripted(echo) as server:
        found = endpoint(server.url, concurrency=3).respond([str(n) for n in range(9)], range(9))
    assert found == [Response(str(n), 3, "stop") for n in range(9)]


def test_as_many_requests_are_in_flight_as_allowed() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(handler: Handler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        completion()(handler)

    with scripted(slow) as server:
        endpoint(server.url, concurrency=4).respond(["1"] * 20, range(20))
    assert most == 4


def test_what_is_asked() -> None:
    """Greedy without a seed, else each request with its own; the prompt byte for byte."""
    prompt = "<|im_start|>é\f\r\n{1}  "
    with scripted(completion()) as server:
        endpoint(server.url, stop=("</s>",)).respond([prompt], [5])
        endpoint(server.url, temperature=0.5).respond(["1", "2"], [7, 2**62])
        greedy, *drawn = [asked for _, asked, _ in server.asked]
    assert greedy == {
        "model": "m",
        "prompt": prompt,
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "stop": ["</s>"],
    }
    assert {asked["prompt"]: asked["seed"] for asked in drawn} == {"1": 7, "2": 2**62}


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its proxies nor what the client reads by itself; the key is the argument's."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "from-the-environment")
    with scripted(completion()) as server:
        endpoint(server.url).respond(["1"], [0])
        endpoint(server.url, api_key=KEY).respond(["1"], [0])
        (_, _, without), (_, _, given) = server.asked
    assert "from-the-environment" not in str(without)
    assert given["Authorization"] == f"Bearer {KEY}"


def test_what_may_pass_is_asked_again() -> None:
    """A busy server's own delay is kept to (the first is 0.5 s at most without); then they grow."""
    with scripted(status(429, Retry_After="1"), status(503), status(500), completion()) as server:
        assert endpoint(server.url, retries=3).respond(["1"], [0])[0].text == "7"
        times = [when for when, _, _ in server.asked]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] >= 1
    assert waits[1] >= 0.75
    assert waits[2] >= 1.5


@pytest.mark.parametrize(
    ("code", "tries", "said", "remedy"),
    [
        (400, 1, "answered 400: 'no way at all'", "; change what is asked: the prompt"),
        (401, 1, "answered 401: 'no way at all'", "; give the API key"),
        (404, 1, "answered 404: 'no way at all'", "; check that the url ends in /v1"),
        (422, 1, "answered 422: 'no way at all'", "; change what is asked: the prompt"),
        (429, 2, "answered 429 in 2 tries: 'no way at all'", "; lower the concurrency"),
        (500, 2, "answered 500 in 2 tries: 'no way at all'", "; see the server's own log"),
    ],
)
def test_a_status_that_stays(code: int, tries: int, said: str, remedy: str) -> None:
    with scripted(status(code)) as server:
        message = refused(server.url)
        assert len(server.asked) == tries
    assert said in message
    assert remedy in message


GARBAGE: list[tuple[Answer, str]] = [
    (status(200, "<html>It works!</html>", Content_Type="text/html"), "the whole: Invalid JSON"),
    (status(200, '{"choices": [{"te'), "the whole: Invalid JSON"),
    (status(200, ""), "the whole: Invalid JSON"),
    (status(200, "[]"), "the whole: Input should be an object"),
    (status(200, '{"object": "chat.completion"}'), "choices: Field required"),
    (status(200, '{"choices": []}'), "choices: List should have at least 1 item"),
    (completion(None), "choices.0.text: Input should be a valid string"),
    (completion(7), "choices.0.text"),
    (completion(finish_reason=None), "choices.0.finish_reason: Input should be 'stop' or 'length'"),
    (completion(finish_reason="content_filter"), "choices.0.finish_reason"),
    (completion(usage={"completion_tokens": -1}), "usage.completion_tokens: Input should be gr"),
    (
        completion(usage={"completion_tokens": "3"}),
        "usage.completion_tokens: Input should be a valid",
    ),
]


@pytest.mark.parametrize(("answer", "said"), GARBAGE)
def test_an_answer_that_is_none(answer: Answer, said: str) -> None:
    """Not asked again: the same comes back."""
    with scripted(answer) as server:
        message = refused(server.url)
        assert len(server.asked) == 1
    assert f"answered what is not an OpenAI answer ({said}" in message


def test_a_server_without_usage_is_refused() -> None:
    with scripted(completion("ab c", usage=None)) as server:
        assert "does not say how many tokens it wrote" in refused(server.url)


@pytest.mark.parametrize(
    ("text", "finish_reason", "found"),
    [
        (" 7 \n\nQuestion: 8</s>", "length", Response("7", 3, "stop")),
        ("7</s> \n\nQuestion: 8", "stop", Response("7", 3, "stop")),
        (" 7 ", "length", Response("7", 3, "length")),
        ("", "stop", Response("", 3, "stop")),
    ],
)
def test_a_response_ends_at_the_first_stop_word(
    text: str, finish_reason: str, found: Response
) -> None:
    with scripted(completion(text, finish_reason=finish_reason)) as server:
        asking = endpoint(server.url, stop=prompts.stop_words("cot"))
        assert asking.respond(["1"], [0]) == [found]


@given(text=st.text(), words=st.lists(st.text(min_size=1), max_size=3))
def test_a_cut_text_holds_no_stop_word(text: str, words: list[str]) -> None:
    short, stopped = prompts.cut(text, words)
    assert text.lstrip().startswith(short)
    assert not any(word in short for word in words)
    assert stopped == any(word in text for word in words)
    assert short == short.strip()


def test_nobody_listens() -> None:
    message = refused(f"http://127.0.0.1:{free_port()}/v1")
    assert "cannot be reached in 2 tries (refused); " in message
    assert message.endswith("start it with `vllm serve DIR`, or correct the url")


def hang_up(handler: Handler) -> None:
    """Promise more than is sent, and close."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": ')
    handler.close_connection = True


def test_a_server_that_dies_midway() -> None:
    with scripted(hang_up) as server:
        assert "cannot be reached in 2 tries (" in refused(server.url)
    with scripted(hang_up, completion()) as server:
        assert endpoint(server.url).respond(["1"], [0])[0].text == "7"


def test_a_server_that_never_answers() -> None:
    released = threading.Event()
    with scripted(lambda handler: bool(released.wait(30)) and None) as server:
        message = refused(server.url, timeout=0.2)
        released.set()
    assert "sent nothing for 0.2 s in 2 tries; ask for less at a time" in message


def test_a_failure_cancels_the_rest_at_once() -> None:
    """The request that fails is the second; the first hangs, and the third is never made."""
    released = threading.Event()

    def answer(handler: Handler) -> None:
        if handler.asked["prompt"] == "bad":
            status(400)(handler)
        else:
            released.wait(30)

    with scripted(answer) as server:
        since = time.monotonic()
        with pytest.raises(EndpointError, match="answered 400"):
            endpoint(server.url, concurrency=2).respond(["hangs", "bad", "later"], [0, 1, 2])
        assert time.monotonic() - since < 25
        released.set()
        assert [asked["prompt"] for _, asked, _ in server.asked] in (
            ["hangs", "bad"],
            ["bad", "hangs"],
        )


def test_connecting_finds_the_one_model() -> None:
    with scripted(served_models("a")) as server:
        assert endpoint(server.url, model=None).connect() == endpoint(server.url, model="a")
        assert endpoint(server.url, model="a").connect().model == "a"
    with scripted(served_models("a", "b")) as server:
        assert endpoint(server.url, model="b").connect().model == "b"


@pytest.mark.parametrize(
    ("answer", "model", "said"),
    [
        (served_models("a", "b"), None, "serves a, b; name one model"),
        (served_models(), None, "serves nothing; name one model"),
        (served_models("a", "b"), "c", "serves a, b, not the model 'c'; name one that it serves"),
        (status(200, "<html>"), "a", "not an OpenAI answer"),
        (status(200, '{"data": [{"id": 7}]}'), "a", "data.0.id: Input should be a valid string"),
        (status(401), "a", "answered 401"),
    ],
)
def test_connecting_refuses(answer: Answer, model: str | None, said: str) -> None:
    with scripted(answer) as server, pytest.raises(EndpointError) as error:
        endpoint(server.url, model=model).connect()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_is_never_shown() -> None:
    """Not in an error, even where the server repeats it, and not in the endpoint's own text."""
    with scripted(status(401, f'{{"error": "the key {KEY} is wrong"}}')) as server:
        message = refused(server.url, api_key=KEY)
        assert KEY not in message + repr(endpoint(server.url, api_key=KEY))
    assert "the key *** is wrong" in message


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://h/v1", "http:///v1", "http://u:p@h/v1"]
)
def test_a_malformed_url(url: str) -> None:
    with pytest.raises(EndpointError, match="must be http://HOST:PORT/v1") as error:
        endpoint(url)
    assert ":p@" not in str(error.value)


def test_a_lone_surrogate_is_no_end() -> None:
    """Some servers escape halves of characters that no UTF-8 file can hold."""
    body = r'{"choices": [{"text": "x \ud800 7 \ud83d\ude00", "finish_reason": "stop"}], '
    with scripted(status(200, body + '"usage": {"completion_tokens": 3}}')) as server:
        (found,) = endpoint(server.url).respond(["1"], [0])
    assert found.text == "x ? 7 \N{GRINNING FACE}"
