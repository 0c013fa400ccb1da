"""Bootstrap intervals of the metrics besides accuracy, over questions and over runs nested in folds. Imports no torch.

`probabilities` float64 (R, n, L) of R replicates, `y_true` and `fold` int (n,). An interval is about the mean over
replicates of a metric over the questions of all folds. Calibration error does not get one: it is biased upwards, in
resamples more than in the data, so that the interval can exclude the figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from peftqa.evaluation.metrics import brier_scores, confusion_scores, log_losses

BOOTSTRAPPED = ("macro_f1", "mcc", "log_loss", "brier", "roc_auc")
ROWS_AT_ONCE = 500  # resamples; bounds the memory


class BootstrapWeights(NamedTuple):
    """Resamples that all variants share, which makes comparisons paired. Both float64."""

    questions: np.ndarray  # (resamples, n): how often each question is drawn, within its fold
    folds: np.ndarray  # (resamples, folds): how often each fold is drawn


def bootstrap_weights(fold: np.ndarray, resamples: int, seed: int, draw_folds: bool) -> BootstrapWeights:
    """Draw questions with replacement within each fold and, if `draw_folds`, the folds too.

    Draw the folds if trained variants have one seed: then a fold and its run are one, and only the differences
    between folds show how much runs vary.
    """
    rng = np.random.default_rng(seed)
    labels, position, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    questions, count = np.empty((resamples, len(fold))), len(labels)
    for k, size in enumerate(sizes):
        questions[:, position == k] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples) if draw_folds else 1.0
    return BootstrapWeights(questions, np.broadcast_to(drawn, (resamples, count)).astype(np.float64))


def bootstrap_scores(
    probabilities: np.ndarray,
    y_true: np.ndarray,
    fold: np.ndarray,
    weights: BootstrapWeights,
    entropy: Sequence[int],
) -> dict[str, np.ndarray]:
    """Means over replicates of the metrics in BOOTSTRAPPED on every resample, float64 (resamples,) each.

    Resamples questions, and runs nested in folds (Davison and Hinkley 1997, section 3.8): within each fold as many runs
    are drawn as there are replicates, and the first drawn of every fold make the first replicate. They are drawn by a
    generator started from the integers `entropy`: give each variant its own, since the runs of two variants are not
    paired. roc_auc and mcc are nan in a resample that lacks a label.
    """
    replicates, resamples = len(probabilities), len(weights.questions)
    labels, position = np.unique(fold, return_inverse=True)
    drawn = np.random.default_rng(list(entropy)).integers(replicates, size=(resamples, replicates, len(labels)))
    questions = np.arange(len(y_true))
    scores = {name: np.zeros(resamples) for name in BOOTSTRAPPED}
    for start in range(0, resamples, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        counts = weights.questions[rows] * weights.folds[rows][:, position]
        for replicate in range(replicates):
            runs = drawn[rows, replicate][:, position] if replicates > 1 else np.zeros((1, 1), dtype=int)
            for name, values in weighted_scores(probabilities[runs, questions], y_true, counts).items():
                scores[name][rows] += values / replicates
    return scores


def weighted_scores(probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics in BOOTSTRAPPED of weighted questions, float64 (rows,) each.

    weights: (rows, n). probabilities: (rows, n, L), or (1, n, L) if they are the same in all rows.
    """
    size, predicted = probabilities.shape[2], probabilities.argmax(axis=2)
    confusion = np.empty((len(weights), size, size))
    for actual in range(size):
        for label in range(size):
            confusion[:, actual, label] = _total(weights, (y_true == actual) & (predicted == label))
    number = weights.sum(axis=1)
    scores = confusion_scores(confusion) | {
        "log_loss": _total(weights, log_losses(probabilities, y_true)) / number,
        "brier": _total(weights, brier_scores(probabilities, y_true)) / number,
        "roc_auc": weighted_roc_auc(probabilities, y_true, weights),
    }
    return {name: scores[name] for name in BOOTSTRAPPED}


def weighted_roc_auc(probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.roc_auc` for every row of `weights`, (rows,); nan if a label is absent. Shapes: `weighted_scores`."""
    areas = []
    for label in range(probabilities.shape[2]) if probabilities.shape[2] > 2 else [0]:
        scores = probabilities[:, :, label]
        order = scores.argsort(axis=1)
        ranked = np.take_along_axis(scores, order, axis=1)
        # The area is the chance that a positive question scores above a negative one; a tie counts half. So each
        # positive one gets the negative weight before its group of equal scores, and half of that within the group.
        places = np.arange(ranked.shape[1])
        new = np.concatenate([np.ones((len(ranked), 1), bool), ranked[:, 1:] != ranked[:, :-1]], axis=1)
        first = np.maximum.accumulate(np.where(new, places, 0), axis=1)
        ends = np.concatenate([new[:, 1:], np.ones((len(ranked), 1), bool)], axis=1)
        last = np.minimum.accumulate(np.where(ends, places, places[-1])[:, ::-1], axis=1)[:, ::-1]
        shape = np.broadcast_shapes(order.shape, weights.shape)
        positive = np.take_along_axis(weights * (y_true == label), np.broadcast_to(order, shape), axis=1)
        negative = np.take_along_axis(weights * (y_true != label), np.broadcast_to(order, shape), axis=1)
        below = np.concatenate([np.zeros((len(weights), 1)), negative.cumsum(axis=1)], axis=1)
        ends = [np.take_along_axis(below, np.broadcast_to(place, shape), axis=1) for place in (first, last + 1)]
        below = ends[0] + ends[1]
        wins, pairs = (positive * below).sum(axis=1) / 2, positive.sum(axis=1) * negative.sum(axis=1)
        areas.append(np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
    return np.mean(areas, axis=0)


def percentile_interval(values: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """The central 1 - alpha of bootstrap `values` (Efron and Tibshirani 1993, chapter 13), undefined ones left out.

    None if all are undefined or all the same: without spread it cannot say how exact the figure is.
    """
    defined = values[~np.isnan(values)]
    if not len(defined) or np.ptp(defined) < 1e-12:
        return None
    low, high = np.quantile(defined, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _total(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted sum over questions, (rows,); `values` (rows or 1, n)."""
    return weights @ values[0].astype(np.float64) if len(values) == 1 else (weights * values).sum(axis=1)
