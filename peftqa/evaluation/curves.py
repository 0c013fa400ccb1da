"""Curves from label probabilities, as tables for `dvc plots` and the report. Imports no torch.

`probabilities`, `truth` and `labels` are as in metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from peftqa.evaluation.metrics import answers_by_confidence, encode_labels, reliability_points
from peftqa.evaluation.palette import variant_color
from peftqa.evaluation.predictions import predict

GRID = np.linspace(0, 1, 201)  # at which the curves of several replicates are averaged


def curves(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> dict[str, pd.DataFrame]:
    """Every curve by the name of its data file: `roc precision_recall reliability confusion risk_coverage`.

    probabilities: float64 (R, n, L) of R replicates. Curves are means over them; bins and cells count their answers.
    """
    replicates, _, size = probabilities.shape
    every = probabilities.reshape(-1, size), list(truth) * replicates, labels

    def mean(points: Callable, x: str) -> pd.DataFrame:
        return _mean_curve([points(run, truth, labels) for run in probabilities], x)

    return {
        "roc": mean(roc_points, "fpr"),
        "precision_recall": mean(precision_recall_points, "recall"),
        "reliability": reliability_points(*every, bins),
        "confusion": confusion_points(*every),
        "risk_coverage": mean(risk_coverage_points, "coverage"),
    }


def roc_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """ROC curve: `label fpr tpr`, from (0, 0) to (1, 1).

    Of two labels only `labels[0]` has a curve; of more each one has, against the rest, if truth has it and others.
    """

    return _one_versus_rest(lambda *run: roc_curve(*run)[:2], ["fpr", "tpr"], probabilities, truth, labels)


def precision_recall_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Precision-recall curve: `label recall precision`, by rising recall; labels as in `roc_points`."""

    def points(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
        return recall[::-1], precision[::-1]

    return _one_versus_rest(points, ["recall", "precision"], probabilities, truth, labels)


def confusion_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Confusion matrix, one row per cell: `actual predicted count share`; share of the actual label's rows, or 0."""
    matrix = confusion_matrix(list(truth), list(predict(probabilities, labels)), labels=list(labels))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    actual, predicted = np.repeat(list(labels), len(labels)), np.tile(list(labels), len(labels))
    return pd.DataFrame({"actual": actual, "predicted": predicted, "count": matrix.ravel(), "share": shares.ravel()})


def risk_coverage_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Risk-coverage curve: `coverage risk confidence`, one row per distinct confidence, falling.

    `risk` is the share of errors among the answers of at least that confidence, `coverage` their share of all rows
    (El-Yaniv and Wiener 2010). Answers of equal confidence enter together.
    """
    levels, kept, right = answers_by_confidence(probabilities, truth, labels)
    return pd.DataFrame({"coverage": kept / kept[-1], "risk": 1 - right / kept, "confidence": levels})


def training_curve(epochs: pd.DataFrame, value: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """A curve of one run: columns split, epoch and `value`; columns: by split, the column of `epochs` that has it."""
    parts = [
        pd.DataFrame({"split": split, "epoch": epochs["epoch"], value: epochs[column]})
        for split, column in columns.items()
    ]
    return pd.concat(parts, ignore_index=True)


def join_curves(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of every variant's curve, with columns variant and color."""
    tables = [part.assign(variant=name, color=variant_color(name)) for name, part in parts.items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["variant", "color"])


def _mean_curve(tables: Sequence[pd.DataFrame], x: str) -> pd.DataFrame:
    """The mean of curves at the same x (Fawcett 2006, vertical averaging), from the first point on."""
    if len(tables) == 1 or tables[0].empty:
        return tables[0]
    keys, means = [key for key in ("label",) if key in tables[0]], []
    for label in tables[0]["label"].unique() if keys else [None]:
        parts = [table[table["label"] == label] if keys else table for table in tables]
        values = parts[0].columns.drop([x, *keys])
        mean = {name: np.mean([np.interp(GRID, part[x], part[name]) for part in parts], axis=0) for name in values}
        start = parts[0].iloc[[0]] if parts[0][x].iloc[0] == 0 else None
        means.append(pd.concat([start, pd.DataFrame(dict.fromkeys(keys, label) | {x: GRID} | mean)]))
    return pd.concat(means, ignore_index=True)


def _one_versus_rest(points, columns, probabilities, truth, labels) -> pd.DataFrame:
    y_true = encode_labels(truth, labels)
    tables = [pd.DataFrame(columns=["label", *columns])]
    for column in [0] if len(labels) == 2 else range(len(labels)):
        positive = y_true == column
        if 0 < positive.sum() < len(positive):
            values = zip(columns, points(positive, probabilities[:, column]), strict=True)
            tables.append(pd.DataFrame({"label": labels[column], **dict(values)}))
    return pd.concat(tables[1:] or tables, ignore_index=True)
