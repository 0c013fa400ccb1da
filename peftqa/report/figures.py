"""The report's figures as SVG text to stand in an HTML page, whose colours and fonts they take. Imports no torch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# Stand-ins for what the page decides: text, axes with reference lines, and grid.
INK, AXIS, GRID = "#010101", "#010102", "#010103"
PAGE_COLORS = {INK: "currentColor", AXIS: "var(--grid)", GRID: "var(--line)"}
MARKERS = "osD^vPX*"  # a variant is told by its marker too, for readers who do not see the colour
INCHES, SMALL = (4.2, 3.3), (2.9, 2.6)
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": AXIS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def with_markers(table: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """A curve's table with each variant's marker, which the functions below ask for beside its colour."""
    return table.assign(marker=[MARKERS[variants.index(name) % len(MARKERS)] for name in table["variant"]])


def training_figure(
    table: pd.DataFrame, value: str, axis: str, title: str, description: str, n_train: float | None = None
) -> str:
    """A value over epochs or, without n_train, over seconds: each run a thin line, the mean over runs a thick one.

    `table` has columns variant, color, marker, fold, seed, split, epoch and the value; `seconds` where these are drawn;
    a bool `kept` where epochs are to be ringed. n_train: training examples of an epoch, for a second axis.
    """
    x = "epoch" if n_train else "seconds"

    def draw(axes: Axes) -> None:
        for (_, split), rows in table.groupby(["variant", "split"], sort=False):
            style, runs = {"ls": "-" if split == "validation" else "--"}, rows.groupby(["fold", "seed"])
            if len(runs) > 1:
                for _, run in runs:
                    axes.plot(run[x], run[value], **style, **look(run, marker=""), lw=0.5, alpha=0.55)
            epochs = rows.assign(at=rows["epoch"]).groupby("at")[[x, value]]
            mean = epochs.mean()[epochs.size() == len(runs)]  # as far as all runs came
            axes.plot(mean[x], mean[value], **style, **look(rows), lw=2, zorder=3)
            if "kept" in rows:
                kept, size = rows[rows["kept"]], 9 if len(runs) < 10 else 5
                axes.plot(kept[x], kept[value], **look(rows, marker="o"), ls="", ms=size, mfc="none", mew=0.8)
        axes.set(xlabel="epoch" if n_train else "seconds of training", ylabel=axis)
        if n_train:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            seen = axes.secondary_xaxis(-0.22, functions=(lambda at: at * n_train, lambda at: at / n_train))
            seen.set_xlabel("training examples seen")
        legend(axes, table)

    return draw_svg(draw, f"training-{value}-{x}", title, description)


def roc_figure(table: pd.DataFrame, title: str, description: str) -> str:
    """ROC curves of one label; `table` has columns variant, color, label, fpr, tpr."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=AXIS, ls=":")
        plot_variants(axes, table, "fpr", "tpr")
        unit_square(axes, "false positive rate", "true positive rate")

    return draw_svg(draw, f"roc-{table['label'].iloc[0]}", title, description)


def precision_recall_figure(table: pd.DataFrame, share: float, title: str, description: str) -> str:
    """Precision-recall curves of one label, which is the true one of `share` of the questions."""

    def draw(axes: Axes) -> None:
        axes.axhline(share, color=AXIS, ls=":")
        plot_variants(axes, table, "recall", "precision")
        unit_square(axes, "recall", "precision")

    return draw_svg(draw, f"precision-recall-{table['label'].iloc[0]}", title, description)


def reliability_figure(table: pd.DataFrame, title: str, description: str) -> str:
    """Accuracy by confidence of one variant, a point a bin with its interval and the number of its answers.

    `table` has columns variant, color, marker, confidence, accuracy, low, high, count.
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


def risk_coverage_figure(table: pd.DataFrame, coverage: float, title: str, description: str) -> str:
    """Errors among the answers given, the surest first; `coverage` is marked."""

    def draw(axes: Axes) -> None:
        axes.axvline(coverage, color=AXIS, ls=":")
        plot_variants(axes, table, "coverage", "risk")
        unit_square(axes, "coverage", "share of errors")

    return draw_svg(draw, "risk-coverage", title, description)


def plot_variants(axes: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    for _, rows in table.groupby("variant", sort=False):
        axes.plot(rows[x], rows[y], markevery=0.25, **look(rows))
    legend(axes, table)


def look(rows: pd.DataFrame, marker: str | None = None) -> dict:
    """Colour and marker of the variant whose rows these are."""
    return {"color": rows["color"].iloc[0], "marker": rows["marker"].iloc[0] if marker is None else marker}


def legend(axes: Axes, table: pd.DataFrame) -> None:
    """The variants, above the axes."""
    handles = [Line2D([], [], label=name, **look(rows)) for name, rows in table.groupby("variant", sort=False)]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(len(handles), 3),
        borderaxespad=0.3,
        handlelength=1.8,
        columnspacing=1.2,
    )


def unit_square(axes: Axes, x: str, y: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=ticks, yticks=ticks)


def draw_svg(
    draw: Callable[[Axes], None], name: str, title: str, description: str, inches: tuple[float, float] = INCHES
) -> str:
    """`<svg>` with title and description for those who hear it; the same bytes for the same data.

    `name` must be the only one of its kind on the page: ids are made from it.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(inches, layout="constrained")
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
