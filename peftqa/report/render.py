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
from peftqa.model.prompts import join_labels
from peftqa.report import figures, wording
from peftqa.report.wording import METRICS, interval, level, listed, points, significant, value
from peftqa.statistics.bootstrap import BOOTSTRAPPED
from peftqa.statistics.comparison import p_text

TEMPLATES = Path(__file__).parent / "templates"
BASELINES = {
    "majority": "always the label most frequent in training",
    "tfidf": "logistic regression on word counts (TF-IDF)",
}
HUMANS = {
    "human_unaided": ("human, unaided", "annotator without the abstract's conclusion"),
    "human_aided": ("human, aided", "annotator who had read the conclusion"),
}
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
    curves: dict[str, pd.DataFrame]  # comparison/NAME.csv; empty where nothing was trained
    training_cost: dict[str, list[dict]]  # of the adapters, by run: runtime/train/..., with its fold and seed
    answering_cost: dict[str, list[dict]]  # runtime/predict/..., by run; none of the baselines
    commit: str | None  # of the code, where git knows it


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
    environment.filters |= {
        "value": value,
        "interval": interval,
        "points": points,
        "evidence": wording.evidence,
        "standard_errors": wording.standard_errors,
        "decided": wording.DECIDED.get,
        "span": wording.span,
        "p": p_text,
        "listed": listed,
        "significant": significant,
        # No line may end within `p = 0.012`.
        "unbroken": lambda text: text.replace("p = ", "p\u00a0=\u00a0").replace("p < ", "p\u00a0<\u00a0"),
    }
    return environment


def contents(results: Results) -> dict:
    """All that the templates ask for."""
    params, comparison = results.params, results.comparison
    names = list(comparison["variants"])
    results = results._replace(
        curves={name: figures.with_markers(table, names) for name, table in results.curves.items()}
    )
    adapters = [name for name in names if name in params.adapters]
    pairs = comparison["pairs"]
    exact = {pair["test"]["name"] == "mcnemar" for pair in pairs}
    return {
        **results._asdict(),
        "confidence": level(comparison),
        "opening": wording.opening(comparison, params.data.name),
        "findings": wording.findings(comparison),
        "settings": {name: params.adapters[name].model_dump(exclude_none=True) for name in adapters},
        "tuning": wording.tuning(adapters, params),
        "training_budget": wording.training_budget(params.train.epochs),
        "subjects": listed(adapters or names),
        "described": {name: describe(name, params) for name in names},
        "references": wording.references(names, params),
        "humans": HUMANS,
        "metrics": METRICS,
        "explained": wording.EXPLAINED,
        "compared": BOOTSTRAPPED,
        "headings": METRICS | {"ece": "calibration error"},
        "lower_is_better": wording.LOWER_IS_BETTER,
        "tests": [wording.MCNEMAR if exact else wording.T_TESTS for exact in sorted(exact)],
        "adapters": adapters,
        "spread": spread(adapters, comparison),
        # A replicate is a seed with all its folds; where every fold asks the same questions, a run.
        "replicate": "run" if same_test_questions(params.split.protocol) else "seed",
        "widest": max((abs(end) for pair in pairs for end in pair["test"]["interval_holm"]), default=0),
        "prompt": params.template.text.replace(
            "{instruction}", params.template.instruction.format(labels=join_labels(params.data.labels))
        ),
        "sizes": {split: sizes(split, results) for split in ("train", "val", "test")},
        "kept_epochs": {name: kept_epochs(comparison["variants"][name]["epochs"]) for name in adapters},
        "curve_figures": curve_figures(results),
        "reliability_figures": reliability_figures(results),
        "risk_figure": risk_figure(results),
        "training_figures": training_figures(results),
        "cost_figure": cost_figure(results),
        "confusion": confusion(results),
        "questions": questions(results),
        "cost": {name: cost(name, results) for name in names},
        "versions": versions(),
    }


def describe(name: str, params: Params) -> str:
    """What a variant is, in a few words."""
    if name in BASELINES:
        return BASELINES[name]
    if name in params.adapters:
        return wording.adapter(params.adapters[name])
    asked = params.evaluate.untrained[name]
    parts = [f"after {asked.few_shot} training examples"] if asked.few_shot else []
    parts += ["asked without the abstract"] if asked.context is False else []
    parts += ["with one bias per label, fitted on validation"] if asked.calibrated else []
    return f"the frozen model {', '.join(parts) or 'as it is'}"


def spread(adapters: Iterable[str], comparison: dict) -> dict[str, dict]:
    """How far an adapter's replicates differ in accuracy; empty where there is one of each."""
    accuracies = {
        name: [row["accuracy"] for row in comparison["variants"][name]["replicates"].values()] for name in adapters
    }
    return {
        name: {"sd": statistics.stdev(values), "ends": (min(values), max(values)), "each": values}
        for name, values in accuracies.items()
        if len(values) > 1
    }


def sizes(split: str, results: Results) -> str:
    """How many questions a fold's split has, and of one fold how many of each label."""
    tables = [tables[split] for tables in results.splits.values()]
    fewest, most = (end(map(len, tables)) for end in (min, max))
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


