"""Tests and intervals of a difference in accuracy between two variants, computed from arrays.

The tests are about the expected accuracy of one training of a method under the protocol. A run is one training, scored
on the test questions of its fold. docs/protocol.md declares `primary_test`, which is one rule for every design, and
benchmarks/simulation.py measures its error rates. The squared standard error has these parts:

    V_Q   (variance over questions of each question's mean difference) / number of questions
    V_S   for each variant with several seeds: (variance of its seeds' accuracies) / number of seeds
    V_F   (variance over folds of each fold's mean difference) / number of folds
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

NO_SPREAD = 1e-12  # a standard error below this is rounding


class Answers(NamedTuple):
    """Which answers of a variant are right. Arrays may have further axes first, such as repetitions of a simulation."""

    questions: np.ndarray  # float64 (n,): share of the runs right on a question, weighted so that folds are equal
    accuracies: np.ndarray  # float64 (seeds, folds): accuracy of each run; one seed if nothing is trained
    first: np.ndarray  # bool (n,): is the first seed's run right; if `shared`, the one of the first fold
    shared: bool  # do all folds ask the same questions


def answers_by_fold(correct: np.ndarray, fold: np.ndarray) -> Answers:
    """The Answers if each fold has its own questions. correct: bool (seeds, n); fold: int (n,), one per question."""
    labels, position, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    accuracies = np.stack([correct[:, position == k].mean(axis=1) for k in range(len(labels))], axis=1)
    # With folds of one size every weight is 1.
    weights = len(fold) / (len(labels) * sizes[position])
    return Answers(weights * correct.mean(axis=0), accuracies, correct[0], shared=False)


def answers_to_the_same(correct: np.ndarray) -> Answers:
    """The Answers if all folds ask the same questions. correct: bool (folds, seeds, n)."""
    return Answers(correct.mean(axis=(0, 1)), correct.mean(axis=2).T, correct[0, 0], shared=True)


class McNemar(NamedTuple):
    """Exact McNemar test of two sets of answers to the same questions (McNemar 1947); `p` is two-sided."""

    only_first: int  # questions that the first alone gets right
    only_second: int
    n: int
    p: float
    name: str = "mcnemar"

    @property
    def difference(self) -> float:
        return (self.only_first - self.only_second) / self.n

    def interval(self, alpha: float) -> tuple[float, float]:
        """Interval of the difference at confidence 1 - alpha, which excludes 0 exactly if p <= alpha.

        It is Tango's score interval. If it disagrees with the exact test about 0, it is widened to contain 0, or (only
        with alpha below .0005) cut just before 0.
        """
        low, high = tango_interval(self.only_first, self.only_second, self.n, alpha)
        if self.p > alpha:
            return min(low, 0.0), max(high, 0.0)
        tiny = float(np.finfo(np.float64).tiny)
        return (max(low, tiny), high) if self.difference > 0 else (low, min(high, -tiny))


class TTest(NamedTuple):
    """Two-sided t test of a mean difference. The numbers are arrays if the answers have axes for repetitions."""

    name: str  # over_seeds, over_folds or corrected_t
    difference: float
    standard_error: float
    df: float
    p: float  # 0 if the standard error is 0, so that the other test decides

    def interval(self, alpha: float) -> tuple[float, float]:
        """Interval of the difference at confidence 1 - alpha, cut at -1 and 1."""
        reach = t.isf(alpha / 2, self.df) * self.standard_error if self.standard_error >= NO_SPREAD else 0.0
        return max(float(self.difference - reach), -1.0), min(float(self.difference + reach), 1.0)


class WiderTest(NamedTuple):
    """The larger p and the wider interval of several t tests of one difference. p and interval agree at every level."""

    tests: list[TTest]

    @property
    def name(self) -> str:
        return max(self.tests, key=lambda test: test.p).name

    @property
    def difference(self) -> float:
        return float(self.tests[0].difference)

    @property
    def p(self) -> float:
        return float(max(test.p for test in self.tests))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The wider interval at confidence 1 - alpha."""
        lows, highs = zip(*(test.interval(alpha) for test in self.tests), strict=True)
        return min(lows), max(highs)


def primary_test(first: Answers, second: Answers) -> WiderTest | McNemar:
    """The test of the difference in accuracy, first - second: t tests, or McNemar's test for one run each.

    The larger p and the wider interval of the t tests count. McNemar's test is also used if every standard error is 0:
    the variance then cannot be estimated.
    """
    if max(first.accuracies.size, second.accuracies.size) > 1:
        tests = t_tests(first, second)
        if max(test.standard_error for test in tests) >= NO_SPREAD:
            return WiderTest(tests)
    return mcnemar(first.first, second.first)


