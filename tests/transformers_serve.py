"""`transformers serve` on the micro-world's expert, a real server of another project's.

Its /v1/models lists what is in the hub's cache, so the expert is put into a cache of its own
(docs/how-to/serving.md).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from ports import free_port

from lightreasoner.inference import loading

NAME = "lightreasoner/expert"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The server's url: 8 s to start, 460 MB; its files are in `folder`."""
    repository = folder / "hub" / "models--lightreasoner--expert"
    for name in ("refs", "snapshots"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text("local", encoding="utf-8")
    (repository / "snapshots" / "local").symlink_to(loading.MICROWORLD / "expert")
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", NAME]
    command += ["--dtype", "float32", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w+", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(port, server, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        except httpx.TransportError:
            assert server.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server did not start within 120 s: " + log.read_text(encoding="utf-8"))
