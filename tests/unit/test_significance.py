"""Every test and interval against scipy, statsmodels, the formula written out, or by hand."""

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from peftqa.statistics import significance as sig

ONE_FOLD = np.zeros(89, dtype=int)
TEN_FOLDS = np.repeat(np.arange(10), 20)
BOTH = (True, True)


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Who is right on how many questions, bool (n,) each."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def replicates(accuracy: float, n: int, count: int, seed: int) -> np.ndarray:
    """`correct`, bool (count, n)."""
    return np.random.default_rng(seed).random((count, n)) < accuracy


def test_correct_answers():
    probabilities = np.array([[[0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]])
    assert sig.correct_answers(probabilities, np.array([0, 1, 2])).tolist() == [[True, False, True]]


@pytest.mark.parametrize("table", [(50, 9, 2, 28), (10, 0, 6, 73), (0, 30, 31, 28), (80, 1, 0, 8), (40, 7, 7, 35)])
def test_mcnemar_agrees_with_statsmodels(table):
    both, first, second, neither = table
    result = sig.mcnemar(*answers(*table))
    assert (result.only_first, result.only_second, result.n) == (first, second, 89)
    assert result.difference == pytest.approx((first - second) / 89)
    assert result.p == pytest.approx(statsmodels_mcnemar([[both, first], [second, neither]], exact=True).pvalue)


def test_mcnemar_worked_by_hand():
    # Five questions, all for the first: two sides of a fair coin's five heads.
    assert sig.mcnemar(*answers(3, 5, 0, 2)).p == pytest.approx(2 / 32)


def test_tango_interval_of_a_published_table():
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850-2875: 1, 1, 7, 12 of 21.
    assert sig.tango_interval(1, 7, 21, 0.05) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tango_interval_where_there_is_no_discordant_question():
    # Solved by hand: n d^2 = z^2 d (1 - d).
    z2 = stats.norm.isf(0.025) ** 2
    assert sig.tango_interval(0, 0, 89, 0.05) == pytest.approx((-z2 / (89 + z2), z2 / (89 + z2)))


@pytest.mark.parametrize("counts", [(10, 0, 10), (0, 10, 10), (1, 0, 1), (1, 1, 2)])
def test_tango_interval_where_every_question_is_discordant(counts):
    low, high = sig.tango_interval(*counts, 0.05)
    assert -1 <= low < (counts[0] - counts[1]) / counts[2] or low == -1
    assert low < high <= 1


def score_statistic(difference: float, b: int, c: int, n: int) -> float:
    """Tango's statistic, the restricted likelihood maximised numerically."""

    def loss(share: float) -> float:
        cells = np.array([share + difference, share, 1 - 2 * share - difference])
        return -(np.array([b, c, n - b - c]) * np.log(np.maximum(cells, 1e-300))).sum()

    bounds = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (b - c - n * difference) / np.sqrt(n * (2 * share + difference * (1 - difference)))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(("b", "c", "n"), [(40, 20, 160), (5, 0, 89), (3, 17, 89), (1, 0, 30), (90, 110, 890)])
def test_the_ends_of_tangos_interval_are_just_not_rejected(b, c, n, alpha):
    z = stats.norm.isf(alpha / 2)
    low, high = sig.tango_interval(b, c, n, alpha)
    assert score_statistic(low, b, c, n) == pytest.approx(z, abs=1e-3)
    assert score_statistic(high, b, c, n) == pytest.approx(-z, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.05 / 3, 2 / 32, 0.0005, 0.0004, 1e-5])
def test_mcnemar_interval_excludes_zero_just_when_the_test_rejects(alpha):
    for discordant in range(31):
        for first in range(discordant + 1):
            result = sig.mcnemar(*answers(5, first, discordant - first, 5))
            low, high = result.interval(alpha)
            assert (low > 0 or high < 0) == (result.p <= alpha)
            assert low <= result.difference <= high and low < high


def test_five_to_nothing_is_not_shown_and_its_interval_touches_zero():
    result = sig.mcnemar(*answers(40, 5, 0, 44))
    assert result.p == pytest.approx(0.0625)
    assert sig.tango_interval(5, 0, 89, 0.05)[0] > 0  # the score test alone would have rejected
    assert result.interval(0.05) == pytest.approx((0.0, 0.125), abs=1e-3)
    assert result.interval(0.07)[0] > 0