def t_tests(first: Answers, second: Answers) -> list[TTest]:
    """The test over seeds and, if there are several folds, the one over folds."""
    parts, difference = variances(first, second), (first.questions - second.questions).mean(axis=-1)
    tests = [_t_test("over_seeds", difference, parts["questions"] + parts["seeds"])]
    if parts["folds"]:
        tests.append(_t_test("over_folds", difference, parts["questions"] * first.shared + parts["folds"]))
    return tests


def variances(first: Answers, second: Answers) -> dict[str, list[tuple]]:
    """V_Q, V_S and V_F under "questions", "seeds" and "folds", each a list of (variance, degrees of freedom).

    The list is empty if there is only one question, seed or fold. That of "seeds" has two entries if both variants have
    several seeds.
    """

    def of_mean(values: np.ndarray) -> list[tuple]:
        count = values.shape[-1]
        return [(values.var(axis=-1, ddof=1) / count, count - 1)] if count > 1 else []

    return {
        "questions": of_mean(first.questions - second.questions),
        "seeds": of_mean(first.accuracies.mean(axis=-1)) + of_mean(second.accuracies.mean(axis=-1)),
        "folds": of_mean(first.accuracies.mean(axis=-2) - second.accuracies.mean(axis=-2)),
    }


def accuracy_interval(answers: Answers, alpha: float) -> tuple[float, float]:
    """Interval of a variant's accuracy, as its difference from 0; Wilson's for one run, or if nothing varies."""
    nothing = Answers(*(np.zeros_like(values) for values in answers[:3]), answers.shared)
    result = primary_test(answers, nothing)
    if isinstance(result, McNemar):
        low, high = proportion_confint(result.only_first, result.n, alpha, "wilson")
        return float(low), float(high)
    low, high = result.interval(alpha)
    return max(low, 0.0), high


def corrected_t(first: Answers, second: Answers, test_train_ratio: float) -> TTest | None:
    """Corrected resampled t test of the same difference over runs (Nadeau and Bengio 2003), which rejects more rarely.

    test_train_ratio: test questions over training questions of one run. Runs share training questions, so their
    variance is multiplied by (1 / runs + the ratio). None for a single run, or if all have the same difference.
    """
    differences = first.accuracies - second.accuracies  # a variant without seeds has one run for all seeds
    differences = differences.reshape(*differences.shape[:-2], -1)
    runs = differences.shape[-1]
    if runs < 2:
        return None
    variance = differences.var(axis=-1, ddof=1) * (1 / runs + test_train_ratio)
    result = _t_test("corrected_t", differences.mean(axis=-1), [(variance, runs - 1)])
    return result if np.any(result.standard_error >= NO_SPREAD) else None


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The test of two variants. first, second: bool (n,), is each answer right. If they never differ, p is 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, len(first), p)


def tango_interval(only_first: int, only_second: int, n: int, alpha: float) -> tuple[float, float]:
    """Score interval of a difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908)."""
    z, estimate = float(norm.isf(alpha / 2)), (only_first - only_second) / n

    def excess(difference: float, sign: int) -> float:
        # The maximum-likelihood estimate, under this difference, of the share that only the second gets right.
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


def holm(p_values: Sequence[float], alpha: float) -> tuple[list[float], list[float]]:
    """Holm's corrected p-values (1979), and the level at which he judges each hypothesis; both in the order given.

    An interval at this level excludes 0 exactly if the corrected p-value is at most alpha (Serlin 1993; Ludbrook 2000).
    The level is alpha / m for the smallest of m p-values, alpha / (m - 1) for the next, and so on to the first that is
    not rejected. All larger p-values have the level of that one.
    """
    if not p_values:
        return [], []
    corrected = multipletests(p_values, method="holm")[1]
    ranks = np.argsort(np.argsort(p_values, kind="stable"))
    levels = alpha / (len(p_values) - np.minimum(ranks, (corrected <= alpha).sum()))
    return corrected.tolist(), levels.tolist()


def _t_test(name: str, difference: float, parts: Sequence[tuple[float, int]]) -> TTest:
    """t test whose squared standard error is a sum of (variance, degrees of freedom), by Satterthwaite (1946)."""
    error = np.sqrt(sum(variance for variance, _ in parts))
    with np.errstate(divide="ignore", invalid="ignore"):
        df = error**4 / sum(variance**2 / df for variance, df in parts)
        p = np.where(error < NO_SPREAD, 0.0, 2 * t.sf(np.abs(difference) / error, df))
    return TTest(name, *(value[()] for value in map(np.asarray, (difference, error, df, p))))
