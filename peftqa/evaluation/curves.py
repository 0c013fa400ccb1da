"""Curves from label probabilities, as tables for `dvc plots` and the report. Imports no torch.

`truth` and `labels` are as in metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from peftqa.evaluation.metrics import answers_by_confidence, encode_labels, reliability_points
from peftqa.evaluation.predictions import predict

GRID = np.linspace(0, 1, 201)  # at which the curves of several replicates are averaged


def curves(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> dict[str, pd.DataFrame]:
    """Every curve by the name of its data file: `roc precision_recall reliability confusion risk_coverage`.

    probabilities: float64 (R, n, L) of R replicates. Curves are their means. Bins and cells count all their answers.
    """
    replicates, _, size = probabilities.shape
    every = probabilities.reshape(-1, size), list(truth) * replicates, labels
    return {
        "roc": per_label(roc_points, ["fpr", "tpr"], probabilities, truth, labels),
        "precision_recall": per_label(precision_recall_points, ["recall", "precision"], probabilities, truth, labels),
        "reliability": reliability_points(*every, bins),
        "confusion": confusion_points(*every),
        "risk_coverage": mean_curve([risk_coverage_points(run, truth, labels) for run in probabilities]),
    }


def per_label(
    points: Callable, columns: list[str], probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]
) -> pd.DataFrame:
    """The mean curves of labels against the rest, with columns `label` and those of `points`.

    Of two labels only the first has a curve. A label does not have one if all or none of truth has it.
    """
    y_true = encode_labels(truth, labels)
    tables = [pd.DataFrame(columns=["label", *columns])]
    for column in [0] if len(labels) == 2 else range(len(labels)):
        positive = y_true == column
        if 0 < positive.sum() < len(positive):
            tables.append(mean_curve([points(positive, run[:, column]) for run in probabilities]))
            tables[-1].insert(0, "label", labels[column])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def roc_points(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """ROC curve of one label: `fpr tpr`, from (0, 0) to (1, 1). positive: bool (n,); score: float64 (n,)."""
    fpr, tpr, _ = roc_curve(positive, score)
    return pd.DataFrame({"fpr": fpr, "tpr": tpr})


def precision_recall_points(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """Precision-recall curve of one label: `recall precision`, by rising recall. Arguments as in `roc_points`."""
    precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
    return pd.DataFrame({"recall": recall[::-1], "precision": precision[::-1]})


def confusion_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Confusion matrix, one row per cell: `actual predicted count share`; share is of the actual label's rows."""
    matrix = confusion_matrix(list(truth), list(predict(probabilities, labels)), labels=list(labels))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cells = pd.MultiIndex.from_product([labels, labels], names=["actual", "predicted"])
    return pd.DataFrame({"count": matrix.ravel(), "share": shares.ravel()}, cells).reset_index()


def risk_coverage_points(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Risk-coverage curve: `coverage risk confidence`, one row per distinct confidence, falling.

    `risk` is the share of errors among the answers of at least that confidence, `coverage` their share of all rows
    (El-Yaniv and Wiener 2010). Answers of equal confidence enter together.
    """
    levels, kept, right = answers_by_confidence(probabilities, truth, labels)
    return pd.DataFrame({"coverage": kept / kept[-1], "risk": 1 - right / kept, "confidence": levels})


def mean_curve(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of curves at each x of GRID; x is their first column (Fawcett 2006, vertical averaging)."""
    if len(runs) == 1:
        return runs[0]
    x, *values = runs[0].columns
    means = {name: np.mean([np.interp(GRID, run[x], run[name]) for run in runs], axis=0) for name in values}
    start = runs[0].iloc[:1] if runs[0][x].iloc[0] == 0 else None
    return pd.concat([start, pd.DataFrame({x: GRID} | means)], ignore_index=True)
