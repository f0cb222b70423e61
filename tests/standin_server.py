"""A small real HTTP server in the place of Prefect's or MLflow's, for the tests of `up`.

    python standin_server.py PORT NAME ORDER DELAY LIFE

ORDER is a file that gets a line when the server starts and ends; it answers after DELAY seconds and
fails LIFE seconds after its start, if that is not 0. One named "parent" has the port held by a
child, as MLflow's does. It imports little, since tests start many.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Answer(BaseHTTPRequestHandler):
    """Says yes to everything."""

    def do_GET(self) -> None:
        """Answer with 200."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def serve(port: str, name: str, order: str, delay: str, life: str) -> None:
    """Be a server until SIGTERM, or for `life` seconds."""

    def note(what: str) -> None:
        with Path(order).open("a", encoding="utf-8") as file:
            file.write(f"{what} {name}\n")

    def end(*_: object) -> None:
        note("end")
        os._exit(0)

    def fail() -> None:
        print("out of luck", flush=True)
        os._exit(3)

    signal.signal(signal.SIGTERM, end)
    note("start")
    if name == "parent":
        subprocess.call([sys.executable, __file__, port, "child", order, delay, life])
    if float(life):
        threading.Timer(float(life), fail).start()
    time.sleep(float(delay))
    HTTPServer(("127.0.0.1", int(port)), Answer).serve_forever()


if __name__ == "__main__":
    serve(*sys.argv[1:])
