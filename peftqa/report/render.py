"""The report: what the numbers say in words, tables and figures, as one HTML file and as Markdown. Imports no torch."""

from __future__ import annotations

import base64
import hashlib
import statistics
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from statsmodels.stats.proportion import proportion_confint

from peftqa.config.params import Params
from peftqa.evaluation.predictions import Replicates, predict, same_test_questions
from peftqa.model.prompts import fill_instruction
from peftqa.report import figures, wording
from peftqa.statistics.comparison import p_text

TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = ("torch", "transformers", "peft")
LINES = "With several runs, each is a thin line; the thick line is their mean, as far as all of them trained"
RINGS = "rings mark the epochs kept"


class Results(NamedTuple):
    """What a finished run left behind; every mapping by variant has the variants listed, in their order."""

    params: Params
    counts: dict  # data/clean/counts.json
    splits: dict[int, dict[str, pd.DataFrame]]  # by fold: train, val, test; columns id, question, context, label
    comparison: dict  # comparison/comparison.json
    evaluation: dict[str, dict]  # the means of evaluation/VARIANT/metrics.json
    predictions: dict[str, Replicates]  # on test
    curves: dict[str, pd.DataFrame]  # comparison/NAME.csv; empty if nothing was trained
    training_cost: dict[str, list[dict]]  # of the adapters, by run: runtime/train/..., with its fold and seed
    answering_cost: dict[str, list[dict]]  # runtime/predict/..., by run; without the baselines
    commit: str | None  # of the code, if git knows it


def render(results: Results) -> tuple[str, str]:
    """The report as HTML, which needs no other file, and as Markdown for a comment."""
    environment = template_environment()
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = contents(results) | {
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_digest": f"sha256-{digest}",
    }
    html, markdown = (environment.get_template(f"report.{kind}.j2").render(values) for kind in ("html", "md"))
    return html, markdown


def template_environment() -> Environment:
    """Jinja as the templates here are written for; only what becomes HTML is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = ("value", "interval", "points", "evidence", "outcome", "standard_errors", "listed", "significant")
    environment.filters |= {name: getattr(wording, name) for name in names} | {"p": p_text}
    environment.globals["wording"] = wording
    return environment


def contents(results: Results) -> dict:
    """All that the templates ask for."""
    params, comparison = results.params, results.comparison
    names, pairs = list(comparison["variants"]), comparison["pairs"]
    adapters = [name for name in names if name in params.adapters]
    exact = {pair["test"]["name"] == "mcnemar" for pair in pairs}
    instruction = fill_instruction(params.template, params.data.labels)
    return {
        **results._asdict(),
        "settings": {name: params.adapters[name].model_dump(exclude_none=True) for name in adapters},
        "tests": [wording.MCNEMAR if one else wording.T_TESTS for one in sorted(exact)],
        "adapters": adapters,
        "spread": spread(adapters, comparison),
        # A replicate is a seed with all its folds. If every fold asks the same questions, it is a run.
        "replicate": "run" if same_test_questions(params.split.protocol) else "seed",
        "widest": max((abs(end) for pair in pairs for end in pair["test"]["interval_holm"]), default=0),
        "prompt": params.template.text.replace("{instruction}", instruction),
        "sizes": {split: sizes(split, results) for split in ("train", "val", "test")},
        "kept_epochs": {name: kept_epochs(comparison["variants"][name]["epochs"]) for name in adapters},
        "markers": {name: figures.marker_path(name) for name in names},
        "curve_figures": curve_figures(results),
        "reliability_figures": reliability_figures(results),
        "risk_figure": risk_figure(results),
        **training_figures(results),
        "confusion": confusion(results),
        "questions": questions(results),
        "cost": {name: cost(name, results) for name in names},
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def spread(adapters: Iterable[str], comparison: dict) -> dict[str, dict]:
    """How far an adapter's replicates differ in accuracy; empty if there is only one of each."""
    accuracies = {
        name: [row["accuracy"] for row in comparison["variants"][name]["replicates"].values()] for name in adapters
    }
    return {
        name: {"sd": statistics.stdev(values), "ends": (min(values), max(values)), "each": values}
        for name, values in accuracies.items()
        if len(values) > 1
    }