def versions() -> str:
    """Versions of the packages that compute, as they are installed where the report is written."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def questions(results: Results) -> list[dict]:
    """Every test question with each variant's answer, and the `tags` that the report's filters look for."""
    labels = results.params.data.labels
    texts = pd.concat([tables["test"] for tables in results.splits.values()]).drop_duplicates("id").set_index("id")
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
    truth = pd.Series(next(iter(results.predictions.values())).truth)
    drawn = []
    for label, table in results.curves["roc"].groupby("label", sort=False):
        title = f"ROC curve: {label}"
        text = "Up and to the left is better; the dotted line is chance."
        drawn.append(entry(title, text, figures.roc_figure(table, title, f"{text} {areas(results)}")))
    for label, table in results.curves["precision_recall"].groupby("label", sort=False):
        title, share = f"Precision and recall: {label}", float((truth == label).mean())
        text = f"The dotted line is the precision of always answering {label}, {value(share, 'accuracy')}."
        drawn.append(entry(title, text, figures.precision_recall_figure(table, share, title, text)))
    return drawn


def reliability_figures(results: Results) -> list[dict]:
    """One figure a variant."""
    alpha = results.comparison["alpha"]
    drawn = []
    for name, table in results.curves["reliability"].groupby("variant", sort=False):
        # Replicates answer the same questions, so their answers in a bin are no more questions than those of one.
        questions = table["count"] / len(results.comparison["variants"][name]["replicates"])
        low, high = proportion_confint(table["accuracy"] * questions, questions, alpha, "wilson")
        table = table.assign(low=low, high=high)
        points = (
            f"{row.lower:.1f} to {row.upper:.1f}: {row.count} answers, confidence {row.confidence:.3f}, "
            f"accuracy {row.accuracy:.3f} ({row.low:.3f} to {row.high:.3f})"
            for row in table.itertuples(index=False)
        )
        drawn.append(entry(name, "", figures.reliability_figure(table, f"Reliability: {name}", "; ".join(points))))
    return drawn


def risk_figure(results: Results) -> list[dict]:
    coverage, title = results.params.evaluate.coverage, "Risk and coverage"
    text = f"Errors among the most confident answers; the dotted line leaves {100 - 100 * coverage:g}% to a person."
    risk = figures.risk_coverage_figure(results.curves["risk_coverage"], coverage, title, text)
    return [entry(title, text, risk)]


def training_figures(results: Results) -> list[dict]:
    """Validation log loss and loss by epoch and examples seen; none where nothing was trained."""
    if not len(results.curves["log_loss"]):
        return []
    n_train = statistics.mean(len(tables["train"]) for tables in results.splits.values())
    title = "Validation log loss against epochs and compute"
    text = f"By this the epoch kept is chosen. {LINES}; {RINGS}."
    table = with_kept_epochs(results.curves["log_loss"], results)
    log_loss = entry(title, text, figures.training_figure(table, "log_loss", "log loss", title, text, n_train))
    title = "Loss"
    text = f"Cross-entropy of the answer's tokens in nats, on training (dashed) and validation. {LINES}."
    loss = figures.training_figure(results.curves["loss"], "loss", "loss", title, text, n_train)
    return [log_loss, entry(title, text, loss)]


def cost_figure(results: Results) -> list[dict]:
    """Validation log loss by time: a training example is more work for one method than for another."""
    if not len(results.curves["log_loss"]):
        return []
    seconds = {
        (name, run["fold"], run["seed"]): run["seconds"] / run["epochs"]
        for name, runs in results.training_cost.items()
        for run in runs
    }
    table = with_kept_epochs(results.curves["log_loss"], results)
    table["seconds"] = table["epoch"] * [seconds[run] for run in runs_of(table)]
    title = "Validation log loss against time"
    text = f"A run's seconds are taken as spread evenly over its epochs. {LINES}; {RINGS}."
    return [entry(title, text, figures.training_figure(table, "log_loss", "log loss", title, text))]


def with_kept_epochs(table: pd.DataFrame, results: Results) -> pd.DataFrame:
    """A training curve with a column `kept`: is this the epoch whose weights were kept."""
    kept = {
        (name, run["fold"], run["seed"]): run["kept"]
        for name, variant in results.comparison["variants"].items()
        for run in variant["epochs"] or ()
    }
    return table.assign(kept=table["epoch"] == [kept[run] for run in runs_of(table)])


def runs_of(table: pd.DataFrame) -> list[tuple]:
    """Variant, fold and seed of each row of a training curve."""
    return list(table[["variant", "fold", "seed"]].itertuples(index=False, name=None))


def areas(results: Results) -> str:
    """The areas under the curves, for who cannot see them."""
    variants = results.comparison["variants"].items()
    values = [f"{name} {value(variant['metrics']['roc_auc'], 'roc_auc')}" for name, variant in variants]
    return f"Area under the curve: {', '.join(values)}."


def entry(title: str, text: str, svg: str) -> dict:
    return {"title": title, "text": text, "svg": Markup(svg)}


def cost(name: str, results: Results) -> dict[str, float | int | None]:
    """What a run of a variant takes to train and to answer; None where nothing is trained, or no model answers."""
    training, answering = results.training_cost.get(name, []), results.answering_cost.get(name, [])

    def typical(numbers: list[float]) -> float | None:
        return statistics.median(numbers) if numbers else None

    milliseconds = [run["milliseconds_per_question"] for run in answering]
    return {
        "training_seconds": typical([run["seconds"] for run in training]),
        "training_memory": typical([run["peak_memory_mb"] for run in training]),
        "median": typical([run["median"] for run in milliseconds]),
        "percentile_95": typical([run["percentile_95"] for run in milliseconds]),
        "memory": typical([run["peak_memory_mb"] for run in answering]),
    }
