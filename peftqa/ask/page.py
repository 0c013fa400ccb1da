"""A page on this machine that asks adapters the same question, side by side with their frozen model.

It is bound to the loopback address, loads nothing from elsewhere, runs no script, and keeps no record of what is asked.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Sequence

import pandas as pd
from flask import Flask, Response, abort, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import make_server

from peftqa.ask.answer import Answerer
from peftqa.data.text import plain_text
from peftqa.errors import UserError
from peftqa.evaluation.palette import variant_color

LIMIT = 2_000_000  # bytes of a form that are read
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
CONTENT = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
HEADERS = CONTENT | {"Referrer-Policy": "same-origin", "Cache-Control": "no-store"}
KEPT = "The text that you typed is still here. To use a question of the data, empty both fields first."


def make_app(answerers: dict[str, Answerer], questions: pd.DataFrame | None = None) -> Flask:
    """The page. answerers: by the name shown; questions: a table of data/split/ to choose from, or None."""
    known = {} if questions is None else {(row.question, row.context): row for row in questions.itertuples()}
    one_at_a_time = threading.Lock()
    app = Flask(__name__, template_folder=".", static_folder=None)
    app.select_jinja_autoescape = lambda name: True
    app.jinja_options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    # Other host names that lead to this machine are refused (DNS rebinding), and forms sent by another site (CSRF).
    app.config.update(TRUSTED_HOSTS=["127.0.0.1", "localhost"], MAX_CONTENT_LENGTH=LIMIT, MAX_FORM_MEMORY_SIZE=LIMIT)

    @app.before_request
    def refuse_other_sites() -> None:
        if request.headers.get("Origin") not in (None, request.host_url.rstrip("/")):
            abort(403)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.route("/", methods=["GET", "POST"])
    def ask() -> str | tuple[str, int]:
        typed = request.form.get("question", ""), request.form.get("abstract", "")
        if request.method == "GET":
            return page(*typed)
        if "use" in request.form:
            row = request.form.get("row", -1, type=int)
            if any(text.strip() for text in typed) and plain(*typed) not in known:
                return page(*typed, error=KEPT)
            return page(*(list(known)[row] if 0 <= row < len(known) else typed))
        try:
            texts = plain_text("question", typed[0]), plain_text("abstract", typed[1])
            with one_at_a_time:
                return page(*typed, [card(name, *texts) for name in answerers])
        except UserError as error:
            return page(*typed, error=f"{error}."), 400

    @app.errorhandler(413)
    def refuse_long(_: Exception) -> tuple[str, int]:
        return page("", "", error="That is far too long for a question and an abstract."), 413

    def card(name: str, question: str, abstract: str) -> dict[str, object]:
        model, began = answerers[name], time.perf_counter()
        prompt = model.encode(question, abstract)
        (answer,) = model.answer([prompt])
        shown = {"name": name, "model": model.name, "color": variant_color(name), "answer": answer}
        shown |= {"sure": model.why_sure(prompt, answer), "cut": model.what_was_cut(prompt)}
        return shown | {"seconds": time.perf_counter() - began}

    def page(question: str, abstract: str, cards: Sequence[dict] = (), error: str = "") -> str:
        label = getattr(known.get(plain(question, abstract)), "label", None)
        shown = {"question": question, "abstract": abstract, "cards": cards, "error": error, "known": label}
        return render_template("page.html.j2", models=answerers, questions=[row[0] for row in known], **shown)

    return app


def plain(*texts: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()) for text in texts)


def bind(port: int) -> socket.socket:
    """A port of the loopback address, 0 for a free one. Raises UserError if it is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); name another with --port.") from None


def serve(app: Flask, bound: socket.socket) -> None:
    """Answer on the port until Ctrl-C, or until the process ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # so that questions are not logged
    with contextlib.suppress(KeyboardInterrupt):
        make_server(*bound.getsockname(), app, threaded=True, fd=bound.fileno()).serve_forever()
