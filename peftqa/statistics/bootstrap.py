"""Bootstrap intervals of the metrics besides accuracy, over questions and over runs nested in folds. Imports no torch.

Each interval is for a metric over all folds' questions, averaged over replicates. Calibration error does not
get one: it is biased upwards, in resamples more than in the data, so that the interval can exclude the figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftqa.evaluation.metrics import brier_scores, log_losses


def draw_questions(fold: np.ndarray, resamples: int, seed: int, draw_folds: bool) -> np.ndarray:
    """How often each resample has each question, float64 (resamples, n). fold: int (n,), the fold of each question.

    Questions are drawn with replacement within each fold and, if `draw_folds`, the folds too. Draw the folds if trained
    variants have one seed: then each fold has one run, and only differences between folds show how much runs vary.
    """
    rng = np.random.default_rng(seed)
    labels, position, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    counts = np.empty((resamples, len(fold)))
    for k, size in enumerate(sizes):
        counts[:, position == k] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    if draw_folds:
        counts *= rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples)[:, position]
    return counts


def bootstrap_scores(
    probabilities: np.ndarray, y_true: np.ndarray, fold: np.ndarray, counts: np.ndarray, entropy: Sequence[int]
) -> dict[str, np.ndarray]:
    """`macro_f1 mcc log_loss brier` of every resample, means over replicates, float64 (resamples,) each.

    probabilities: float64 (R, n, L) of R replicates; y_true, fold: int (n,); counts: of `draw_questions`. Runs are
    resampled within folds (Davison and Hinkley 1997, section 3.8). Each fold draws as many runs as there are
    replicates. The first run of every fold forms the first replicate. They are drawn by a generator started from the
    integers `entropy`. mcc is nan if a resample has one label alone.
    """
    replicates, n, size = probabilities.shape
    labels, position = np.unique(fold, return_inverse=True)
    drawn = np.random.default_rng(list(entropy)).integers(replicates, size=(len(counts), replicates, len(labels)))
    # Every metric follows from these numbers of each answer, summed over the questions: in which cell of the confusion
    # matrix it is, and its two losses.
    cells = np.eye(size**2)[y_true * size + probabilities.argmax(axis=2)]
    losses = np.stack([log_losses(probabilities, y_true), brier_scores(probabilities, y_true)], axis=2)
    answers, questions = np.concatenate([cells, losses], axis=2), np.arange(n)
    sums = np.stack([count @ answers[runs[:, position], questions] for count, runs in zip(counts, drawn, strict=True)])
    scores, number = confusion_scores(sums[..., :-2].reshape(-1, replicates, size, size)), counts.sum(axis=1)[:, None]
    scores |= {"log_loss": sums[..., -2] / number, "brier": sums[..., -1] / number}
    return {name: values.mean(axis=1) for name, values in scores.items()}


def confusion_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """`macro_f1` and `mcc` of many confusion matrices at once; mcc is nan if the truth has one label alone.

    confusion: float64 of shape (..., L, L), actual label by predicted; the results have the shape (...).
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    right, total = hits.sum(axis=-1), actual.sum(axis=-1)
    # Gorodkin 2004: the correlation of truth and prediction for any number of labels.
    covariance = right * total - (actual * predicted).sum(axis=-1)
    spread = (total**2 - (actual**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    one_label = (actual > 0).sum(axis=-1) < 2
    return {
        "macro_f1": _ratio(2 * hits, actual + predicted).mean(axis=-1),
        "mcc": np.where(one_label, np.nan, _ratio(covariance, np.sqrt(spread))),
    }


def percentile_interval(values: np.ndarray, alpha: float) -> tuple[float, float] | None:
    """The central 1 - alpha of bootstrap `values` (Efron and Tibshirani 1993, chapter 13), undefined ones left out.

    None if all are undefined or all the same: without spread it cannot say how exact the figure is.
    """
    defined = values[~np.isnan(values)]
    if not len(defined) or np.ptp(defined) < 1e-12:
        return None
    return tuple(np.quantile(defined, [alpha / 2, 1 - alpha / 2]).tolist())


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, or 0 if that is undefined, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