def sizes(split: str, results: Results) -> str:
    """How many questions a fold's split has, and of a single fold how many of each label."""
    tables = [tables[split] for tables in results.splits.values()]
    fewest, most = min(map(len, tables)), max(map(len, tables))
    if len(tables) > 1:
        return f"{split} {fewest}" + (f" to {most}" if most > fewest else "")
    counts = (f"{label} {(tables[0]['label'] == label).sum()}" for label in results.params.data.labels)
    return f"{split} {most} ({', '.join(counts)})"


def kept_epochs(runs: list[dict]) -> str:
    """`3 of 3`, or of several runs `1 to 3 of 3, median 2`."""
    kept, last = [run["kept"] for run in runs], max(run["last"] for run in runs)
    if min(kept) == max(kept):
        return f"{kept[0]} of {last}"
    return f"{min(kept)} to {max(kept)} of {last}, median {statistics.median(kept):g}"


def questions(results: Results) -> list[dict]:
    """Every test question with each variant's answer, and the `tags` that the report's filters look for."""
    labels = results.params.data.labels
    texts = pd.concat([tables["test"] for tables in results.splits.values()]).drop_duplicates("id").set_index("id")
    averaged = {name: predictions.averaged for name, predictions in results.predictions.items()}
    given = {name: predict(probabilities, labels) for name, probabilities in averaged.items()}
    first = next(iter(results.predictions.values()))
    rows = []
    for i, (pmid, truth) in enumerate(zip(first.ids, first.truth, strict=True)):
        answers = {name: str(given[name][i]) for name in given}
        wrong = [name for name, answer in answers.items() if answer != truth]
        tags = [f"label-{truth}", *(f"wrong-{name}" for name in wrong)]
        tags += ["disagree"] if len(set(answers.values())) > 1 else []
        tags += ["some-wrong"] if wrong else []
        tags += ["all-wrong"] if len(wrong) == len(answers) else []
        p = {name: float(averaged[name][i].max()) for name in given}
        asked = texts.loc[pmid, ["question", "context"]].to_dict()
        rows.append(asked | {"id": pmid, "label": truth, "answers": answers, "p": p, "wrong": wrong, "tags": tags})
    return rows


def confusion(results: Results) -> dict[str, dict[str, dict[str, dict]]]:
    """Variant, actual label, predicted label -> `count` and `share` of the actual label's questions."""
    cells: dict = {}
    for row in results.curves["confusion"].to_dict("records"):
        cells.setdefault(row["variant"], {}).setdefault(row["actual"], {})[row["predicted"]] = row
    return cells


def curve_figures(results: Results) -> list[dict]:
    """ROC and precision-recall, one figure per label that has them."""
    truth = pd.Series(next(iter(results.predictions.values())).truth)
    variants = results.comparison["variants"].items()
    areas = ", ".join(f"{name} {wording.value(variant['metrics']['roc_auc'], 'roc_auc')}" for name, variant in variants)
    drawn, names = [], {"fpr": "false positive rate", "tpr": "true positive rate"}
    for label, table in results.curves["roc"].groupby("label", sort=False):
        title, text = f"ROC curve: {label}", "Up and to the left is better; the dotted line is chance."
        described = f"{text} Area under the curve: {areas}."
        svg = figures.curve_figure(f"roc-{label}", table, names, [(0, 0), (1, 1)], title, described)
        drawn.append(entry(title, text, svg, table))
    # A curve of equal probabilities has two points only, and the line between them would look better than it is.
    curves = results.curves["precision_recall"]
    for label, table in curves[curves["variant"] != "majority"].groupby("label", sort=False):
        title, share = f"Precision and recall: {label}", float((truth == label).mean())
        text = f"The dotted line is the precision of always answering {label}, {wording.value(share, 'accuracy')}."
        dotted, names = [(0, share), (1, share)], {"recall": "recall", "precision": "precision"}
        svg = figures.curve_figure(f"precision-recall-{label}", table, names, dotted, title, text, steps=True)
        drawn.append(entry(title, text, svg, table))
    return drawn


