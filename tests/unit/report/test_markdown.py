"""Text of data and params in Markdown and in the page, and the figures in it."""

import base64
import html
import re

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from peftqa.report.figures import curve_figure
from peftqa.report.markdown import SVG, as_html, escape_markdown, table

ANY_TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" \\`*_[]()<>&|~$#!-+.:/'\"\n"))


@given(ANY_TEXT)
@example("<script>alert(1)</script> **b** [a](javascript:alert(1)) ![b](//c) | d \\| `e` &lt; _f_ a_b https://g")
def test_any_text_stays_text(text):
    escaped, rows = escape_markdown(text), table([{"a": "x", "b": f"x {text} y"}])
    page, sections = as_html(f"## Section\n\nx {escaped} y\n\n{rows}\n\n- **x {escaped} y**\n")
    assert sections == ["Section"]
    shown = [html.unescape(part).split() for part in re.split(r"<[^<>]*>", page)]  # white space as a browser shows it
    assert shown.count(f"x {text} y".split()) == 3
    assert not re.search("<(script|a|img|em|code|br|hr|s)\\b", page)


def test_a_link_that_is_not_a_figure_is_text():
    page, _ = as_html("[a](javascript:alert(1)) ![b](https://example.org/c.svg) <https://example.org>")
    assert not re.search("<(a|img)", page)


def points(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"variant": name, "color": "#0072b2", "x": x, "y": x} for name in names for x in (0.0, 1.0))


def test_equal_data_make_an_equal_figure_with_a_description():
    first, second = (curve_figure(points(["base", "lora"]), "x", "y", [(0, 0), (1, 1)], "Title $") for _ in "ab")
    assert first == second and first.startswith(r"![Title \$: y by x of base, lora]")


def test_a_legend_of_long_names_makes_the_figure_wider_and_is_not_clipped():
    def width(names):
        figure = curve_figure(points(names), "x", "y", [(0, 0)], "Title")
        svg = base64.b64decode(figure.removesuffix(")").partition(SVG)[2])
        return float(re.search(rb'width="([\d.]+)pt"', svg).group(1))

    long_names = [f"a_very_long_name_of_an_adapter_number_{i}" for i in range(6)]
    assert width(["base", "lora"]) < 320 < 400 < width(long_names)
