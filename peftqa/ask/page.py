"""A page on this machine that asks adapters the same question, side by side with their frozen model.

It is bound to the loopback address, loads nothing from elsewhere, runs no script, and keeps no record of what is asked.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import NamedTuple

import pandas as pd
from flask import Flask, Response, abort, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import make_server

from peftqa.ask.answer import Answer, Answerer, plain_text
from peftqa.errors import UserError
from peftqa.evaluation.palette import variant_color

TEMPLATE = "page.html.j2"
MAX_BYTES = 2_000_000  # of a form that is read
HEADERS = {
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


def make_app(answerers: dict[str, Answerer], questions: pd.DataFrame | None = None) -> Flask:
    """The page. answerers: by the name shown; questions: a table of data/split/ to choose from, or None."""
    known = [] if questions is None else questions.to_dict("records")
    one_at_a_time = threading.Lock()
    app = Flask(__name__, template_folder=".", static_folder=None)
    app.select_jinja_autoescape = lambda name: True
    app.jinja_options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    # Other host names that lead to this machine are refused (DNS rebinding), and forms sent by another site (CSRF).
    app.config.update(TRUSTED_HOSTS=["127.0.0.1", "localhost"], MAX_CONTENT_LENGTH=MAX_BYTES)
    app.config.update(MAX_FORM_MEMORY_SIZE=MAX_BYTES)

    @app.before_request
    def refuse_other_sites() -> None:
        if request.headers.get("Origin") not in (None, request.host_url.rstrip("/")):
            abort(403)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.get("/")
    def choose() -> str:
        row = request.args.get("row", -1, type=int)
        return page(known[row]["question"], known[row]["context"]) if 0 <= row < len(known) else page()

    @app.post("/")
    def ask() -> str | tuple[str, int]:
        texts = {name: request.form.get(name, "") for name in ("question", "abstract")}
        try:
            question, abstract = (plain_text(name, text) for name, text in texts.items())
            with one_at_a_time:
                return page(question, abstract, [result(name, question, abstract) for name in answerers])
        except UserError as error:
            return page(*(text if len(text) <= 10_000 else "" for text in texts.values()), error=f"{error}."), 400

    @app.errorhandler(413)
    def refuse_long(_: Exception) -> tuple[str, int]:
        return page(error="That is far too long for a question and an abstract."), 413

    def result(name: str, question: str, abstract: str) -> Result:
        answerer, began = answerers[name], time.perf_counter()
        prompt = answerer.encode(question, abstract)
        (answer,) = answerer.answer([prompt])
        seconds = time.perf_counter() - began
        side = answerer.task.template.truncation_side
        return Result(name, variant_color(name), answer, len(prompt.cut), answerer.text(prompt.cut), side, seconds)

    def page(question: str = "", abstract: str = "", results: list[Result] = (), error: str = "") -> str:
        labels = {(row["question"], row["context"]): row.get("label") for row in known}
        return render_template(
            TEMPLATE,
            question=question,
            abstract=abstract,
            questions=[row["question"] for row in known],
            results=results,
            error=error,
            known=labels.get((question, abstract)),
        )

    return app


def bind(port: int) -> socket.socket:
    """A port of the loopback address, 0 for a free one. Raises UserError where it is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); name another with --port.") from None


def serve(app: Flask, bound: socket.socket) -> None:
    """Answer on the port until the process ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # what is asked is nobody's business
    host, port = bound.getsockname()
    make_server(host, port, app, threaded=True, fd=bound.fileno()).serve_forever()