def test_only_below_alpha_of_five_in_ten_thousand_does_the_exact_test_reject_alone():
    # Two-sided p of the exact test against that of the score test at a difference of 0.
    worst = 0.0
    for discordant in range(1, 400):
        fewer = np.arange((discordant + 1) // 2)
        exact = 2 * stats.binom.cdf(fewer, discordant, 0.5)
        score = 2 * stats.norm.sf((discordant - 2 * fewer) / np.sqrt(discordant))
        worst = max(worst, *exact[exact < score], 0.0)
    assert worst == pytest.approx(2 / 2**12)


def test_identical_predictions_give_an_interval_with_a_width():
    right = replicates(0.7, 89, 1, 0)
    for fold, first in ((ONE_FOLD, right), (ONE_FOLD, np.tile(right, (3, 1))), (np.arange(89) % 10, right)):
        result = sig.primary_test(first, first, fold, BOTH)
        assert (result.difference, result.p) == (0, 1)
        low, high = result.interval(0.05)
        assert low == pytest.approx(-high) and high > 0.04


def by_formula(first: np.ndarray, second: np.ndarray, trained: tuple[bool, bool]) -> tuple[float, float, float]:
    """Difference, standard error and degrees of freedom of the several-seeds test, folds of one size."""
    per_question = first.mean(axis=0) - second.mean(axis=0)
    n = len(per_question)
    parts, dfs = [np.var(per_question, ddof=1) / n], [n - 1]
    for correct, is_trained in zip((first, second), trained, strict=True):
        if is_trained:
            parts.append(np.var([np.mean(seed) for seed in correct], ddof=1) / len(correct))
            dfs.append(len(correct) - 1)
    df = sum(parts) ** 2 / sum(part**2 / df for part, df in zip(parts, dfs, strict=True))
    return per_question.mean(), np.sqrt(sum(parts)), df


@pytest.mark.parametrize("fold", [np.zeros(200, dtype=int), TEN_FOLDS], ids=["one fold", "ten folds"])
@pytest.mark.parametrize(("count", "trained"), [(2, BOTH), (5, BOTH), (3, (True, False)), (3, (False, True))])
def test_several_seeds_agree_with_the_formula(count, trained, fold):
    first, second = (
        replicates(accuracy, 200, count if is_trained else 1, seed)
        for seed, (accuracy, is_trained) in enumerate(zip((0.8, 0.6), trained, strict=True))
    )
    result = sig.primary_test(first, second, fold, trained)
    difference, error, df = by_formula(first, second, trained)
    assert result[:4] == ("seeds_t", pytest.approx(difference), pytest.approx(error), pytest.approx(df))
    assert result.p == pytest.approx(2 * stats.t.sf(abs(difference) / error, df))
    assert result.interval(0.05) == pytest.approx(stats.t.interval(0.95, df, difference, error))


def test_without_question_variance_the_formula_is_welchs_t_test():
    # Every question is answered alike by both but one block, whose size alone differs between seeds.
    rng = np.random.default_rng(3)
    first, second = rng.random((4, 40_000)) < [[0.70], [0.75], [0.72], [0.78]], rng.random((4, 40_000)) < 0.6
    result = sig.primary_test(first, second, np.zeros(40_000, dtype=int), BOTH)
    welch = stats.ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False)
    assert result.p == pytest.approx(welch.pvalue, rel=0.1)
    assert result.df == pytest.approx(welch.df, rel=0.05)


def test_one_seed_and_ten_folds_are_a_paired_t_test():
    first, second = replicates(0.8, 200, 1, 0), replicates(0.7, 200, 1, 1)
    result = sig.primary_test(first, second, TEN_FOLDS, BOTH)
    by_fold = [correct[0].reshape(10, 20).mean(axis=1) for correct in (first, second)]
    expected = stats.ttest_rel(*by_fold)
    assert (result.name, result.df) == ("folds_t", pytest.approx(9))
    assert result.p == pytest.approx(expected.pvalue)
    assert result.interval(0.1) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    # One of the two trained is enough.
    assert sig.primary_test(first, second, TEN_FOLDS, (False, True)) == result


