"""A Hugging Face hub on this machine: the few addresses that fetching a model asks for, over HTTP, with byte ranges."""

import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = hashlib.sha1(b"a commit").hexdigest()


class HubStandIn:
    """Serves the files of `repositories`, {repo: folder}. `requests`: (method, path, byte range) of every call.
    `cut`: bytes after which the next large file breaks off, once. `delay`: seconds before each answer."""

    def __init__(self, repositories: dict[str, Path]):
        self.repositories, self.requests = repositories, []
        self.cut: int | None = None
        self.delay = 0.0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo: str) -> list[Path]:
        return sorted(path for path in self.repositories[repo].rglob("*") if path.is_file())

    def listing(self, repo: str, tree: bool) -> tuple[int, list | dict]:
        """(HTTP status, what a repository holds), as the hub's `tree` and `model_info` have it."""
        root = self.repositories.get(repo)
        if root is None:
            return 404, {}
        files = [(str(file.relative_to(root)), file.stat().st_size, tag(file)) for file in self.files(repo)]
        if tree:
            return 200, [{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in files]
        siblings = [{"rfilename": path, "size": size, "blobId": oid} for path, size, oid in files]
        return 200, {"id": repo, "sha": REVISION, "siblings": siblings}

    def _handler(hub):  # noqa: N805, the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body: bool):
                path = self.path.partition("?")[0]
                time.sleep(hub.delay)
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                    self.file(hub.repositories[found[1]] / found[2], body)
                elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(revision|tree)/.+)?", path):
                    status, values = hub.listing(found[1], found[3] == "tree")
                    self.send(status, json.dumps(values).encode(), {"Content-Type": "application/json"}, body)
                else:
                    self.send(404, b"", {}, body)

            def file(self, path: Path, body: bool):
                data, status = path.read_bytes(), 200
                headers = {"ETag": f'"{tag(path)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
                if (wanted := self.headers.get("Range")) and (found := re.match(r"bytes=(\d+)-", wanted)):
                    start = int(found[1])
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                    data, status = data[start:], 206
                if body and hub.cut is not None and len(data) > hub.cut:
                    cut, hub.cut = hub.cut, None
                    self.send_response(status)
                    for name, value in (headers | {"Content-Length": str(len(data))}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[:cut])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send(status, data, headers, body)

            def send(self, status: int, data: bytes, headers: dict[str, str], body: bool):
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

        return Handler


def tag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
