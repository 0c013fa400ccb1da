"""The report of a finished run: its text as Markdown, and the same with figures and questions as one HTML page.

Imports no torch.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup
from statsmodels.stats.proportion import proportion_confint

from peftqa.config.params import Params
from peftqa.evaluation.predictions import Replicates, predict
from peftqa.model.prompts import fill_instruction
from peftqa.report import tables
from peftqa.report.figures import SMALL, curve_figure, interval_figure, training_figure
from peftqa.report.markdown import as_html, escape_markdown, table, template_environment
from peftqa.report.wording import HUMANS, MINUS, level, listed
from peftqa.statistics.comparison import about_pairs

DIAGONAL = [(0, 0), (1, 1)]
PACKAGES = ("torch", "transformers", "peft")


class Results(NamedTuple):
    """What the finished pipeline left behind; mappings by variant are in the order of evaluate.variants."""

    params: Params
    counts: dict  # data/clean/counts.json
    splits: dict[int, dict[str, pd.DataFrame]]  # by fold: train, val, test; columns id, question, context, label
    comparison: dict  # comparison/comparison.json
    predictions: dict[str, Replicates]  # on test
    curves: dict[str, pd.DataFrame]  # comparison/CURVE.csv; loss and log_loss can be empty
    runtime: dict[str, dict[str, list[dict]]]  # by variant and stage: one dict per run, from runtime/
    commit: str | None  # of the code, if git knows it


def render(results: Results) -> tuple[str, str]:
    """The report as HTML, which needs no other file, and as Markdown without figures, cost and questions."""
    values, template = contents(results), template_environment(escape_markdown).get_template("report.md.j2")
    body, sections = as_html(template.render(values, page=True, figures=draw_figures(results)))
    page = template_environment().get_template("page.html.j2")
    html = page.render(values, body=body, sections=sections, questions=questions(results))
    return html, re.sub(r"\n{3,}", "\n\n", template.render(values, page=False))


def contents(results: Results) -> dict:
    """All that the templates ask for but the figures."""
    params, comparison = results.params, results.comparison
    adapters = [name for name in comparison["variants"] if name in params.adapters]
    rows = {
        "results": tables.result_rows(comparison),
        "pairs": tables.pair_rows(comparison),
        "detectable": tables.detectable_rows(comparison),
        "calibration": tables.calibration_rows(comparison),
        "confusion": tables.confusion_rows(results.curves["confusion"]),
        "cost": tables.cost_rows(results.runtime),
    }
    return {
        **results._asdict(),
        "tables": {name: table(found) if found else "" for name, found in rows.items()},
        "subjects": listed(adapters or comparison["variants"]),
        "adapters": adapters,
        "trainings": max((len(comparison["variants"][name]["epochs"]) for name in adapters), default=0),
        "about": about_pairs(comparison["pairs"]),
        "prompt": params.template.text.replace("{instruction}", fill_instruction(params.template, params.data.labels)),
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def questions(results: Results) -> list[dict]:
    """Every test question with each variant's answer and its probability."""
    texts = pd.concat([fold["test"] for fold in results.splits.values()]).drop_duplicates("id").set_index("id")
    averaged = {name: predictions.probabilities.mean(axis=0) for name, predictions in results.predictions.items()}
    given = {name: predict(probabilities, results.params.data.labels) for name, probabilities in averaged.items()}
    first = next(iter(results.predictions.values()))
    return [
        texts.loc[pmid, ["question", "context", "label"]].to_dict()
        | {"id": pmid, "answers": {name: (given[name][i], averaged[name][i].max()) for name in given}}
        for i, pmid in enumerate(first.ids)
    ]


def draw_figures(results: Results) -> dict[str, Markup]:
    """The page's figures, by the place where they stand."""
    comparison, curves = results.comparison, results.curves
    variants, between = comparison["variants"], f"with {level(comparison)} intervals"
    accuracies = [
        (name, variant["metrics"]["accuracy"], variant["intervals"]["accuracy"], variant["color"])
        for name, variant in variants.items()
    ]
    for name, row in comparison["humans"].items():
        accuracies.append((HUMANS[name][0], row["accuracy"], row["interval"], "black"))
    differences = []
    for pair in comparison["pairs"]:
        label, test = f"{pair['variant']} {MINUS} {pair['reference']}", pair["test"]
        differences.append((label, test["difference"], test["interval_holm"], variants[pair["variant"]]["color"]))
    majority = variants["majority"]["metrics"]["accuracy"] if "majority" in variants else None
    trained = [column for column in ("log_loss", "loss") if len(curves[column])]
    return {
        "accuracy": interval_figure(accuracies, f"Accuracy {between}", majority),
        "pairs": interval_figure(differences, f"Differences {between}, corrected", 0, plus=True),
        "curves": Markup("\n").join(curve_figures(results)),
        "reliability": Markup("\n").join(reliability_figures(results)),
        "training": Markup("\n").join(training_figure(curves[column], column) for column in trained),
    }


def curve_figures(results: Results) -> list[Markup]:
    """Risk by coverage, and ROC and precision-recall of each label that has them."""
    curves, coverage = results.curves, results.params.evaluate.coverage
    risk = curves["risk_coverage"].rename(columns={"risk": "share of errors"})
    drawn = [curve_figure(risk, "coverage", "share of errors", [(coverage, 0), (coverage, 1)], "Risk and coverage")]
    names = {"fpr": "false positive rate", "tpr": "true positive rate"}
    for label, curve in curves["roc"].rename(columns=names).groupby("label", sort=False):
        drawn.append(curve_figure(curve, *names.values(), DIAGONAL, f"ROC curve: {label}"))
    # A curve of equal probabilities has two points only, and the line between them would look better than it is.
    precision_recall = curves["precision_recall"].query("variant != 'majority'")
    truth = next(iter(results.predictions.values())).truth
    for label, curve in precision_recall.groupby("label", sort=False):
        share, title = truth.count(label) / len(truth), f"Precision and recall: {label}"
        dotted, steps = [(0, share), (1, share)], "steps-pre"  # a precision also holds for lower recalls
        drawn.append(curve_figure(curve, "recall", "precision", dotted, title, drawstyle=steps))
    return drawn


def reliability_figures(results: Results) -> list[Markup]:
    """Accuracy by confidence, one figure per variant."""
    drawn, alpha = [], results.comparison["alpha"]
    for name, curve in results.curves["reliability"].groupby("variant", sort=False):
        # Replicates answer the same questions, so the number of questions in a bin is that of one replicate.
        asked = curve["count"] / len(results.comparison["variants"][name]["replicates"])
        low, high = proportion_confint(curve["accuracy"] * asked, asked, alpha, "wilson")
        points = curve.assign(low=low, high=high)
        drawn.append(curve_figure(points, "confidence", "accuracy", DIAGONAL, name, SMALL, ls="", markevery=1))
    return drawn
