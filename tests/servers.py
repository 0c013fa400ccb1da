"""HTTP servers on this machine that play a file host and the Hugging Face Hub, faults included."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server object's `answer`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.owner.respond(self)

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


def status(code: int, body: bytes = b"<html>not the file</html>") -> Fault:
    """An error page."""
    return lambda handler, _: handler.send(code, body)


def truncated(handler: Handler, body: bytes) -> None:
    """Announce the whole body, send half of it, and close the connection."""
    handler.send(200, body[: len(body) // 2], length=len(body))
    handler.close_connection = True


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

    def respond(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        self.requests.append((handler.command, unquote(parts.path), parts.query))
        self.answer(handler, unquote(parts.path))


class FileHost(Server):
    """Serves `files` by path. `faults[path]` are answered first, one per request."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Iterable[Fault]] = {}

    def answer(self, handler: Handler, path: str) -> None:
        faults = self.faults.setdefault(path, iter(()))
        fault = next(faults, None)
        if path not in self.files:
            handler.send(404, b"<html>no such page</html>")
        elif fault:
            fault(handler, self.files[path])
        else:
            handler.send(200, self.files[path])


class Hub(Server):
    """The Hub as far as snapshot_download and model_info go: revision, tree, resolve, and a store for large files.

    `models[name][commit]` maps file names to bytes. `faults` are answered to requests for the store, one each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.down = False
        self.faults: Iterable[Fault] = iter(())

    def answer(self, handler: Handler, path: str) -> None:
        if self.down:
            return handler.send(503, b"down for repair")
        parts = path.strip("/").split("/")
        if parts[0] == "store":
            return self._store(handler, parts[1])
        if parts[:2] == ["api", "models"]:
            name, what, commit = "/".join(parts[2:4]), parts[4], parts[5]
        elif parts[0] == "api":
            return handler.send(404)  # huggingface_hub asks for more than models
        else:
            name, what, commit = "/".join(parts[:2]), parts[2], parts[3]
        if name not in self.models:
            return handler.send(401, headers={"X-Error-Code": "RepoNotFound"})
        if commit not in self.models[name]:
            return handler.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = self.models[name][commit]
        if what == "revision":
            siblings = [{"rfilename": file} for file in files]
            return self._json(handler, {"id": name, "sha": commit, "siblings": siblings})
        if what == "tree":
            return self._json(handler, [self._entry(file, body) for file, body in files.items()])
        if name in self.gated:
            return handler.send(403, headers={"X-Error-Code": "GatedRepo"})
        return self._resolve(handler, commit, files["/".join(parts[4:])], parts[-1])

    def _resolve(self, handler: Handler, commit: str, body: bytes, file: str) -> None:
        entry = self._entry(file, body)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            return handler.send(200, body, headers)
        sha256 = entry["lfs"]["oid"]
        headers |= {
            "X-Linked-ETag": f'"{sha256}"',
            "X-Linked-Size": str(len(body)),
            # Another host name: the real store is one, and a redirect within one host is followed differently.
            "Location": f"{self.url.replace('127.0.0.1', 'localhost')}/store/{sha256}",
        }
        return handler.send(302, headers=headers)

    def _store(self, handler: Handler, sha256: str) -> None:
        bodies = (body for commits in self.models.values() for files in commits.values() for body in files.values())
        body = next(body for body in bodies if hashlib.sha256(body).hexdigest() == sha256)
        fault = next(iter(self.faults), None)
        fault(handler, body) if fault else handler.send(200, body)

    @staticmethod
    def _entry(file: str, body: bytes) -> dict:
        oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        entry = {"type": "file", "path": file, "size": len(body), "oid": oid}
        if file.endswith((".safetensors", ".bin")):
            entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        return entry

    @staticmethod
    def _json(handler: Handler, value: object) -> None:
        handler.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def closed_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