def test_folds_of_different_sizes_count_alike():
    fold = np.repeat([0, 1, 2], [10, 20, 30])
    first, second = replicates(0.9, 60, 3, 0), replicates(0.4, 60, 3, 1)
    runs = [[correct[seed, fold == k].mean() for seed in range(3) for k in range(3)] for correct in (first, second)]
    difference = np.mean(runs[0]) - np.mean(runs[1])
    assert sig.primary_test(first, second, fold, BOTH).difference == pytest.approx(difference)
    assert sig.corrected_t(first, second, fold, 0.125).difference == pytest.approx(difference)
    by_fold = [[correct[0, fold == k].mean() for k in range(3)] for correct in (first, second)]
    result = sig.primary_test(first[:1], second[:1], fold, BOTH)
    assert result.p == pytest.approx(stats.ttest_rel(*by_fold).pvalue)


@pytest.mark.parametrize("fold", [ONE_FOLD, np.arange(89) % 10])
def test_untrained_variants_are_a_plain_paired_comparison(fold):
    first, second = answers(50, 19, 4, 16)
    assert sig.primary_test(first[None], second[None], fold, (False, False)) == sig.mcnemar(first, second)


def test_one_training_each_on_one_fold_is_mcnemars_test():
    first, second = answers(50, 19, 4, 16)
    assert sig.primary_test(first[None], second[None], ONE_FOLD, BOTH) == sig.mcnemar(first, second)
    assert sig.primary_test(first[None], second[None], ONE_FOLD, (True, False)) == sig.mcnemar(first, second)


def test_where_every_fold_differs_by_the_same_the_test_is_about_questions():
    # Two folds, one question each: a paired t test would find no spread and call that certain.
    first, second = np.ones((1, 40), dtype=bool), np.ones((1, 40), dtype=bool)
    second[0, [0, 20]] = False
    result = sig.primary_test(first, second, np.repeat([0, 1], 20), BOTH)
    assert result == sig.mcnemar(first[0], second[0])
    assert result.p == pytest.approx(0.5)


def test_a_method_that_is_always_right_against_one_that_is_always_wrong():
    first, second = np.ones((3, 89), dtype=bool), np.zeros((3, 89), dtype=bool)
    result = sig.primary_test(first, second, ONE_FOLD, BOTH)
    assert result.p < 1e-20
    low, high = result.interval(0.05)
    assert 0.9 < low < high == 1


def test_seeds_that_agree_leave_the_variance_of_the_questions():
    first, second = answers(50, 19, 4, 16)
    result = sig.primary_test(np.tile(first, (3, 1)), np.tile(second, (3, 1)), ONE_FOLD, BOTH)
    expected = stats.ttest_rel(first.astype(float), second.astype(float))
    assert result.p == pytest.approx(expected.pvalue)
    assert result.df == pytest.approx(88)


def test_the_sign_says_which_is_better():
    worse, better = replicates(0.5, 200, 3, 0), replicates(0.9, 200, 3, 1)
    result = sig.primary_test(worse, better, TEN_FOLDS, BOTH)
    assert result.difference < 0 and result.p < 0.001 and result.interval(0.05)[1] < 0
    mirrored = sig.primary_test(better, worse, TEN_FOLDS, BOTH)
    assert mirrored.p == pytest.approx(result.p) and mirrored.difference == pytest.approx(-result.difference)


@pytest.mark.parametrize("count", [1, 3])
def test_interval_and_test_agree_at_any_level(count):
    for seed in range(40):
        first, second = replicates(0.78, 200, count, seed), replicates(0.7, 200, count, 1000 + seed)
        for fold in (np.zeros(200, dtype=int), TEN_FOLDS):
            result = sig.primary_test(first, second, fold, BOTH)
            for alpha in (0.2, 0.05, 0.05 / 6):
                low, high = result.interval(alpha)
                assert (low > 0 or high < 0) == (result.p <= alpha)


def test_different_numbers_of_trained_replicates_are_refused():
    with pytest.raises(ValueError, match=r"different numbers of replicates: \[1, 3\]"):
        sig.primary_test(replicates(0.7, 89, 3, 0), replicates(0.7, 89, 1, 1), ONE_FOLD, BOTH)


