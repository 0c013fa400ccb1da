"""Bootstrapped figures against scikit-learn on written-out resamples, scipy's bootstrap, or by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef

from peftqa.statistics import bootstrap as boot


def example(labels: int, replicates: int = 1, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (replicates, n, labels) that know something of y_true (n,), and that."""
    rng = np.random.default_rng(0)
    y_true = rng.integers(labels, size=n)
    exponentials = np.exp(rng.normal(size=(replicates, n, labels)) + np.eye(labels)[y_true])
    return exponentials / exponentials.sum(axis=2, keepdims=True), y_true


def one_fold(n: int) -> np.ndarray:
    return np.zeros(n, dtype=int)


def by_scikit_learn(probabilities: np.ndarray, y_true: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """One resample of one run written out, and its figures."""
    rows = np.repeat(np.arange(len(y_true)), counts.astype(int))
    probabilities, y_true = probabilities[rows], y_true[rows]
    labels, answers = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    brier = [np.sum((p - np.eye(len(labels))[y]) ** 2) for p, y in zip(probabilities, y_true, strict=True)]
    return {
        "macro_f1": f1_score(y_true, answers, labels=labels, average="macro", zero_division=0),
        "mcc": matthews_corrcoef(y_true, answers) if len(set(y_true)) > 1 else np.nan,
        "log_loss": log_loss(y_true, probabilities, labels=labels),
        "brier": np.mean(brier),
    }


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(("labels", "n"), [(2, 60), (3, 60), (2, 3), (3, 4)])
def test_bootstrap_scores_agree_with_scikit_learn(labels, n):
    # The small sets have resamples without one of the labels, or with one answer alone.
    probabilities, y_true = example(labels, n=n)
    counts = boot.draw_questions(one_fold(n), 20, 1, draw_folds=False)
    scores = boot.bootstrap_scores(probabilities, y_true, one_fold(n), counts, [1])
    for resample, drawn in enumerate(counts):
        expected = by_scikit_learn(probabilities[0], y_true, drawn)
        assert {name: values[resample] for name, values in scores.items()} == pytest.approx(expected, nan_ok=True)


def test_bootstrap_scores_of_several_runs_draw_the_runs_within_folds():
    # Two folds, two replicates. With every question drawn once only the runs differ between resamples, and each score
    # must be the mean of two of the four ways to put a replicate together.
    probabilities, y_true = example(3, replicates=2, n=60)
    fold, counts = np.repeat([0, 1], 30), np.ones((200, 60))
    scores = boot.bootstrap_scores(probabilities, y_true, fold, counts, [1])
    ways = [
        by_scikit_learn(np.concatenate([probabilities[i, :30], probabilities[j, 30:]]), y_true, np.ones(60))
        for i in range(2)
        for j in range(2)
    ]
    for name, values in scores.items():
        possible = np.array([(one[name] + other[name]) / 2 for one in ways for other in ways])
        assert all(min(abs(value - possible)) < 1e-9 for value in values), name
        assert len(np.unique(values.round(9))) > 4
    again, other = (boot.bootstrap_scores(probabilities, y_true, fold, counts, [seed]) for seed in (1, 2))
    assert (again["log_loss"] == scores["log_loss"]).all() and (other["log_loss"] != scores["log_loss"]).any()


@pytest.mark.parametrize("draw_folds", [False, True])
def test_draw_questions_resamples_within_folds(draw_folds):
    fold = np.array([0, 1, 1] * 30)
    counts = boot.draw_questions(fold, 500, 42, draw_folds)
    assert counts.min() == 0 and counts.mean(axis=0) == pytest.approx(np.ones(90), abs=0.25)
    times = np.stack([counts[:, fold == 0].sum(axis=1) / 30, counts[:, fold == 1].sum(axis=1) / 60])
    assert set(times[0]) == ({0, 1, 2} if draw_folds else {1}) and (times.sum(axis=0) == 2).all()
    assert (counts == boot.draw_questions(fold, 500, 42, draw_folds)).all()
    assert (counts != boot.draw_questions(fold, 500, 43, draw_folds)).any()


def test_the_spread_over_questions_and_runs_is_that_of_the_formula():
    # Runs that agree on every question add their own variance to that of the questions.
    n, fold = 200, np.repeat([0, 1], 100)
    y_true = np.zeros(n, dtype=int)
    rng = np.random.default_rng(0)
    right = rng.random((4, n)) < rng.choice([0.6, 0.8, 0.95], size=(4, 1))
    probabilities = np.where(right[:, :, None], [0.9, 0.1], [0.1, 0.9])
    counts = boot.draw_questions(fold, 8000, 1, draw_folds=False)
    # Of these probabilities the Brier score is .02 if right and 1.62 if wrong.
    scores = -boot.bootstrap_scores(probabilities, y_true, fold, counts, [1])["brier"] / 1.6
    expected = 0.0
    for k in range(2):
        runs = right[:, fold == k]
        # Mean over 4 drawn runs of 100 drawn questions: runs, questions, and what both do together.
        between, questions = runs.mean(axis=1).var(), runs.mean(axis=0).var()
        rest = (runs - runs.mean(axis=0) - runs.mean(axis=1, keepdims=True) + runs.mean()).var()
        expected += (between / 4 + questions / 100 + rest / 400) / 4
    assert scores.std() == pytest.approx(np.sqrt(expected), rel=0.03)


def test_percentile_interval_agrees_with_scipys_bootstrap():
    probabilities, y_true = example(2, n=89)
    counts = boot.draw_questions(one_fold(89), 10_000, 42, draw_folds=False)
    scores = boot.bootstrap_scores(probabilities, y_true, one_fold(89), counts, [1])
    losses = -np.log(probabilities[0, np.arange(89), y_true])
    theirs = stats.bootstrap([losses], np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1))
    low, high = theirs.confidence_interval
    ours = boot.percentile_interval(scores["log_loss"], 0.05)
    assert ours == pytest.approx((low, high), abs=0.03 * (high - low))
