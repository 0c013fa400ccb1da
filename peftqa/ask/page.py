"""A page on this machine that asks adapters the same question, side by side with their frozen model.

It is bound to the loopback address, loads nothing from elsewhere, runs no script, and keeps no record of what is asked.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import NamedTuple

import pandas as pd
from flask import Flask, Response, abort, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import make_server

from peftqa.ask.answer import Answer, Answerer, Prompt, plain_text
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
KEPT = "The text that you typed is still here. To use a question of the data, empty both fields first."


class Result(NamedTuple):
    name: str
    model: str  # and what it was trained on, in words
    color: str  # #rrggbb
    answer: Answer
    prompt: Prompt
    cut_text: str
    side: str  # left or right, where it was cut
    seconds: float


def make_app(answerers: dict[str, Answerer], questions: pd.DataFrame | None = None) -> Flask:
    """The page. answerers: by the name shown; questions: a table of data/split/ to choose from, or None."""
    known = [] if questions is None else questions.to_dict("records")
    labels = {(row["question"], row["context"]): row.get("label") for row in known}
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
    def show() -> str:
        return page("", "")

    @app.post("/")
    def ask() -> str | tuple[str, int]:
        typed = request.form.get("question", ""), request.form.get("abstract", "")
        if "use" in request.form:
            row = request.form.get("row", -1, type=int)
            mine = any(text.strip() for text in typed) and plain(typed) not in labels
            if mine or not 0 <= row < len(known):
                return page(*typed, error=KEPT if mine else "")
            return page(known[row]["question"], known[row]["context"])
        try:
            question, abstract = plain_text("question", typed[0]), plain_text("abstract", typed[1])
            with one_at_a_time:
                return page(*typed, [result(name, question, abstract) for name in answerers])
        except UserError as error:
            return page(*typed, error=f"{error}."), 400

    @app.errorhandler(413)
    def refuse_long(_: Exception) -> tuple[str, int]:
        return page("", "", error="That is far too long for a question and an abstract."), 413

    def result(name: str, question: str, abstract: str) -> Result:
        answerer, began = answerers[name], time.perf_counter()
        prompt = answerer.encode(question, abstract)
        (answer,) = answerer.answer([prompt])
        seconds, side = time.perf_counter() - began, answerer.task.template.truncation_side
        cut = answerer.text(prompt.cut)
        return Result(name, answerer.name, variant_color(name), answer, prompt, cut, side, seconds)

    def page(question: str, abstract: str, results: list[Result] = (), error: str = "") -> str:
        return render_template(
            TEMPLATE,
            question=question,
            abstract=abstract,
            questions=[row["question"] for row in known],
            results=results,
            error=error,
            known=labels.get(plain((question, abstract))),
        )

    return app


def plain(texts: tuple[str, str]) -> tuple[str, ...]:
    return tuple(" ".join(text.split()) for text in texts)


def bind(port: int) -> socket.socket:
    """A port of the loopback address, 0 for a free one. Raises UserError if it is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); name another with --port.") from None


def serve(app: Flask, bound: socket.socket) -> None:
    """Answer on the port until Ctrl-C, or until the process ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # what is asked is nobody's business
    host, port = bound.getsockname()
    with contextlib.suppress(KeyboardInterrupt):
        make_server(host, port, app, threaded=True, fd=bound.fileno()).serve_forever()
