"""A server that is a socket: it says what no HTTP library says, for the tests of an endpoint."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Speak = Callable[[socket.socket], None]


class Server:
    """Reads each request and lets `speak` answer it; keeps what it was asked."""

    def __init__(self, speak: Speak):
        self.speak, self.asked, self.is_open = speak, list[bytes](), True
        self.door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}/v1"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self.door.accept()
                threading.Thread(target=self.answer, args=(caller,), daemon=True).start()

    def answer(self, caller: socket.socket) -> None:
        with suppress(OSError), caller:
            self.asked.append(request(caller))
            self.speak(caller)


def request(caller: socket.socket) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        part = caller.recv(65536)
        if not part:
            return content
        content += part
        if content.startswith(b"\x16"):  # TLS
            return content
    head, _, body = content.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.partition(b":")[2]):
                body += caller.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(speak: Speak) -> Iterator[Server]:
    server = Server(speak)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            server.door.shutdown(socket.SHUT_RDWR)
        server.door.close()
        thread.join(10)
