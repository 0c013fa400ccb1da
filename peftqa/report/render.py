"""The report: what the numbers say in words, tables and figures, as one HTML file and as Markdown. Imports no torch."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from peftqa import figures
from peftqa.comparison import p_text
from peftqa.metrics import predict
from peftqa.params import Params
from peftqa.predictions import SplitPredictions
from peftqa.prompts import name_labels
from peftqa.report.wording import FIGURES, LOWER_IS_BETTER, figure, finding, interval, listed, percent, points
from peftqa.significance import BOOTSTRAPPED

TEMPLATES = Path(__file__).parent / "templates"
REFERENCE_ROWS = {
    "majority": ("majority", "one answer to every question"),
    "tfidf_logistic_regression": ("TF-IDF", "logistic regression"),
    "human_reasoning_required": ("human, unaided", "annotator without the conclusion"),
    "human_reasoning_free": ("human, aided", "annotator with the conclusion"),
}


class Results(NamedTuple):
    """What a finished run left behind; every mapping by variant has the variants listed, in their order."""

    params: Params
    dataset: dict  # metrics/dataset.json
    splits: dict[str, pd.DataFrame]  # train, val, test: columns id, question, context, label
    baselines: dict[str, dict]  # metrics/baselines.json
    comparison: dict  # metrics/comparison.json
    predictions: dict[str, SplitPredictions]  # on test
    valid_answer_rate: dict[str, float]
    curves: dict[str, pd.DataFrame]  # plots/comparison/NAME.csv; empty where nothing was trained
    training_cost: dict[str, dict]  # runtime/train-NAME.json of the adapters
    evaluation_cost: dict[str, dict]  # runtime/evaluate-NAME.json


def render(results: Results) -> tuple[str, str]:
    """The report as HTML, which needs no other file, and as Markdown for a comment."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": figure, "interval": interval, "points": points, "p": p_text, "listed": listed}
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = contents(results) | {
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_digest": f"sha256-{digest}",
    }
    html, markdown = (environment.get_template(f"report.{kind}.j2").render(values) for kind in ("html", "md"))
    return html, markdown


def contents(results: Results) -> dict:
    """All that the templates ask for."""
    params, comparison = results.params, results.comparison
    names = list(comparison["variants"])
    results = results._replace(
        curves={name: figures.with_markers(table, names) for name, table in results.curves.items()}
    )
    trained = [name for name in names if name in params.adapters]
    return {
        **results._asdict(),
        "confidence": percent(comparison),
        "finding": finding(comparison),
        "described": {name: describe(name, params) for name in names},
        "columns": FIGURES,
        "compared": BOOTSTRAPPED,
        "lower_is_better": LOWER_IS_BETTER,
        "reference_rows": REFERENCE_ROWS,
        "trained": trained,
        "several_seeds": any(len(variant["seeds"]) > 1 for variant in comparison["variants"].values()),
        "widest": max((abs(end) for pair in comparison["pairs"] for end in pair["intervals"]["accuracy"]), default=0),
        "prompt": params.template.text.replace(
            "{instruction}", params.template.instruction.format(labels=name_labels(params.data.labels))
        ),
        "counts": {
            split: {label: int((table["label"] == label).sum()) for label in params.data.labels}
            for split, table in results.splits.items()
        },
        "curve_figures": curve_figures(results),
        "calibration_figures": calibration_figures(results),
        "training_figures": training_figures(results),
        "confusion": confusion(results),
        "questions": questions(results),
        "cost": {name: cost(name, results) for name in names},
    }


def describe(name: str, params: Params) -> str:
    """What a variant is, in a few words."""
    if name == "base":
        return "the frozen model as it is"
    if name == "fewshot":
        return f"the frozen model after {params.evaluate.few_shot} solved examples"
    adapter = params.adapters[name]
    return {
        "prompt_tuning": lambda: f"prompt tuning, {adapter.num_virtual_tokens} tokens",
        "kv_prefix": lambda: f"prefix tuning, {adapter.num_virtual_tokens} tokens ({listed(adapter.target)})",
        "prefix_tuning": lambda: f"PEFT's prefix tuning, {adapter.num_virtual_tokens} tokens",
        "lora": lambda: f"LoRA of rank {adapter.r}",
        "ia3": lambda: "IA3",
    }[adapter.method]()


