"""Every test and interval against statsmodels, scipy, scikit-learn on written-out resamples, or by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from peftqa import significance as sig


def example(labels: int, seeds: int = 1, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (seeds, n, labels) that know something of the codes (n,), and those."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(labels, size=n)
    logits = rng.normal(size=(seeds, n, labels)) + np.eye(labels)[codes]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), codes


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Who is right on how many questions."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize("table", [(50, 9, 2, 28), (10, 0, 6, 73), (0, 30, 31, 0), (80, 1, 0, 8), (40, 7, 7, 35)])
def test_mcnemar_agrees_with_statsmodels(table):
    both, first, second, neither = table
    result = sig.mcnemar(*answers(*table))
    assert (result.only_first, result.only_second) == (first, second)
    assert result.p == pytest.approx(statsmodels_mcnemar([[both, first], [second, neither]], exact=True).pvalue)


def test_mcnemar_worked_by_hand():
    # Five questions, all for the first: two sides of a fair coin's five heads.
    assert sig.mcnemar(*answers(3, 5, 0, 2)).p == pytest.approx(2 / 32)


def test_without_a_discordant_question_p_is_one():
    assert sig.mcnemar(*answers(60, 0, 0, 29)) == (0, 0, 1.0)


def test_holm_worked_by_hand_in_any_order():
    # 3 * .01; max(that, 2 * .04); max(that, .05)
    assert sig.holm([0.04, 0.01, 0.05]) == pytest.approx([0.08, 0.03, 0.08])
    assert sig.holm([0.9, 0.6]) == [1.0, 1.0]
    assert sig.holm([0.03]) == pytest.approx([0.03])
    assert sig.holm([]) == []


def power_by_enumeration(difference: float, discordance: float, n: int, alpha: float) -> float:
    """The same power the long way: every count of questions that the one or the other alone gets right."""
    better, worse = (discordance + difference) / 2, (discordance - difference) / 2
    power = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if 0 < b + c <= n and stats.binomtest(b, b + c).pvalue <= alpha:
            ways = math.factorial(n) // math.factorial(b) // math.factorial(c) // math.factorial(n - b - c)
            power += ways * better**b * worse**c * (1 - discordance) ** (n - b - c)
    return power


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 2 / 32])
@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.4), (0.2, 0.4), (0.4, 0.4), (0.3, 0.9)])
def test_power_agrees_with_enumeration(difference, discordance, alpha):
    expected = power_by_enumeration(difference, discordance, 20, alpha)
    assert sig.mcnemar_power(difference, discordance, 20, alpha) == pytest.approx(expected)


def test_power_agrees_with_simulated_test_sets():
    n, difference, discordance = 89, 0.15, 0.25
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    counts = np.random.default_rng(0).multinomial(n, shares, size=4000)
    tests = {tuple(pair): sig.mcnemar(*answers(0, *pair, 0)).p <= 0.05 for pair in np.unique(counts[:, :2], axis=0)}
    shown = np.mean([tests[tuple(pair)] for pair in counts[:, :2]])
    assert sig.mcnemar_power(difference, discordance, n, 0.05) == pytest.approx(shown, abs=0.025)


def test_the_smallest_detectable_difference_has_just_the_power_asked_for():
    smallest = sig.smallest_detectable_difference(0.25, 89, 0.05, 0.8)
    assert 0.1 < smallest < 0.2
    assert sig.mcnemar_power(smallest, 0.25, 89, 0.05) == pytest.approx(0.8)
    assert sig.smallest_detectable_difference(0.25, 500, 0.05, 0.8) < smallest
    assert sig.smallest_detectable_difference(0.25, 89, 0.05 / 3, 0.8) > smallest
    assert sig.smallest_detectable_difference(0.25, 89, 0.05, 0.9) > smallest


def test_too_few_discordant_questions_show_no_difference_at_all():
    assert sig.smallest_detectable_difference(0.0, 89, 0.05, 0.8) is None
    assert sig.smallest_detectable_difference(2 / 89, 89, 0.05, 0.8) is None


def test_weights_are_resamples_of_the_questions_and_repeat_with_their_seed():
    weights = sig.bootstrap_weights(89, 500, 42)
    assert weights.shape == (500, 89)
    assert (weights.sum(axis=1) == 89).all()
    assert weights.min() == 0 and (weights == weights.astype(int)).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(89), abs=0.25)
    assert (weights == sig.bootstrap_weights(89, 500, 42)).all()
    assert (weights != sig.bootstrap_weights(89, 500, 43)).any()


def by_scikit_learn(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """One resample written out, and its figures."""
    rows = np.repeat(np.arange(len(codes)), weights.astype(int))
    probabilities, codes = probabilities[rows], codes[rows]
    labels, predicted = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    return {
        "accuracy": accuracy_score(codes, predicted),
        "macro_f1": f1_score(codes, predicted, labels=labels, average="macro", zero_division=0),
        "mcc": matthews_corrcoef(codes, predicted),
        "log_loss": log_loss(codes, probabilities, labels=labels),
        "brier": np.mean(
            [np.sum((p - np.eye(len(labels))[code]) ** 2) for p, code in zip(probabilities, codes, strict=True)]
        ),
    }


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(("labels", "n"), [(2, 60), (3, 60), (2, 3), (3, 4)])
def test_scores_of_resamples_agree_with_scikit_learn(labels, n):
    # The small sets have resamples without one of the labels, or with one answer alone.
    probabilities, codes = example(labels, seeds=2, n=n)
    weights = sig.bootstrap_weights(n, 20, 1)
    scores = sig.weighted_scores(probabilities, codes, weights)
    assert set(scores) == set(sig.BOOTSTRAPPED)
    for resample, seed in itertools.product(range(20), range(2)):
        expected = by_scikit_learn(probabilities[seed], codes, weights[resample])
        assert {name: scores[name][resample, seed] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("labels", [2, 3])
def test_scores_of_a_variant_that_always_gives_one_answer(labels):
    _, codes = example(labels)
    probabilities = np.tile([0.8] + [0.2 / (labels - 1)] * (labels - 1), (1, len(codes), 1))
    scores = sig.weighted_scores(probabilities, codes, sig.bootstrap_weights(len(codes), 50, 1))
    assert (scores["mcc"] == 0).all()
    assert scores["macro_f1"] == pytest.approx(2 * scores["accuracy"] / (1 + scores["accuracy"]) / labels)


def test_intervals_of_a_difference_agree_with_scipys_bootstrap():
    first, codes = example(2, n=89)
    second = example(2, n=89, seed=5)[0]
    weights = sig.bootstrap_weights(89, 10_000, 42)
    one, other = (sig.bootstrap_scores(variant, codes, weights, [seed]) for seed, variant in enumerate((first, second)))
    ours = sig.percentile_interval(one["log_loss"] - other["log_loss"], 0.95)
    loss = -np.log(first[0, np.arange(89), codes]), -np.log(second[0, np.arange(89), codes])
    theirs = stats.bootstrap(
        loss,
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))


def test_the_spread_of_bootstrapped_accuracy_is_its_standard_error():
    probabilities, codes = example(2, n=89)
    scores = sig.bootstrap_scores(probabilities, codes, sig.bootstrap_weights(89, 10_000, 42), [1])
    accuracy = np.mean(probabilities[0].argmax(axis=1) == codes)
    assert scores["accuracy"].std() == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 89), rel=0.05)


def test_one_seed_adds_no_spread():
    probabilities, codes = example(3)
    weights = sig.bootstrap_weights(len(codes), 100, 1)
    scores = sig.bootstrap_scores(probabilities, codes, weights, [1])
    for name, values in sig.weighted_scores(probabilities, codes, weights).items():
        assert (scores[name] == values[:, 0]).all()


def test_seeds_are_resampled_too_and_each_variant_draws_its_own():
    codes = np.zeros(10, dtype=int)
    right, wrong = np.tile([0.9, 0.1], (10, 1)), np.tile([0.1, 0.9], (10, 1))
    probabilities = np.stack([right, wrong])
    weights = sig.bootstrap_weights(10, 4000, 1)
    drawn = sig.bootstrap_scores(probabilities, codes, weights, [1])["accuracy"]
    shares = [np.mean(drawn == value) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert (drawn == sig.bootstrap_scores(probabilities, codes, weights, [1])["accuracy"]).all()
    assert np.corrcoef(drawn, sig.bootstrap_scores(probabilities, codes, weights, [2])["accuracy"])[0, 1] < 0.1


def test_intervals_hold_the_central_share():
    assert sig.percentile_interval(np.arange(1001.0), 0.9) == pytest.approx((50, 950))
    assert sig.intervals({"mcc": np.full(10, 0.3)}, 0.95) == {"mcc": (0.3, 0.3)}
