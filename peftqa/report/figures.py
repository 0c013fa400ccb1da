"""The report's figures as SVG text for an HTML page, whose colours and fonts they take. Imports no torch."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Sequence
from html import escape

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

# Placeholders for what the page decides: text, axes with reference lines, and grid.
INK, AXIS, GRID = "#010101", "#010102", "#010103"
PAGE_COLORS = {INK: "currentColor", AXIS: "var(--grid)", GRID: "var(--line)"}
KNOWN = ("majority", "tfidf", "base", "calibrated", "question_only", "fewshot")
KNOWN += ("prompt", "prefix", "peft_prefix", "lora", "ia3")
MARKERS = dict(zip(KNOWN, "osD^v*PX<hp", strict=True))
OTHER_MARKERS = "d>8H"
INCHES, SMALL = (4.2, 3.1), (2.9, 2.6)
TICKS = [0, 0.25, 0.5, 0.75, 1]
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}
STYLE |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK)
STYLE |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), AXIS)
STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False)


def variant_marker(name: str) -> str:
    """Matplotlib's marker of a variant, for readers who do not see colours. It depends on the name alone."""
    return MARKERS.get(name) or OTHER_MARKERS[zlib.crc32(name.encode()) % len(OTHER_MARKERS)]


def marker_path(name: str) -> str:
    """The outline of a variant's marker as an SVG path, between -10 and 10, for the legends of the page."""
    marker = MarkerStyle(variant_marker(name))
    (outline,) = marker.get_path().transformed(marker.get_transform() + Affine2D().scale(14, -14)).to_polygons()
    return f"M{' '.join(f'{x:.1f},{y:.1f}' for x, y in outline)}Z"


def training_figure(
    table: pd.DataFrame, value: str, axis: str, title: str, description: str, n_train: float | None = None
) -> str:
    """A value over epochs or, without n_train, over seconds: each run a thin line, the mean over runs a thick one.

    `table` has columns variant, color, fold, seed, split, epoch, the value, and `seconds` if n_train is None; a bool
    `kept` marks epochs that get a ring. n_train: training examples of an epoch, for a second axis.
    """
    x = "epoch" if n_train else "seconds"

    def draw(axes: Axes) -> None:
        for (_, split), rows in table.groupby(["variant", "split"], sort=False):
            style, runs = look(rows) | {"ls": "-" if split == "validation" else "--"}, rows.groupby(["fold", "seed"])
            if len(runs) > 1:
                for _, run in runs:
                    axes.plot(run[x], run[value], **style | {"marker": ""}, lw=0.5, alpha=0.55)
            epochs = rows.assign(at=rows["epoch"]).groupby("at")[[x, value]]
            mean = epochs.mean()[epochs.size() == len(runs)]  # as far as all runs came
            axes.plot(mean[x], mean[value], **style, lw=2, zorder=3)
            if "kept" in rows:
                kept, size = rows[rows["kept"]], 9 if len(runs) < 10 else 5
                axes.plot(kept[x], kept[value], **style | {"marker": "o", "ls": ""}, ms=size, mfc="none", mew=0.8)
        axes.set(xlabel="epoch" if n_train else "seconds of training", ylabel=axis)
        if n_train:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            seen = axes.secondary_xaxis(-0.22, functions=(lambda at: at * n_train, lambda at: at / n_train))
            seen.set_xlabel("training examples seen")

    return draw_svg(draw, f"training-{value}-{x}", title, description)


def curve_figure(
    name: str,
    table: pd.DataFrame,
    axes_names: dict[str, str],
    dotted: Sequence[tuple[float, float]],
    title: str,
    description: str,
    steps: bool = False,
) -> str:
    """One line per variant between 0 and 1. `table` has columns variant, color and the two of `axes_names` (x, y).

    axes_names: the axes' names by column; dotted: x and y of the reference line's ends; steps: a point's y also
    holds for all x since the point before.
    """
    x, y = axes_names

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*dotted, strict=True), color=AXIS, ls=":")
        for _, rows in table.groupby("variant", sort=False):
            axes.plot(rows[x], rows[y], markevery=0.25, ds="steps-pre" if steps else "default", **look(rows))
        unit_square(axes, *axes_names.values())

    return draw_svg(draw, name, title, description)


def reliability_figure(table: pd.DataFrame, title: str, description: str) -> str:
    """Accuracy by confidence of one variant, one point per bin with its interval and the number of its answers.

    `table` has columns variant, color, confidence, accuracy, low, high, count.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=AXIS, ls=":")
        confidence, accuracy = table["confidence"], table["accuracy"]
        axes.vlines(confidence, table["low"], table["high"], color=table["color"].iloc[0], lw=1.2)
        axes.plot(confidence, accuracy, **look(table), ls="")
        for row in table.itertuples():
            at = row.confidence, max(row.high, row.accuracy)
            axes.annotate(f"{row.count:,}", at, (0, 4), textcoords="offset points", ha="center", fontsize=8)
        unit_square(axes, "confidence", "accuracy")
        axes.set_ylim(-0.02, 1.15)

    return draw_svg(draw, f"reliability-{table['variant'].iloc[0]}", title, description, SMALL)


def look(rows: pd.DataFrame) -> dict:
    """Colour and marker of the variant that these rows are of."""
    return {"color": rows["color"].iloc[0], "marker": variant_marker(rows["variant"].iloc[0])}


def unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=TICKS, yticks=TICKS)


def draw_svg(
    draw: Callable[[Axes], None], name: str, title: str, description: str, inches: tuple[float, float] = INCHES
) -> str:
    """`<svg>` with title and description for a screen reader; the same bytes for the same data.

    No other figure of the page may have this `name`: ids are made from it.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(inches, layout="constrained")
        draw(figure.add_subplot())
        figure.draw_without_rendering()  # a second pass of the layout, after the first has changed the ticks
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    # In a page it must not have a size, a font, a style sheet or repeated ids of its own.
    _, opening, body = re.split(r"(<svg[^>]*>)", buffer.getvalue(), maxsplit=1)
    box = re.search(r'viewBox="[^"]*"', opening).group()
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"|font-family: [^;"]*;? ?', "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for placeholder, color in PAGE_COLORS.items():
        body = body.replace(placeholder, color)
    return (
        f'<svg {box} role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{body.strip()}'
    )
