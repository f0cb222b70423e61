"""Answers of servers that mean ill, or are broken: bounded in bytes, seconds and hosts.

The servers are sockets, since no HTTP library says what these say.
"""

import gzip
import json
import resource
import socket
import time

import pytest
from bounded_servers import Speak, serving

from lightreasoner.errors import EndpointError
from lightreasoner.serving import endpoint_errors
from lightreasoner.serving.openai_engine import Endpoint

pytestmark = pytest.mark.timeout(60)
BODY = json.dumps(
    {
        "choices": [{"text": "7", "finish_reason": "stop"}],
        "usage": {"completion_tokens": 1},
    }
).encode()


def says(*parts: bytes) -> Speak:
    return lambda caller: [caller.sendall(part) for part in parts] and None


def ok(body: bytes, *headers: bytes, length: bool = True) -> bytes:
    lines = [b"HTTP/1.1 200 OK", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def ask(url: str, timeout: float = 1.0, retries: int = 0) -> str:
    asking = Endpoint(url, "m", 8, 0.0, (), retries=retries, timeout=timeout)
    return asking.respond(["1+1"], [0])[0].text


def refused(url: str, timeout: float = 1.0, retries: int = 0) -> str:
    with pytest.raises(EndpointError) as caught:
        ask(url, timeout, retries)
    said = str(caught.value)
    assert said.startswith(f"endpoint {url}: ")
    assert len(said.splitlines()) == 1
    assert len(said) < 700
    return said


def drip(caller: socket.socket) -> None:
    """A byte now and then: never silent, never done."""
    caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        caller.sendall(b" ")
        time.sleep(0.05)


def drip_headers(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        caller.sendall(b"a")
        time.sleep(0.05)


def test_a_byte_at_a_time_has_a_limit() -> None:
    """And is not asked again: it has begun to answer."""
    with serving(drip) as server:
        since = time.monotonic()
        said = refused(server.url, timeout=0.5, retries=5)
        assert time.monotonic() - since < 60
        assert len(server.asked) == 1
    assert "bytes so far had no end after 0.5 s; use a server that answers as" in said


def test_headers_that_drip_have_a_limit() -> None:
    with serving(drip_headers) as server:
        since = time.monotonic()
        assert "sent nothing for 0.5 s in 2 tries" in refused(server.url, 0.5, retries=1)
        assert time.monotonic() - since < 60


def endless(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        caller.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")


def test_a_body_without_end_takes_no_memory() -> None:
    """By sockets it sends a gigabyte a second; 1 MiB and 1 KiB a token are read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(endless) as server:
        assert "its answer has over 1,056,768 bytes" in refused(server.url, timeout=20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_of_a_failure_only_the_beginning_is_read() -> None:
    def fail(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 400 No\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            caller.sendall(b"no " * 30_000)

    with serving(fail) as server:
        assert "answered 400: 'no no" in refused(server.url, timeout=20)


@pytest.mark.parametrize("packing", [b"gzip", b"br", b"zstd", b"deflate, gzip"])
def test_a_packed_answer_is_refused_unopened(packing: bytes) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with serving(says(ok(bomb, b"Content-Encoding: " + packing))) as server:
        assert f"its answer is packed ({packing.decode()!r}), unasked" in refused(server.url)
        assert b"Accept-Encoding: identity" in server.asked[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_prompts_do_not_follow_a_redirection(status: int) -> None:
    with serving(says(ok(BODY))) as other:
        head = f"HTTP/1.1 {status} There\r\nLocation: {other.url}/completions\r\n".encode()
        with serving(says(head + b"Content-Length: 0\r\n\r\n")) as server:
            said = refused(server.url, retries=2)
            assert len(server.asked) == 1
        assert other.asked == []
    assert f"answered {status}: '{other.url}/completions'; give that address as the url" in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ok(b"[" * 100_000), "nested over 100 deep"),
        (ok(b'{"choices":' * 900 + b"1" + b"}" * 900), "nested over 100 deep"),
        (ok(BODY.replace(b": 1}", b": %d}" % 2**70)), "usage.completion_tokens: Input should be"),
        (ok(BODY.replace(b": 1}", b": 2147483648}")), "usage.completion_tokens: Input should be"),
        (ok(BODY.replace(b": 1}", b": " + b"9" * 5_000 + b"}")), "a whole number of 5,000 digits"),
        (ok(BODY.replace(b": 1}", b": NaN}")), "usage.completion_tokens"),
        (ok(BODY.replace(b'"7"', b'"\xff\xfe"')), "not an OpenAI answer (the whole: Invalid JSON"),
        (ok(BODY.replace(b'"7"', b'"\xff"'), b"Content-Type: x; charset=bz2"), "Invalid JSON"),
        (ok(BODY.decode().encode("utf-16")), "Invalid JSON"),
        (ok(b"\x1b[31m\x00\r\n\x07"), r"'\x1b[31m\x00 \x07'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", "cannot be reached ("),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{", "cannot be reached ("),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{", "cannot be"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cannot be reached ("),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, "cannot be reached ("),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "cannot be reached ("),
        (b"HTTP/9.9 200 OK\r\n\r\n", "not an OpenAI answer"),
        (b"HTTP/1.1 99999999 OK\r\n\r\n", "cannot be reached ("),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01" * 100, "cannot be reached ("),
        (b"", "cannot be reached ("),
        (b"HTTP/1.1 204 None\r\n\r\n", "not an OpenAI answer"),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", "answered 600"),
    ],
)
def test_nonsense_is_a_line(answer: bytes, said: str) -> None:
    with serving(says(answer)) as server:
        assert said in refused(server.url, timeout=5)


def test_early_news_without_end_has_a_limit() -> None:
    def news(caller: socket.socket) -> None:
        while True:
            caller.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.001)

    with serving(news) as server:
        since = time.monotonic()
        refused(server.url, timeout=0.5)
        assert time.monotonic() - since < 60


def test_an_answer_without_length_ends_with_its_connection() -> None:
    with serving(says(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)) as server:
        assert ask(server.url) == "7"
    with serving(says(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY)) as server:
        assert ask(server.url) == "7"


def test_an_answer_in_pieces_is_whole() -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    with serving(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks)) as server:
        assert ask(server.url) == "7"


def test_a_server_without_tls() -> None:
    with serving(says(ok(BODY))) as server:
        said = refused(server.url.replace("http:", "https:"), timeout=5)
    assert "cannot be reached (" in said


@pytest.mark.parametrize("after", ["1000000000", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_of_years_is_refused(after: str) -> None:
    head = f"HTTP/1.1 429 Later\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n"
    with serving(says(head.encode())) as server:
        since = time.monotonic()
        assert "answered 429" in refused(server.url, retries=5)
        assert time.monotonic() - since < 60


@pytest.mark.parametrize(
    "after", ["-5", "nan", "inf", "soon", "", "Mon, 99 Foo 2026 99:99:99 GMT", "0x10"]
)
def test_a_wait_that_is_none_is_not_heeded(after: str) -> None:
    head = f"HTTP/1.1 429 Later\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n"
    with serving(says(head.encode())) as server:
        assert "answered 429 in 2 tries" in refused(server.url, retries=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://user@h/v1",
        "http://user:secret@h/v1",
        "file:///etc/passwd",
        "http+unix://%2Frun%2Fdocker.sock/v1",
        "unix:/run/docker.sock",
        "http://h:99999/v1",
        "http://h:port/v1",
        "http://[::1/v1",
        "http://h\r\nX: y/v1",
        "http://h h/v1",
        "http://h\x00/v1",
        "http://höst/v1",
        "//h/v1",
        "",
    ],
)
def test_a_url_that_is_no_servers(url: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint(url, "m", 8, 0.0, ())
    assert "must be http://HOST:PORT/v1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX: y", "clé", "a b", "\x00"])
def test_a_key_that_no_header_holds(key: str) -> None:
    with pytest.raises(EndpointError, match="API key has spaces, line breaks") as caught:
        Endpoint("http://h/v1", "m", 8, 0.0, (), api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["a\nb", "x" * 10_000, "\x1b[31m", ""])
def test_a_name_that_is_none(name: str) -> None:
    body = json.dumps({"data": [{"id": name}]}).encode()
    with serving(says(ok(body))) as server, pytest.raises(EndpointError, match=r"data\.0\.id"):
        Endpoint(server.url, None, 8, 0.0, ()).connect()


def test_names_without_number_are_clipped() -> None:
    body = json.dumps({"data": [{"id": f"model-{n}"} for n in range(5_000)]}).encode()
    with serving(says(ok(body))) as server, pytest.raises(EndpointError) as caught:
        Endpoint(server.url, None, 8, 0.0, ()).connect()
    assert "serves model-0, model-1" in str(caught.value)
    assert len(str(caught.value)) < 2 * endpoint_errors.EXCERPT + 200
