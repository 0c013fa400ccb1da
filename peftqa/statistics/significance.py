"""Is a difference between two variants more than chance? Tests and intervals of accuracy, over arrays.

What is estimated is always the expected score of a single training of a method under the protocol. A run is one
training, scored on the test questions of its fold; estimates, intervals and tests are of means over runs.

    probabilities   float64 (R, n, L): R replicates, n test questions, L labels. A replicate is one seed's runs over all
                    folds put together; where every fold tests the same questions (`official`) it is one run.
                    A variant that is not trained has R = 1,
                    or under `official` one replicate a fold.
    correct         bool (R, n): is the most probable label the true one
    y_true          int (n,), positions of the true labels
    fold            int (n,), the fold that each question was tested in; all 0 where there is one set of test questions

docs/protocol.md gives the reasons and benchmarks/simulation.py the error rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from statsmodels.stats.multitest import multipletests

NO_SPREAD = 1e-12  # a standard error below this is rounding


class McNemar(NamedTuple):
    """Exact McNemar test of two sets of answers to the same questions (McNemar 1947); `p` is two-sided."""

    only_first: int  # questions that the first alone gets right
    only_second: int
    n: int
    p: float

    @property
    def difference(self) -> float:
        """Accuracy of the first less accuracy of the second."""
        return (self.only_first - self.only_second) / self.n

    def interval(self, alpha: float) -> tuple[float, float]:
        """Interval of the difference at confidence 1 - alpha, which excludes 0 just when p <= alpha.

        Tango's score interval, save where it and the exact test disagree about 0; there the test, which errs on the
        cautious side, decides. Where only the interval excludes 0 it is widened to 0. Where only the test rejects,
        which takes an alpha below .0005, it is cut off just short of 0.
        """
        low, high = tango_interval(self.only_first, self.only_second, self.n, alpha)
        if self.p > alpha:
            return min(low, 0.0), max(high, 0.0)
        tiny = float(np.finfo(np.float64).tiny)
        return (max(low, tiny), high) if self.difference > 0 else (low, min(high, -tiny))


class TTest(NamedTuple):
    """Two-sided t test of a mean difference; its interval comes from the same standard error."""

    name: str  # seeds_t, folds_t or corrected_t
    difference: float
    standard_error: float
    df: float
    p: float

    def interval(self, alpha: float) -> tuple[float, float]:
        """Interval of the difference at confidence 1 - alpha."""
        reach = float(t.isf(alpha / 2, self.df)) * self.standard_error
        return self.difference - reach, self.difference + reach


def correct_answers(probabilities: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """`correct` of the module's docstring; of equally probable labels the first counts."""
    return probabilities.argmax(axis=2) == y_true


def primary_test(
    first: np.ndarray, second: np.ndarray, fold: np.ndarray, trained: tuple[bool, bool]
) -> TTest | McNemar:
    """The test of the difference in accuracy, first - second, that the runs allow. Both arguments are `correct`.

    Several replicates: `seeds_t`. One replicate, several folds: `folds_t`. One training each, or none: `mcnemar`, whose
    answer is about these two sets of predictions. It also stands in where a t test finds no spread at all, which says
    that there are too few differing answers to estimate one and not that the difference is known exactly.
    Raises ValueError where two trained variants have different numbers of replicates.
    """
    counts = {len(correct) for correct, is_trained in zip((first, second), trained, strict=True) if is_trained}
    if len(counts) > 1:
        raise ValueError(f"trained variants with different numbers of replicates: {sorted(counts)}")
    result = None
    if max(counts, default=1) > 1:
        result = seeds_t(first, second, fold)
    elif counts and len(np.unique(fold)) > 1:
        result = folds_t(first, second, fold)
    return result or mcnemar(first[0], second[0])


