"""Bootstrap intervals of every figure, over questions and over runs nested in folds. Imports no torch.

Arrays are those of peftqa/significance.py: `probabilities` float64 (R, n, L), `y_true` and `fold` int (n,). A run is
one replicate on the questions of one fold; every figure is a mean over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from peftqa.metrics import brier_scores, confusion_scores, log_losses

BOOTSTRAPPED = ("accuracy", "macro_f1", "mcc", "log_loss", "brier", "roc_auc", "ece")


class BootstrapWeights(NamedTuple):
    """Resamples that all variants share, which makes comparisons paired. Both float64."""

    questions: np.ndarray  # (resamples, n): how often each question is drawn, within its fold
    folds: np.ndarray  # (resamples, folds): each fold's share in the mean over runs; rows sum to 1


def bootstrap_weights(fold: np.ndarray, resamples: int, seed: int, draw_folds: bool) -> BootstrapWeights:
    """Draw questions with replacement within each fold and, where `draw_folds`, the folds too.

    Draw the folds where trained variants have one seed: then a fold and its run are one, and only the differences
    between folds show how much runs vary.
    """
    rng = np.random.default_rng(seed)
    labels, position, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    questions, count = np.empty((resamples, len(fold))), len(labels)
    for k, size in enumerate(sizes):
        questions[:, position == k] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    even = np.full(count, 1 / count)
    drawn = rng.multinomial(count, even, size=resamples) / count if draw_folds else np.tile(even, (resamples, 1))
    return BootstrapWeights(questions, drawn)


def run_weights(replicates: int, folds: np.ndarray, entropy: Sequence[int]) -> np.ndarray:
    """Each run's share in the mean over runs, float64 (resamples, folds, R); `folds` are those of `BootstrapWeights`.

    Within each fold replicates are drawn by a generator started from the integers `entropy`: give each variant its own,
    since the runs of two variants are no pairs.
    """
    drawn = np.random.default_rng(list(entropy)).multinomial(
        replicates, np.full(replicates, 1 / replicates), size=folds.shape
    )
    return folds[:, :, None] * drawn / replicates


def bootstrap_scores(
    probabilities: np.ndarray,
    y_true: np.ndarray,
    fold: np.ndarray,
    weights: BootstrapWeights,
    bins: int,
    entropy: Sequence[int],
) -> dict[str, np.ndarray]:
    """Means over runs of the figures in BOOTSTRAPPED on every resample, float64 (resamples,) each.

    Resamples questions, and runs nested in folds (Davison and Hinkley 1997, section 3.8). A resample is nan in roc_auc
    where a run's questions lack a label. `bins`: of the calibration error.
    """
    runs = run_weights(len(probabilities), weights.folds, entropy)
    scores = run_scores(probabilities, y_true, fold, weights.questions, bins)
    return {name: np.where(runs > 0, runs * values, 0).sum(axis=(1, 2)) for name, values in scores.items()}


def mean_scores(probabilities: np.ndarray, y_true: np.ndarray, fold: np.ndarray, bins: int) -> dict[str, float | None]:
    """Means over runs of the figures in BOOTSTRAPPED, which the bootstrap is about; None where a run has none."""
    scores = run_scores(probabilities, y_true, fold, np.ones((1, len(y_true))), bins)
    means = {name: float(values.mean()) for name, values in scores.items()}
    return {name: None if np.isnan(value) else value for name, value in means.items()}


def run_scores(
    probabilities: np.ndarray, y_true: np.ndarray, fold: np.ndarray, weights: np.ndarray, bins: int
) -> dict[str, np.ndarray]:
    """The figures in BOOTSTRAPPED of every run for every row of `weights` (rows, n): float64 (rows, folds, R) each."""
    members = [fold == k for k in np.unique(fold)]
    per_fold = [weighted_scores(probabilities[:, m], y_true[m], weights[:, m], bins) for m in members]
    return {name: np.stack([scores[name] for scores in per_fold], axis=1) for name in BOOTSTRAPPED}


def weighted_scores(
    probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray, bins: int
) -> dict[str, np.ndarray]:
    """The figures in BOOTSTRAPPED for every row of `weights` and every replicate, float64 (rows, R) each.

    Through confusion matrices, which a product with the weights gives for all rows at once.
    """
    replicates, n, size = probabilities.shape
    cells = np.eye(size * size)[y_true * size + probabilities.argmax(axis=2)]  # (R, n, L * L), one-hot
    confusion = (weights @ np.moveaxis(cells, 0, 1).reshape(n, -1)).reshape(-1, replicates, size, size)
    total = weights.sum(axis=1, keepdims=True)
    return confusion_scores(confusion) | {
        "log_loss": weights @ np.stack([log_losses(p, y_true) for p in probabilities], axis=1) / total,
        "brier": weights @ np.stack([brier_scores(p, y_true) for p in probabilities], axis=1) / total,
        "roc_auc": np.stack([weighted_roc_auc(p, y_true, weights) for p in probabilities], axis=1),
        "ece": np.stack([weighted_ece(p, y_true, weights, bins) for p in probabilities], axis=1),
    }


def weighted_roc_auc(probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.roc_auc` of one replicate (n, L) for every row of `weights`, (rows,); nan where a label is absent."""
    areas = []
    for label in range(probabilities.shape[1]) if probabilities.shape[1] > 2 else [0]:
        positive, score = y_true == label, probabilities[:, label]
        # The area is the chance that a positive question scores above a negative one; a tie counts half.
        above = np.sign(score[positive][:, None] - score[~positive]) / 2 + 0.5
        wins = ((weights[:, positive] @ above) * weights[:, ~positive]).sum(axis=1)
        pairs = weights[:, positive].sum(axis=1) * weights[:, ~positive].sum(axis=1)
        areas.append(np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
    return np.mean(areas, axis=0)


def weighted_ece(probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    """`metrics.expected_calibration_error` of one replicate (n, L) for every row of `weights`, (rows,)."""
    confidence = probabilities.max(axis=1)
    members = np.eye(bins)[np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)]
    gaps = (probabilities.argmax(axis=1) == y_true) - confidence
    return np.abs(weights @ (members * gaps[:, None])).sum(axis=1) / weights.sum(axis=1)


def percentile_interval(values: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """The central 1 - alpha of bootstrap `values` (Efron and Tibshirani 1993, chapter 13), undefined ones left out.

    None where all are undefined.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
