"""The report's figures, each an image in Markdown that contains its SVG. Imports no torch."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable, Sequence

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from peftqa.report.markdown import SVG, escape_markdown
from peftqa.report.wording import value

MARKERS = {"majority": "o", "tfidf": "s", "base": "D", "calibrated": "^", "question_only": "v", "fewshot": "*"}
MARKERS |= {"prompt": "P", "prefix": "X", "peft_prefix": "<", "lora": "h", "ia3": "p"}
OTHER_MARKERS = "d>8H"
LARGE, SMALL = (4.2, 3.7), (2.35, 2.2)  # inches
STYLE = {
    "svg.hashsalt": "equal data make equal bytes",
    "text.parse_math": False,  # a label may contain $
    "font.size": 9.5,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#d5d9de",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.markersize": 4.5,
}
DOTTED = {"color": "#545d68", "ls": ":", "lw": 1.2}


def variant_marker(name: str) -> str:
    """Matplotlib's marker of a variant, for readers who do not see colours. It depends on the name alone."""
    return MARKERS.get(name) or OTHER_MARKERS[zlib.crc32(name.encode()) % len(OTHER_MARKERS)]


def interval_figure(
    rows: Sequence[tuple[str, float, Sequence[float], str]], title: str, line: float | None, plus: bool = False
) -> Markup:
    """Accuracies with their intervals in percent; each row is a label, a value, two ends and a colour.

    plus: they are differences, in points; line: where a dotted line is drawn.
    """
    labels = [f"{label}  {value(middle, 'accuracy', plus)}" for label, middle, _, _ in rows]

    def draw(axes: Axes) -> None:
        for y, (_, middle, ends, color) in enumerate(rows):
            axes.plot([100 * end for end in ends], [y, y], color=color, lw=2.5)
            axes.plot(100 * middle, y, color=color, marker="o", ms=7, clip_on=False)
        axes.set(xlabel="points" if plus else "percent", yticks=range(len(rows)), yticklabels=labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        if not plus:
            axes.set_xlim(0, 100)
        if line is not None:
            axes.axvline(100 * line, **DOTTED)

    return picture(draw, title, ", ".join(labels), (4.4, 0.9 + 0.26 * len(rows)))


def training_figure(table: pd.DataFrame, column: str) -> Markup:
    """One column of a table of epochs: each run a thin line, their mean a thick one, dashed on training questions."""

    def draw(axes: Axes) -> None:
        for (name, split), rows in table.groupby(["variant", "split"], sort=False):
            solid, runs = split == "validation", rows.pivot(index="epoch", columns=["fold", "seed"], values=column)
            style = look(rows) | {"ls": "-" if solid else "--"}
            if runs.shape[1] > 1:
                axes.plot(runs.index, runs, **style | {"marker": ""}, lw=0.5, alpha=0.55)
            mean = runs.dropna().mean(axis=1)  # as far as all runs came
            axes.plot(mean.index, mean, **style, lw=2, label=name if solid else None)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return picture(draw, column.replace("_", " ").capitalize(), "one line per adapter, by epoch")


def curve_figure(
    table: pd.DataFrame, x: str, y: str, dotted: Sequence, title: str, size: Sequence[float] = LARGE, **style
) -> Markup:
    """One line per variant between 0 and 1. `table` has columns variant, color, and `x` and `y`, which name the axes.

    If it has columns low and high, they are the interval of `y`. dotted: x and y of the ends of a line to compare with;
    style: of the variants' lines.
    """

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*dotted, strict=True), **DOTTED)
        for name, rows in table.groupby("variant", sort=False):
            label = name if table["variant"].nunique() > 1 else None
            axes.plot(rows[x], rows[y], **look(rows) | {"markevery": 0.25} | style, label=label)
            if "low" in rows:
                axes.vlines(rows[x], rows["low"], rows["high"], color=rows["color"].iloc[0], lw=1.2)
        axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))

    return picture(draw, title, f"{y} by {x} of {', '.join(table['variant'].unique())}", size)


def look(rows: pd.DataFrame) -> dict:
    """Colour and marker of the variant that these rows are of."""
    return {"color": rows["color"].iloc[0], "marker": variant_marker(rows["variant"].iloc[0])}


def picture(draw: Callable[[Axes], None], title: str, description: str, size: tuple[float, float] = LARGE) -> Markup:
    """The image, with title and description for a screen reader; the same bytes for the same data."""
    with matplotlib.rc_context(STYLE):
        figure, svg = Figure(size, layout="constrained"), io.BytesIO()
        axes = figure.add_subplot(title=title)
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=2)
        figure.savefig(svg, format="svg", metadata={"Date": None}, bbox_inches="tight")  # nothing is cut off
    return Markup(f"![{escape_markdown(f'{title}: {description}')}]({SVG}{base64.b64encode(svg.getvalue()).decode()})")
