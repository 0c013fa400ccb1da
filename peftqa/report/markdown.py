"""The Markdown of the report and the model cards: its templates, its tables, and the HTML made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt
from markupsafe import Markup

from peftqa.report import wording

SVG = "data:image/svg+xml;base64,"
# An underscore between letters or digits does not start emphasis.
SPECIAL = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")


def template_environment(finalize: Callable | None = None) -> Environment:
    """Jinja, set up for the templates here. Jinja escapes the page's values, and `finalize` those of other
    templates."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html.j2"]),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["wording"] = wording
    return environment


def escape_markdown(value: object) -> str:
    """A value as one line with Markdown's special characters escaped; Markup is left alone."""
    if isinstance(value, Markup):
        return value
    return SPECIAL.sub(r"\\\g<0>", re.sub(r"[\r\n]+", " ", str(value)))


def table(rows: Sequence[Mapping[str, object]]) -> Markup:
    """Rows, each with the same headings, as a table. All columns but the first are aligned on the right."""
    headings = list(rows[0])
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *(row.values() for row in rows)]
    return Markup("\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines))


def as_html(markdown: str) -> tuple[Markup, list[str]]:
    """The HTML of a Markdown text, and the titles of its sections. A section's id is its title in lower case.

    HTML in the text is shown as text, and the only addresses are those of figures that the text contains.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.validateLink = lambda address: address.startswith(SVG)
    tokens, sections = parser.parse(markdown), []
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            sections.append(tokens[i + 1].content)
            token.attrSet("id", sections[-1].lower())
        elif token.type == "td_open" and tokens[i - 1].type == "tr_open":  # what the row is about
            token.tag = tokens[i + 2].tag = "th"
            token.attrSet("scope", "row")
    html = parser.renderer.render(tokens, parser.options, {})
    # A table that is too wide scrolls in a frame of its own, which the keyboard reaches.
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(html), sections
