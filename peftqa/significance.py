"""Is a difference between two variants more than chance? Tests and intervals over paired predictions. Imports no torch.

A variant's predictions are `probabilities`, float64 of shape (S, n, L): S seeds, n questions, L labels. `codes` are the
true labels' positions, int of shape (n,), the same questions in the same order for every variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, binomtest
from statsmodels.stats.multitest import multipletests

from peftqa.metrics import brier_scores, confusion_scores, log_losses

BOOTSTRAPPED = ("accuracy", "macro_f1", "mcc", "log_loss", "brier")


class McNemar(NamedTuple):
    """Exact McNemar test of two classifiers on the same questions (McNemar 1947)."""

    only_first: int  # questions that the first alone gets right
    only_second: int
    p: float  # two-sided


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """`first_right`, `second_right`: bool (n,), is the answer right. Where they never differ, p is 1."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    p = binomtest(only_first, discordant).pvalue if discordant else 1.0
    return McNemar(only_first, only_second, float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm 1979); each is at most 1."""
    return multipletests(p_values, method="holm")[1].tolist() if p_values else []


def mcnemar_power(difference: float, discordance: float, n: int, alpha: float) -> float:
    """Chance that the exact McNemar test at `alpha` rejects on n questions.

    discordance: probability that just one of two classifiers is right; difference: true difference in accuracy, at
    most the discordance. Exact and unconditional: the number of discordant questions is binomial (Duffy 1984,
    Biometrics 40:1005-1015).
    """
    share = (1 + difference / discordance) / 2  # of discordant questions that favour the better classifier
    sizes = np.arange(n + 1)
    # The largest k with two-sided p = 2 P(X <= k) <= alpha under a fair coin; -1 where there is none.
    limit = binom.ppf(alpha / 2, sizes, 0.5)
    limit -= binom.cdf(limit, sizes, 0.5) > alpha / 2 * (1 + 1e-12)
    reject = binom.cdf(limit, sizes, share) + binom.sf(sizes - limit - 1, sizes, share)
    return float(binom.pmf(sizes, n, discordance) @ reject)


def smallest_detectable_difference(discordance: float, n: int, alpha: float, power: float) -> float | None:
    """The smallest true difference in accuracy that the exact McNemar test shows with probability `power`.

    Solves `mcnemar_power` at the given rate of discordance, which bounds the difference. None where even a difference
    as large as that is not shown often enough, as when the two never differ.
    """

    def shortfall(difference: float) -> float:
        return mcnemar_power(difference, discordance, n, alpha) - power

    if discordance == 0 or shortfall(discordance) < 0:
        return None
    return 0.0 if shortfall(0.0) >= 0 else float(brentq(shortfall, 0.0, discordance, xtol=1e-9))


def question_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap over questions: how often each is drawn, float64 (resamples, n), every row summing to n.

    One set of weights for all variants makes the bootstrap paired.
    """
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def bootstrap_scores(
    probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray, entropy: Sequence[int]
) -> dict[str, np.ndarray]:
    """The figures in BOOTSTRAPPED on every resample, float64 (resamples,) each: means over that resample's seeds.

    weights: (resamples, n) of `question_weights`. Where S > 1 every resample also draws S of the S seeds, with
    replacement, by a generator started from the integers `entropy`: give each variant its own, since the seeds of two
    variants are no pairs.
    """
    count = len(probabilities)
    rng = np.random.default_rng(list(entropy))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=len(weights)) / count
    return {
        name: (scores * drawn).sum(axis=1) for name, scores in weighted_scores(probabilities, codes, weights).items()
    }


def weighted_scores(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures in BOOTSTRAPPED for every row of `weights` and every seed, float64 (rows, S) each.

    Through confusion matrices, which a product with the weights gives for all rows at once.
    """
    seeds, n, size = probabilities.shape
    cells = np.eye(size * size)[codes * size + probabilities.argmax(axis=2)]  # (S, n, L * L), one-hot
    confusion = (weights @ np.moveaxis(cells, 0, 1).reshape(n, -1)).reshape(-1, seeds, size, size)
    per_question = {
        "log_loss": np.stack([log_losses(seed, codes) for seed in probabilities], axis=1),
        "brier": np.stack([brier_scores(seed, codes) for seed in probabilities], axis=1),
    }
    return confusion_scores(confusion) | {name: weights @ scores / n for name, scores in per_question.items()}


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The central `confidence` share of bootstrap `values` (Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def intervals(scores: Mapping[str, np.ndarray], confidence: float) -> dict[str, tuple[float, float]]:
    """Percentile interval of every figure of `bootstrap_scores`."""
    return {name: percentile_interval(values, confidence) for name, values in scores.items()}
