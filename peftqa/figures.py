"""The report's figures as SVG text to stand in an HTML page, whose colours and fonts they take. Imports no torch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from html import escape

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# Stand-ins for what the page decides: text and axes, grid and reference lines.
INK, GRID = "#010101", "#010102"
PAGE_COLORS = {INK: "currentColor", GRID: "var(--grid)"}
MARKERS = "osD^vPX*"  # a variant is told by its marker too, for readers who do not see the colour
INCHES = (4.2, 3.3)
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def training_figure(table: pd.DataFrame, value: str, axis: str, title: str, description: str) -> str:
    """A value over epochs, one line a seed; `table` has columns variant, color, seed, split, epoch and the value."""

    def draw(axes: Axes) -> None:
        for (variant, split, _), rows in table.groupby(["variant", "split", "seed"], sort=False):
            axes.plot(rows["epoch"], rows[value], ls="-" if split == "validation" else "--", **look(table, variant))
        axes.set(xlabel="epoch", ylabel=axis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        kinds = table["split"].unique()
        legend(axes, table, {kind: "-" if kind == "validation" else "--" for kind in kinds} if len(kinds) > 1 else {})

    return draw_svg(draw, f"training-{value}", title, description)


def roc_figure(table: pd.DataFrame, title: str, description: str) -> str:
    """ROC curves of one label; `table` has columns variant, color, label, fpr, tpr."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, ls=":")
        plot_variants(axes, table, "fpr", "tpr")
        unit_square(axes, "false positive rate", "true positive rate")

    return draw_svg(draw, f"roc-{table['label'].iloc[0]}", title, description)


def precision_recall_figure(table: pd.DataFrame, share: float, title: str, description: str) -> str:
    """Precision-recall curves of one label, which is the true one of `share` of the questions."""

    def draw(axes: Axes) -> None:
        axes.axhline(share, color=GRID, ls=":")
        plot_variants(axes, table, "recall", "precision")
        unit_square(axes, "recall", "precision")

    return draw_svg(draw, f"precision-recall-{table['label'].iloc[0]}", title, description)


def reliability_figure(table: pd.DataFrame, title: str, description: str) -> str:
    """Accuracy by confidence, a point a bin; `table` has columns variant, color, confidence, accuracy."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GRID, ls=":")
        plot_variants(axes, table, "confidence", "accuracy", every=1)
        unit_square(axes, "confidence", "accuracy")

    return draw_svg(draw, "reliability", title, description)


def risk_coverage_figure(table: pd.DataFrame, coverage: float, title: str, description: str) -> str:
    """Errors among the answers given, the surest first; `coverage` is marked."""

    def draw(axes: Axes) -> None:
        axes.axvline(coverage, color=GRID, ls=":")
        plot_variants(axes, table, "coverage", "risk")
        unit_square(axes, "coverage", "share of errors")

    return draw_svg(draw, "risk-coverage", title, description)


def plot_variants(axes: Axes, table: pd.DataFrame, x: str, y: str, every: int | float = 0.25) -> None:
    for variant, rows in table.groupby("variant", sort=False):
        axes.plot(rows[x], rows[y], markevery=every, **look(table, variant))
    legend(axes, table)


def look(table: pd.DataFrame, variant: str) -> dict:
    """Colour and marker of a variant, the same wherever the same variants are drawn."""
    color = table.loc[table["variant"] == variant, "color"].iloc[0]
    return {"color": color, "marker": MARKERS[list(table["variant"].unique()).index(variant) % len(MARKERS)]}


def legend(axes: Axes, table: pd.DataFrame, lines: dict[str, str] | None = None) -> None:
    """Above the axes: every variant, then what each style in `lines` means."""
    variants = table["variant"].unique()
    handles = [Line2D([], [], label=variant, **look(table, variant)) for variant in variants]
    handles += [Line2D([], [], color=INK, ls=style, label=name) for name, style in (lines or {}).items()]
    columns = min(len(handles), 3)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.3,
        handlelength=1.8,
        columnspacing=1.2,
    )


def unit_square(axes: Axes, x: str, y: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)


def draw_svg(draw: Callable[[Axes], None], name: str, title: str, description: str) -> str:
    """`<svg>` with title and description for those who hear it; the same bytes for the same data.

    `name` must be the only one of its kind on the page: ids are made from it.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(INCHES, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return for_page(buffer.getvalue(), name, title, description)


def for_page(svg: str, name: str, title: str, description: str) -> str:
    """Matplotlib's SVG file as an element of a page: no size, font, style sheet or repeated id of its own."""
    _, opening, body = re.split(r"(<svg[^>]*>)", svg, maxsplit=1)
    box = re.search(r'viewBox="[^"]*"', opening).group()
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", body)  # groups, numbered alike in every figure
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for stand_in, color in PAGE_COLORS.items():
        body = body.replace(stand_in, color)
    return (
        f'<svg {box} role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{body.strip()}'
    )


def by_label(table: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The part of a curve's table of every label that has one, in order."""
    return table.groupby("label", sort=False) if len(table) else ()
