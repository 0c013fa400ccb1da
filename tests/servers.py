"""HTTP servers on this machine that answer like a file host and like the Hugging Face Hub, with faults."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Notes each request in the server object's `requests` and hands it to its `answer`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.owner.requests.append((self.command, unquote(parts.path), parts.query))
        self.server.owner.answer(self, unquote(parts.path))

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", headers: dict | None = None, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def status(code: int) -> Fault:
    """An error page."""
    return lambda handler, _: handler.send(code, b"<html>not the file</html>")


def to_itself(handler: Handler, _: bytes) -> None:
    """Lead back to the same address."""
    handler.send(302, headers={"Location": handler.path})


def truncated(handler: Handler, body: bytes) -> None:
    """Announce the whole body, send half of it, and close the connection."""
    handler.send(200, body[: len(body) // 2], length=len(body))
    handler.close_connection = True


def endless(pause: float, chunk: bytes, begun: threading.Event | None = None) -> Fault:
    """Send one chunk after another until the client hangs up; `begun` is set when it has asked."""

    def send(handler: Handler, _: bytes) -> None:
        handler.close_connection = True
        if begun:
            begun.set()
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(chunk)
                time.sleep(pause)

    return send


class Server:
    """A server in a thread of its own, from `with` to the end of the block. `requests` has (method, path, query)."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []

    def __enter__(self) -> "Server":
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.owner = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class FileHost(Server):
    """Serves `files` by path. `faults[path]` are answered first, one per request."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Iterator[Fault]] = {}

    def answer(self, handler: Handler, path: str) -> None:
        fault = next(self.faults.get(path, iter(())), None)
        if path not in self.files:
            handler.send(404)
        elif fault:
            fault(handler, self.files[path])
        else:
            handler.send(200, self.files[path])


class Hub(Server):
    """The Hub as far as snapshot_download and model_info go: revision, tree, resolve.

    `models[name][commit]` maps file names to bytes. `faults` are answered to requests for weights, one each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.down = False
        self.faults: Iterator[Fault] = iter(())

    def answer(self, handler: Handler, path: str) -> None:
        owner, model, what, commit, *file = f"{path.removeprefix('/api/models').strip('/')}///".split("/")
        name, file = f"{owner}/{model}", [part for part in file if part]
        if self.down:
            handler.send(503)
        elif name not in self.models:
            handler.send(401, headers={"X-Error-Code": "RepoNotFound"})
        elif commit not in self.models[name]:
            handler.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif what == "revision":
            listed = [{"rfilename": file, "size": len(body)} for file, body in self.models[name][commit].items()]
            handler.send(200, json.dumps({"id": name, "sha": commit, "siblings": listed}).encode())
        elif what == "tree":
            files = self.models[name][commit].items()
            handler.send(200, json.dumps([entry(file, body) for file, body in files]).encode())
        elif name in self.gated:
            handler.send(403, headers={"X-Error-Code": "GatedRepo"})
        else:
            self._send_file(handler, commit, "/".join(file), self.models[name][commit]["/".join(file)])

    def _send_file(self, handler: Handler, commit: str, file: str, body: bytes) -> None:
        known = entry(file, body)
        etag = known.get("lfs", known)["oid"]
        fault = next(self.faults, None) if "lfs" in known and handler.command == "GET" else None
        if fault:
            fault(handler, body)
        else:
            handler.send(200, body, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})


def entry(file: str, body: bytes) -> dict:
    """A file as the Hub lists it: weights by their sha256, others by the name that git gives them."""
    oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    lfs = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
    listed = {"type": "file", "path": file, "size": len(body), "oid": oid}
    return listed | {"lfs": lfs} if file.endswith((".safetensors", ".bin")) else listed