def questions(results: Results) -> list[dict]:
    """Every test question with each variant's answer, and the `tags` that the report's filters look for."""
    labels = results.params.data.labels
    texts = results.splits["test"].set_index("id")
    averaged = {name: predictions.averaged for name, predictions in results.predictions.items()}
    given = {name: predict(probabilities, labels) for name, probabilities in averaged.items()}
    first = next(iter(results.predictions.values()))
    rows = []
    for i, (pmid, truth) in enumerate(zip(first.ids, first.truth, strict=True)):
        answers = [
            {"variant": name, "label": str(given[name][i]), "p": float(averaged[name][i].max())} for name in given
        ]
        wrong = [answer["variant"] for answer in answers if answer["label"] != truth]
        tags = [f"label-{truth}", *(f"wrong-{name}" for name in wrong)]
        tags += ["disagree"] if len({answer["label"] for answer in answers}) > 1 else []
        tags += ["some-wrong"] if wrong else []
        tags += ["all-wrong"] if len(wrong) == len(answers) else []
        text = texts.loc[pmid]
        rows.append(
            {
                "id": pmid,
                "question": text["question"],
                "context": text["context"],
                "label": truth,
                "answers": answers,
                "wrong": wrong,
                "tags": tags,
            }
        )
    return rows


def confusion(results: Results) -> dict[str, dict[str, dict[str, dict]]]:
    """Variant, actual label, predicted label -> `count` and `share` of the actual label's questions."""
    cells: dict = {}
    for row in results.curves["confusion"].to_dict("records"):
        cells.setdefault(row["variant"], {}).setdefault(row["actual"], {})[row["predicted"]] = row
    return cells


def curve_figures(results: Results) -> list[dict]:
    """ROC and precision-recall, one figure a label that has them."""
    truth = pd.Series(results.splits["test"]["label"])
    drawn = []
    for label, table in figures.by_label(results.curves["roc"]):
        title = f"ROC curve: {label}"
        text = "Up and to the left is better; the dotted line is chance."
        drawn.append(entry(title, text, figures.roc_figure(table, title, f"{text} {areas(results)}")))
    for label, table in figures.by_label(results.curves["precision_recall"]):
        title, share = f"Precision and recall: {label}", float((truth == label).mean())
        text = f"The dotted line is the precision of always answering {label}, {figure(share, 'accuracy')}."
        drawn.append(entry(title, text, figures.precision_recall_figure(table, share, title, text)))
    return drawn


def calibration_figures(results: Results) -> list[dict]:
    reliability, risk = results.curves["reliability"], results.curves["risk_coverage"]
    coverage = results.params.evaluate.coverage
    title = "Reliability"
    text = "Accuracy of the answers given with a certain confidence; on the dotted line the two agree."
    drawn = [entry(title, text, figures.reliability_figure(reliability, title, text))]
    title = "Risk and coverage"
    text = f"Errors among the most confident answers; the dotted line leaves {100 - 100 * coverage:g}% to a person."
    return [*drawn, entry(title, text, figures.risk_coverage_figure(risk, coverage, title, text))]


def training_figures(results: Results) -> list[dict]:
    """Loss and macro-F1 by epoch; none where nothing was trained."""
    if not len(results.curves["loss"]):
        return []
    each = "; one line a seed" if len(results.params.train.seeds) > 1 else ""
    title, text = (
        "Loss by epoch",
        f"Cross-entropy of the answer's tokens in nats, on training (dashed) and validation{each}.",
    )
    loss = figures.training_figure(results.curves["loss"], "loss", "loss", title, text)
    drawn = [entry(title, text, loss)]
    title, text = "Macro-F1 by epoch", f"On the validation split{each}."
    macro_f1 = figures.training_figure(results.curves["macro_f1"], "macro_f1", "macro-F1", title, text)
    return [*drawn, entry(title, text, macro_f1)]


def areas(results: Results) -> str:
    """The areas under the curves, for who cannot see them."""
    variants = results.comparison["variants"].items()
    values = [f"{name} {figure(variant['metrics']['roc_auc'], 'roc_auc')}" for name, variant in variants]
    return f"Area under the curve: {', '.join(values)}."


def entry(title: str, text: str, svg: str) -> dict:
    return {"title": title, "text": text, "svg": Markup(svg)}


def cost(name: str, results: Results) -> dict[str, float | int | None]:
    """What a variant took to train and takes to answer; None where there is nothing to train."""
    training, evaluation = results.training_cost.get(name), results.evaluation_cost[name]
    seconds = [seed["seconds"] for seed in training["seeds"].values()] if training else []
    return {
        "trainable_params": evaluation.get("trainable_params"),
        "adapter_bytes": evaluation.get("adapter_bytes"),
        "training_seconds": sum(seconds) / len(seconds) if seconds else None,
        "training_memory": training["peak_memory_mb"] if training else None,
        "memory": evaluation["peak_memory_mb"],
        **evaluation["milliseconds_per_question"],
    }
