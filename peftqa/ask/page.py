"""A page on this machine that asks adapters the same question, side by side with their frozen model.

It is bound to the loopback address, loads nothing from elsewhere, runs no script, and keeps no record of what is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from peftqa.ask.answer import Answer, Answerer, plain_text
from peftqa.errors import UserError
from peftqa.palette import variant_color

TEMPLATE = "page.html.j2"
MAX_BYTES = 2_000_000  # of a form that is read; what is longer is thrown away as it comes
TIMEOUT = 60  # seconds for a browser to send it
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Result(NamedTuple):
    name: str
    color: str  # #rrggbb
    answer: Answer
    cut: int  # tokens of the abstract that did not fit
    cut_text: str
    side: str  # left or right, where it was cut
    seconds: float


class App:
    """What the page shows. answerers: by the name shown; questions: test questions to choose from, or None."""

    def __init__(self, answerers: dict[str, Answerer], questions: pd.DataFrame | None = None) -> None:
        self.answerers = answerers
        self.questions = [] if questions is None else questions.to_dict("records")
        self.one_at_a_time = threading.Lock()
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.template = environment.get_template(TEMPLATE)

    def chosen(self, row: str) -> str:
        """The page with a test question filled in, the row-th; empty for a row that there is not."""
        known = row.isdecimal() and len(row) < 7 and int(row) < len(self.questions)
        asked = self.questions[int(row)] if known else {"question": "", "context": ""}
        return self.page(asked["question"], asked["context"])

    def asked(self, question: str, abstract: str) -> tuple[int, str]:
        """HTTP status and page with every answer, or with the one sentence that says why there is none."""
        try:
            question, abstract = plain_text("question", question), plain_text("abstract", abstract)
            with self.one_at_a_time:
                results = [self.ask(name, question, abstract) for name in self.answerers]
        except UserError as error:
            shown = [text if len(text) <= 10_000 else "" for text in (question, abstract)]
            return 400, self.page(*shown, error=f"{error}.")
        return 200, self.page(question, abstract, results=results)

    def ask(self, name: str, question: str, abstract: str) -> Result:
        answerer, began = self.answerers[name], time.perf_counter()
        prompt = answerer.encode(question, abstract)
        (answer,) = answerer.answer([prompt])
        seconds = time.perf_counter() - began
        side = answerer.task.template.truncation_side
        return Result(name, variant_color(name), answer, len(prompt.cut), answerer.text(prompt.cut), side, seconds)

    def page(self, question: str, abstract: str, results: Sequence[Result] = (), error: str = "") -> str:
        pairs = ((row["question"], row["context"], row.get("label")) for row in self.questions)
        known = next((label for *texts, label in pairs if texts == [question, abstract]), None)
        return self.template.render(
            question=question,
            abstract=abstract,
            questions=[row["question"] for row in self.questions],
            results=results,
            error=error,
            known=known,
        )


class Handler(BaseHTTPRequestHandler):
    """Hands a browser's requests to the `app` of its server."""

    timeout = TIMEOUT

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if not self.from_this_machine():
            self.send(403, "This page answers to this machine alone.")
        elif address.path != "/":
            self.send(404, "There is nothing here.")
        else:
            self.send(200, self.server.app.chosen(parse_qs(address.query).get("row", [""])[0]))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        length = int(length) if length.isdecimal() else 0
        if not self.from_this_machine():
            self.send(403, "This page answers to this machine alone.")
        elif length > MAX_BYTES:
            # Read to its end, or the browser would say that the connection broke instead of showing the sentence.
            while length > 0 and (part := self.rfile.read(min(length, 65536))):
                length -= len(part)
            self.send(413, self.server.app.page("", "", error="That is far too long for a question and an abstract."))
        else:
            text = self.rfile.read(length).decode("utf-8", "surrogateescape")
            form = parse_qs(text, keep_blank_values=True, errors="surrogateescape")
            self.send(*self.server.app.asked(form.get("question", [""])[0], form.get("abstract", [""])[0]))

    def from_this_machine(self) -> bool:
        """Whether the Host and Origin headers name this server.

        Refuses forms sent by another site (CSRF) and other host names that lead to this machine (DNS rebinding).
        """
        own = {f"{host}:{self.server.server_port}" for host in ("127.0.0.1", "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in own and (origin is None or origin in {f"http://{name}" for name in own})

    def send(self, status: int, page: str) -> None:
        body = page.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what is asked is nobody's business."""


def bind(port: int) -> ThreadingHTTPServer:
    """A server on the loopback address; port 0 takes a free one. It serves what is then set as its `app`.

    Raises UserError where the port is taken.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); name another with --port.") from None
    server.daemon_threads = True
    return server