def reliability_figures(results: Results) -> list[dict]:
    """One figure per variant."""
    alpha = results.comparison["alpha"]
    drawn = []
    for name, table in results.curves["reliability"].groupby("variant", sort=False):
        # Replicates answer the same questions, so the number of questions in a bin is that of one replicate.
        questions = table["count"] / len(results.comparison["variants"][name]["replicates"])
        low, high = proportion_confint(table["accuracy"] * questions, questions, alpha, "wilson")
        table = table.assign(low=low, high=high)
        points = (
            f"{row.lower:.1f} to {row.upper:.1f}: {row.count} answers, confidence {row.confidence:.3f}, "
            f"accuracy {row.accuracy:.3f} ({row.low:.3f} to {row.high:.3f})"
            for row in table.itertuples(index=False)
        )
        svg = figures.reliability_figure(table, f"Reliability: {name}", "; ".join(points))
        drawn.append({"title": name, "text": "", "svg": Markup(svg), "variants": []})
    return drawn


def risk_figure(results: Results) -> list[dict]:
    """The share of errors among the most confident answers, against the share of questions answered."""
    coverage, title, table = results.params.evaluate.coverage, "Risk and coverage", results.curves["risk_coverage"]
    text = f"Errors among the most confident answers; the dotted line leaves {100 - 100 * coverage:g}% to a person."
    names, dotted = {"coverage": "coverage", "risk": "share of errors"}, [(coverage, 0), (coverage, 1)]
    return [entry(title, text, figures.curve_figure("risk-coverage", table, names, dotted, title, text), table)]


def training_figures(results: Results) -> dict[str, list[dict]]:
    """Validation log loss and loss by epoch and examples seen, and by time; none if nothing was trained.

    By time too, since a training example is more work for one method than for another.
    """
    log_loss, loss = results.curves["log_loss"], results.curves["loss"]
    if not len(log_loss):
        return {"training_figures": [], "cost_figure": []}
    runs = list(log_loss[["variant", "fold", "seed"]].itertuples(index=False, name=None))
    epochs = {name: variant["epochs"] or () for name, variant in results.comparison["variants"].items()}
    kept = {(name, run["fold"], run["seed"]): run["kept"] for name in epochs for run in epochs[name]}
    seconds = {
        (name, run["fold"], run["seed"]): run["seconds"] / run["epochs"]
        for name in results.training_cost
        for run in results.training_cost[name]
    }
    log_loss = log_loss.assign(
        kept=log_loss["epoch"] == [kept[run] for run in runs],
        seconds=log_loss["epoch"] * [seconds[run] for run in runs],
    )
    n_train = statistics.mean(len(tables["train"]) for tables in results.splits.values())

    def draw(table: pd.DataFrame, column: str, title: str, text: str, examples: float | None = n_train) -> dict:
        axis = column.replace("_", " ")
        return entry(title, text, figures.training_figure(table, column, axis, title, text, examples), table)

    by_epoch = f"The epoch with the lowest value is kept. {LINES}; {RINGS}."
    of_tokens = f"Cross-entropy of the answer's tokens in nats, on training (dashed) and validation. {LINES}."
    by_time = f"Each run's seconds are spread evenly over its epochs. {LINES}; {RINGS}."
    return {
        "training_figures": [
            draw(log_loss, "log_loss", "Validation log loss against epochs and compute", by_epoch),
            draw(loss, "loss", "Loss", of_tokens),
        ],
        "cost_figure": [draw(log_loss, "log_loss", "Validation log loss against time", by_time, None)],
    }


def entry(title: str, text: str, svg: str, table: pd.DataFrame) -> dict:
    """A figure for the template, with the variants of `table` as its legend."""
    return {"title": title, "text": text, "svg": Markup(svg), "variants": list(table["variant"].unique())}


def cost(name: str, results: Results) -> dict[str, float | int | None]:
    """What a run of a variant takes to train and to answer; None if nothing is trained, or if no model answers."""
    training, answering = results.training_cost.get(name, []), results.answering_cost.get(name, [])
    milliseconds = [run["milliseconds_per_question"] for run in answering]

    def typical(runs: list[dict], key: str) -> float | None:
        return statistics.median(run[key] for run in runs) if runs else None

    return {
        "training_seconds": typical(training, "seconds"),
        "training_memory": typical(training, "peak_memory_mb"),
        "median": typical(milliseconds, "median"),
        "percentile_95": typical(milliseconds, "percentile_95"),
        "memory": typical(answering, "peak_memory_mb"),
    }