def seeds_t(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> TTest | None:
    """t test over questions and replicates; None where nothing varies.

    SE^2 = (variance over questions of the mean difference) / n + for each variant of several replicates (variance of
    their accuracies) / R, with the degrees of freedom of Satterthwaite (1946) for such a sum.
    """
    n = len(fold)
    # Each fold counts alike, as in a mean over runs; with folds of one size every weight is 1.
    _, position, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    weights = n / (len(sizes) * sizes[position])
    differences = weights * (first.mean(axis=0) - second.mean(axis=0))
    parts = [(differences.var(ddof=1) / n, n - 1)]
    for correct in (first, second):
        if len(correct) > 1:
            accuracies = run_accuracies(correct, fold).mean(axis=1)
            parts.append((accuracies.var(ddof=1) / len(accuracies), len(accuracies) - 1))
    return _t_test("seeds_t", float(differences.mean()), parts)


def folds_t(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> TTest | None:
    """Paired t test over the folds' differences in accuracy; None where they are all the same."""
    differences = (run_accuracies(first, fold) - run_accuracies(second, fold)).mean(axis=0)
    folds = len(differences)
    return _t_test("folds_t", float(differences.mean()), [(differences.var(ddof=1) / folds, folds - 1)])


def corrected_t(first: np.ndarray, second: np.ndarray, fold: np.ndarray, test_train_ratio: float) -> TTest | None:
    """Corrected resampled t test over runs (Nadeau and Bengio 2003), the sceptic's view of the same difference.

    test_train_ratio: test questions over training questions of one run. The runs' variance is multiplied by
    1 / runs + test_train_ratio in place of 1 / runs, since runs share training questions. None for a single run, or
    where all runs differ by the same.
    """
    most = max(len(first), len(second))
    # Under `official` an untrained variant has one replicate a fold; it is set beside each seed's run of that fold.
    first, second = (np.repeat(correct, most // len(correct), axis=0) for correct in (first, second))
    differences = (run_accuracies(first, fold) - run_accuracies(second, fold)).ravel()
    runs = len(differences)
    if runs < 2:
        return None
    variance = differences.var(ddof=1) * (1 / runs + test_train_ratio)
    return _t_test("corrected_t", float(differences.mean()), [(variance, runs - 1)])


def run_accuracies(correct: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Accuracy of every run, float64 (R, folds)."""
    return np.stack([correct[:, fold == k].mean(axis=1) for k in np.unique(fold)], axis=1)


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """`first`, `second`: bool (n,), is the answer right. Where they never differ, p is 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, len(first), p)


def tango_interval(only_first: int, only_second: int, n: int, alpha: float) -> tuple[float, float]:
    """Score interval of a difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908)."""
    z, estimate = float(norm.isf(alpha / 2)), (only_first - only_second) / n

    def excess(difference: float, sign: int) -> float:
        # The share that only the second gets right, most likely under this difference.
        b = (2 * n - only_first + only_second) * difference - only_first - only_second
        c = -only_second * difference * (1 - difference)
        share = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * max(2 * share + difference * (1 - difference), 0.0)
        return sign * n * (estimate - difference) - z * np.sqrt(variance)

    # At the estimate itself the variance can be 0, which would look like the end of the interval.
    step = 1e-10
    low = brentq(excess, -1.0, estimate - step, args=(1,), xtol=1e-14) if estimate > -1 else -1.0
    high = brentq(excess, estimate + step, 1.0, args=(-1,), xtol=1e-14) if estimate < 1 else 1.0
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm 1979); each is at most 1."""
    return multipletests(p_values, method="holm")[1].tolist() if p_values else []


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm's procedure judges each hypothesis, in the order given (Serlin 1993; Ludbrook 2000).

    An interval at this level excludes 0 just when the corrected p-value is at most alpha. alpha / m for the smallest of
    m p-values, alpha / (m - 1) for the next, and so on to the first that is not rejected, whose level the rest share.
    Each interval covers with at least 1 - alpha; for all of them to cover at once take alpha / m throughout.
    """
    m, rejected = len(p_values), sum(p <= alpha for p in holm(p_values))
    ranks = np.argsort(np.argsort(p_values, kind="stable"))
    return [float(alpha / (m - min(rank, rejected))) for rank in ranks]


def _t_test(name: str, difference: float, parts: Sequence[tuple[float, int]]) -> TTest | None:
    """t test whose squared standard error is a sum of (variance, degrees of freedom); None where that sum is 0."""
    error = float(np.sqrt(sum(variance for variance, _ in parts)))
    if error < NO_SPREAD:
        return None
    df = float(error**4 / sum(variance**2 / df for variance, df in parts))
    return TTest(name, difference, error, df, float(2 * t.sf(abs(difference) / error, df)))