def test_under_official_an_untrained_variant_that_differs_by_fold_adds_variance():
    trained, by_fold = replicates(0.8, 89, 6, 0), replicates(0.7, 89, 2, 1)
    error = sig.seeds_t(trained, by_fold, ONE_FOLD).standard_error
    expected = (trained.mean(axis=0) - by_fold.mean(axis=0)).var(ddof=1) / 89
    expected += trained.mean(axis=1).var(ddof=1) / 6 + by_fold.mean(axis=1).var(ddof=1) / 2
    assert error == pytest.approx(np.sqrt(expected))
    assert sig.primary_test(trained, by_fold, ONE_FOLD, (True, False)).name == "seeds_t"


def test_corrected_t_agrees_with_the_formula():
    first, second = replicates(0.8, 200, 3, 0), replicates(0.7, 200, 3, 1)
    runs = [
        np.array([correct[s, k == TEN_FOLDS].mean() for s in range(3) for k in range(10)])
        for correct in (first, second)
    ]
    differences = runs[0] - runs[1]
    error = np.sqrt((1 / 30 + 0.125) * differences.var(ddof=1))
    result = sig.corrected_t(first, second, TEN_FOLDS, 0.125)
    assert result[:4] == ("corrected_t", pytest.approx(differences.mean()), pytest.approx(error), pytest.approx(29))
    assert result.p == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / error, 29))
    assert result.interval(0.05) == pytest.approx(stats.t.interval(0.95, 29, differences.mean(), error))
    assert sig.corrected_t(first, second, TEN_FOLDS, 0.0).p == pytest.approx(stats.ttest_rel(*runs).pvalue)


def test_corrected_t_against_an_untrained_variant_and_of_runs_that_say_nothing():
    first, base = replicates(0.8, 200, 3, 0), replicates(0.7, 200, 1, 1)
    assert sig.corrected_t(first, base, TEN_FOLDS, 0.125) == sig.corrected_t(
        first, np.tile(base, (3, 1)), TEN_FOLDS, 0.125
    )
    # official: an adapter of three seeds on two folds, one replicate each, and the base's answers fold by fold
    by_fold = replicates(0.7, 89, 2, 2)
    trained = replicates(0.8, 89, 6, 3)
    assert sig.corrected_t(trained, by_fold, ONE_FOLD, 0.125) == sig.corrected_t(
        trained, by_fold[[0, 0, 0, 1, 1, 1]], ONE_FOLD, 0.125
    )
    assert sig.corrected_t(first[:1], base, np.zeros(200, dtype=int), 0.125) is None
    assert sig.corrected_t(first, first, TEN_FOLDS, 0.125) is None


def test_holm_worked_by_hand_in_any_order():
    # 3 * .01; max(that, 2 * .04); max(that, .05)
    assert sig.holm([0.04, 0.01, 0.05]) == pytest.approx([0.08, 0.03, 0.08])
    assert sig.holm([0.9, 0.6]) == [1.0, 1.0]
    assert sig.holm([0.03]) == pytest.approx([0.03])
    assert sig.holm([]) == []


def test_holm_levels_worked_by_hand():
    # .01 <= .05/3 is rejected, .04 > .05/2 is not: the rest stay at that level.
    assert sig.holm_levels([0.04, 0.01, 0.05], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025])
    assert sig.holm_levels([0.03, 0.001, 0.02], 0.05) == pytest.approx([0.05, 0.05 / 3, 0.025])
    assert sig.holm_levels([0.9, 0.6], 0.05) == pytest.approx([0.025, 0.025])
    assert sig.holm_levels([], 0.05) == []


@pytest.mark.slow
def test_at_its_holm_level_each_p_value_decides_as_holms_procedure_does():
    rng = np.random.default_rng(0)
    for _ in range(12):
        p_values = (rng.random(rng.integers(1, 8)) ** 4).tolist()
        decisions = [p <= level for p, level in zip(p_values, sig.holm_levels(p_values, 0.05), strict=True)]
        assert decisions == multipletests(p_values, 0.05, method="holm")[0].tolist()
