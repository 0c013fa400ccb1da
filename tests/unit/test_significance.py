"""Every test and interval against scipy, statsmodels, the formula written out, or by hand."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from peftqa.statistics import significance as sig

ONE_FOLD = np.zeros(89, dtype=int)
TEN_FOLDS = np.repeat(np.arange(10), 20)


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Who is right on how many questions, bool (n,) each."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def replicates(accuracy: float, n: int, count: int, seed: int) -> np.ndarray:
    """`correct`, bool (count, n)."""
    return np.random.default_rng(seed).random((count, n)) < accuracy


def primary(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> sig.WiderTest | sig.McNemar:
    return sig.primary_test(sig.answers_by_fold(first, fold), sig.answers_by_fold(second, fold))


@pytest.mark.parametrize("table", [(50, 9, 2, 28), (10, 0, 6, 73), (0, 30, 31, 28), (80, 1, 0, 8), (40, 7, 7, 35)])
def test_mcnemar_agrees_with_statsmodels(table):
    both, first, second, neither = table
    result = sig.mcnemar(*answers(*table))
    assert (result.only_first, result.only_second, result.n) == (first, second, 89)
    assert result.difference == pytest.approx((first - second) / 89)
    assert result.p == pytest.approx(statsmodels_mcnemar([[both, first], [second, neither]], exact=True).pvalue)


def test_tango_interval_of_a_published_table():
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850-2875: 1, 1, 7, 12 of 21.
    assert sig.tango_interval(1, 7, 21, 0.05) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.05 / 3, 2 / 32, 0.0005, 0.0004, 1e-5])
def test_mcnemar_interval_excludes_zero_exactly_if_the_test_rejects(alpha):
    for discordant in range(31):
        for first in range(discordant + 1):
            result = sig.mcnemar(*answers(5, first, discordant - first, 5))
            low, high = result.interval(alpha)
            assert (low > 0 or high < 0) == (result.p <= alpha)
            assert low <= result.difference <= high and low < high


def variance_of_mean(values: list[float]) -> float:
    return np.var(values, ddof=1) / len(values)


def by_formula(first: np.ndarray, second: np.ndarray, shared: bool) -> tuple[float, dict[str, tuple[float, float]]]:
    """The difference, and by test its standard error and degrees of freedom, written out.

    Both bool (folds, seeds, questions of a fold).
    """
    runs, folds = [correct.mean(axis=2) for correct in (first, second)], len(first)
    if shared:
        per_question = first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))
    else:
        per_question = np.concatenate([a.mean(axis=0) - b.mean(axis=0) for a, b in zip(first, second, strict=True)])
    questions = variance_of_mean(per_question), len(per_question) - 1
    over_seeds = [questions]
    for accuracies in runs:
        if accuracies.shape[1] > 1:
            whole = [np.mean(accuracies[:, seed]) for seed in range(accuracies.shape[1])]
            over_seeds.append((variance_of_mean(whole), len(whole) - 1))
    parts = {"over_seeds": over_seeds}
    if folds > 1:
        by_fold = [np.mean(runs[0][k]) - np.mean(runs[1][k]) for k in range(folds)]
        parts["over_folds"] = [(variance_of_mean(by_fold), folds - 1), *([questions] if shared else [])]
    tests = {}
    for name, terms in parts.items():
        square = sum(variance for variance, _ in terms)
        tests[name] = np.sqrt(square), square**2 / sum(variance**2 / df for variance, df in terms)
    return per_question.mean(), tests


SEEDS = [(2, 2), (5, 5), (3, 1), (1, 3)]


@pytest.mark.parametrize("shared", [False, True], ids=["own questions", "official"])
@pytest.mark.parametrize(("seeds", "folds"), [*product([(1, 1), *SEEDS], [2, 10]), *product(SEEDS, [1])])
def test_primary_test_of_every_design_follows_the_formula(seeds, folds, shared):
    first, second = (
        replicates(0.8 - 0.2 * k, 40, folds * count, k).reshape(folds, count, 40) for k, count in enumerate(seeds)
    )
    difference, expected = by_formula(first, second, shared)
    if shared:
        result = sig.primary_test(sig.answers_to_the_same(first), sig.answers_to_the_same(second))
    else:
        fold = np.repeat(np.arange(folds), 40)
        result = primary(*(correct.swapaxes(0, 1).reshape(-1, folds * 40) for correct in (first, second)), fold)
    assert {test.name: (test.standard_error, test.df) for test in result.tests} == {
        name: (pytest.approx(error), pytest.approx(df)) for name, (error, df) in expected.items()
    }
    assert result.difference == pytest.approx(difference)
    p = {name: 2 * stats.t.sf(abs(difference) / error, df) for name, (error, df) in expected.items()}
    assert result.p == pytest.approx(max(p.values())) and result.name == max(p, key=p.get)
    for alpha in (0.2, 0.05, 0.05 / 9):
        ends = [stats.t.interval(1 - alpha, df, difference, error) for error, df in expected.values()]
        low, high = max(-1, min(ends)[0]), min(1, max(high for _, high in ends))
        assert result.interval(alpha) == pytest.approx((low, high))
        assert (low > 0 or high < 0) == (result.p <= alpha)


def test_intervals_of_differences_stay_within_what_is_possible():
    # Two seeds that could not differ more: the t interval alone would reach beyond +-100 points.
    first, second = np.stack([np.ones(89, bool), np.zeros(89, bool)]), replicates(0.5, 89, 2, 0)
    assert primary(first, second, ONE_FOLD).interval(0.05) == (-1, 1)
    assert corrected(first, second, ONE_FOLD).interval(0.001) == (-1, 1)


def test_accuracy_interval_of_one_run_or_without_spread_is_wilsons():
    right = answers(0, 55, 0, 34)[0]
    low, high = stats.binomtest(55, 89).proportion_ci(method="wilson")
    assert sig.accuracy_interval(sig.answers_by_fold(right[None], ONE_FOLD), 0.05) == pytest.approx((low, high))
    always = sig.answers_by_fold(np.ones((3, 89), dtype=bool), ONE_FOLD)
    assert sig.accuracy_interval(always, 0.05) == pytest.approx((0.959, 1), abs=5e-4)
    nothing = sig.answers_by_fold(np.zeros((1, 89), dtype=bool), ONE_FOLD)
    assert sig.accuracy_interval(nothing, 0.05) == pytest.approx((0, 1 - 0.959), abs=5e-4)


def corrected(first: np.ndarray, second: np.ndarray, fold: np.ndarray, ratio: float = 0.125) -> sig.TTest | None:
    return sig.corrected_t(sig.answers_by_fold(first, fold), sig.answers_by_fold(second, fold), ratio)


def test_corrected_t_agrees_with_the_formula():
    first, second = replicates(0.8, 200, 3, 0), replicates(0.7, 200, 3, 1)
    runs = [
        np.array([correct[s, k == TEN_FOLDS].mean() for s in range(3) for k in range(10)])
        for correct in (first, second)
    ]
    differences = runs[0] - runs[1]
    error = np.sqrt((1 / 30 + 0.125) * differences.var(ddof=1))
    result = corrected(first, second, TEN_FOLDS)
    assert result[:4] == ("corrected_t", pytest.approx(differences.mean()), pytest.approx(error), pytest.approx(29))
    assert result.p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / error, 29))
    assert result.interval(0.05) == pytest.approx(stats.t.interval(0.95, 29, differences.mean(), error))
    assert corrected(first, second, TEN_FOLDS, 0.0).p == pytest.approx(stats.ttest_rel(*runs).pvalue)


@pytest.mark.parametrize(
    ("p_values", "corrected", "levels"),
    [
        # .01 <= .05/3 is rejected, .04 > .05/2 is not: the rest stay at that level.
        ([0.04, 0.01, 0.05], [2 * 0.04, 3 * 0.01, 0.08], [0.05 / 2, 0.05 / 3, 0.05 / 2]),
        ([0.03, 0.001, 0.02], [0.04, 0.003, 0.04], [0.05, 0.05 / 3, 0.05 / 2]),
        ([0.9, 0.6], [1, 1], [0.05 / 2, 0.05 / 2]),
        ([], [], []),
    ],
)
def test_holm_worked_by_hand_gives_corrected_p_and_levels(p_values, corrected, levels):
    assert sig.holm(p_values, 0.05) == (pytest.approx(corrected), pytest.approx(levels))


def test_holm_levels_decide_as_the_corrected_p_values_do():
    rng = np.random.default_rng(0)
    for _ in range(12):
        p_values = (rng.random(rng.integers(1, 8)) ** 4).tolist()
        corrected, levels = sig.holm(p_values, 0.05)
        decisions = [p <= level for p, level in zip(p_values, levels, strict=True)]
        assert decisions == [p <= 0.05 for p in corrected]
