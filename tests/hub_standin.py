"""A small real HTTP server in the hub's place: repositories are made, and commits of files land in
a folder, by kind and name. Every file goes by the commit itself, none by LFS or Xet."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The hub's address, while it writes to `folder`: KIND/OWNER/NAME/FILE."""

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match self.path.removeprefix("/api/").split("/"):
                case ["repos", "create"]:
                    asked = json.loads(body)
                    kind = asked.get("type", "model") + "s"
                    owner, name = asked["organization"], asked["name"]
                    (folder / kind / owner / name).mkdir(parents=True)
                    prefix = "" if kind == "models" else f"{kind}/"
                    self.answer({"url": f"{address}/{prefix}{owner}/{name}"})
                case ["validate-yaml"]:
                    self.answer({"errors": [], "warnings": []})
                case [_, _, _, "preupload", "main"]:
                    names = [file["path"] for file in json.loads(body)["files"]]
                    more = {"uploadMode": "regular", "shouldIgnore": False}
                    self.answer({"files": [{"path": name, **more} for name in names]})
                case [kind, owner, name, "commit", "main"]:
                    for line in body.splitlines():
                        self.take(json.loads(line), folder / kind / owner / name)
                    url = f"{address}/{owner}/{name}/commit/{'0' * 40}"
                    self.answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})

        def take(self, entry: dict[str, Any], repository: Path) -> None:
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                file = repository / entry["value"]["path"]
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)

        def answer(self, said: dict[str, Any]) -> None:
            text = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()
