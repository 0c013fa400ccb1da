"""Bootstrapped figures against scikit-learn on written-out resamples, scipy's bootstrap, or by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef

from peftqa.evaluation.metrics import roc_auc
from peftqa.statistics import bootstrap as boot


def example(labels: int, replicates: int = 1, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (replicates, n, labels) that know something of y_true (n,), and that."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(labels, size=n)
    logits = rng.normal(size=(replicates, n, labels)) + np.eye(labels)[y_true]
    # Rounded, so that some probabilities are equal.
    exponentials = np.exp(logits.round(1))
    return exponentials / exponentials.sum(axis=2, keepdims=True), y_true


def one_fold(n: int) -> np.ndarray:
    return np.zeros(n, dtype=int)


def by_scikit_learn(probabilities: np.ndarray, y_true: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """One resample of one run written out, and its figures."""
    rows = np.repeat(np.arange(len(y_true)), weights.astype(int))
    probabilities, y_true = probabilities[rows], y_true[rows]
    labels, y_pred = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    area = roc_auc(probabilities, y_true)
    return {
        "macro_f1": f1_score(y_true, y_pred, labels=labels, average="macro", zero_division=0),
        "mcc": matthews_corrcoef(y_true, y_pred) if len(set(y_true)) > 1 else np.nan,
        "log_loss": log_loss(y_true, probabilities, labels=labels),
        "brier": np.mean(
            [np.sum((p - np.eye(len(labels))[y]) ** 2) for p, y in zip(probabilities, y_true, strict=True)]
        ),
        "roc_auc": np.nan if area is None else area,
    }


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(("labels", "n"), [(2, 60), (3, 60), (2, 3), (3, 4)])
def test_scores_of_resamples_agree_with_scikit_learn(labels, n):
    # The small sets have resamples without one of the labels, or with one answer alone.
    probabilities, y_true = example(labels, replicates=20, n=n)
    weights = boot.bootstrap_weights(one_fold(n), 20, 1, draw_folds=False).questions
    scores = boot.weighted_scores(probabilities, y_true, weights)
    assert set(scores) == set(boot.BOOTSTRAPPED)
    for resample in range(20):
        expected = by_scikit_learn(probabilities[resample], y_true, weights[resample])
        assert {name: scores[name][resample] for name in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_a_resample_puts_replicates_together_from_runs_drawn_within_folds():
    # Two folds, two replicates. With every question drawn once only the runs differ between resamples, and each score
    # must be the mean of two of the four ways to put a replicate together.
    probabilities, y_true = example(3, replicates=2, n=60)
    fold = np.repeat([0, 1], 30)
    weights = boot.BootstrapWeights(np.ones((200, 60)), np.ones((200, 2)))
    scores = boot.bootstrap_scores(probabilities, y_true, fold, weights, [1])
    ways = [
        by_scikit_learn(np.concatenate([probabilities[i, :30], probabilities[j, 30:]]), y_true, np.ones(60))
        for i in range(2)
        for j in range(2)
    ]
    for name, values in scores.items():
        possible = [(one[name] + other[name]) / 2 for one in ways for other in ways]
        assert all(min(abs(value - np.array(possible))) < 1e-9 for value in values), name
        assert len(np.unique(values.round(9))) > 4
    again = boot.bootstrap_scores(probabilities, y_true, fold, weights, [1])
    other = boot.bootstrap_scores(probabilities, y_true, fold, weights, [2])
    assert (again["log_loss"] == scores["log_loss"]).all() and (other["log_loss"] != scores["log_loss"]).any()


def test_question_weights_are_resamples_within_folds_and_repeat_with_their_seed():
    fold = np.array([0, 1, 1] * 30)
    weights, shares = boot.bootstrap_weights(fold, 500, 42, draw_folds=False)
    assert (weights[:, fold == 0].sum(axis=1) == 30).all() and (weights[:, fold == 1].sum(axis=1) == 60).all()
    assert weights.min() == 0 and (weights == weights.astype(int)).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(90), abs=0.25)
    assert (shares == 1).all()
    assert (weights == boot.bootstrap_weights(fold, 500, 42, draw_folds=False).questions).all()
    assert (weights != boot.bootstrap_weights(fold, 500, 43, draw_folds=False).questions).any()


def test_the_spread_over_questions_and_runs_is_that_of_the_formula():
    # Runs that agree on every question add their own variance to that of the questions.
    n, fold = 200, np.repeat([0, 1], 100)
    y_true = np.zeros(n, dtype=int)
    rng = np.random.default_rng(0)
    right = rng.random((4, n)) < rng.choice([0.6, 0.8, 0.95], size=(4, 1))
    probabilities = np.where(right[:, :, None], [0.9, 0.1], [0.1, 0.9])
    weights = boot.bootstrap_weights(fold, 8000, 1, draw_folds=False)
    # Of these probabilities the Brier score is .02 if right and 1.62 if wrong.
    scores = -boot.bootstrap_scores(probabilities, y_true, fold, weights, [1])["brier"] / 1.6
    expected = 0.0
    for k in range(2):
        runs = right[:, fold == k]
        # Mean over 4 drawn runs of 100 drawn questions: runs, questions, and what both do together.
        between, questions = runs.mean(axis=1).var(), runs.mean(axis=0).var()
        rest = (runs - runs.mean(axis=0) - runs.mean(axis=1, keepdims=True) + runs.mean()).var()
        expected += (between / 4 + questions / 100 + rest / 400) / 4
    assert scores.std() == pytest.approx(np.sqrt(expected), rel=0.03)


def test_intervals_of_a_difference_agree_with_scipys_bootstrap():
    first, y_true = example(2, n=89)
    second, fold = example(2, n=89, seed=5)[0], one_fold(89)
    weights = boot.bootstrap_weights(fold, 10_000, 42, draw_folds=False)
    one, other = (
        boot.bootstrap_scores(variant, y_true, fold, weights, [i]) for i, variant in enumerate((first, second))
    )
    ours = boot.percentile_interval(one["log_loss"] - other["log_loss"], 0.05)
    loss = -np.log(first[0, np.arange(89), y_true]), -np.log(second[0, np.arange(89), y_true])
    theirs = stats.bootstrap(
        loss,
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))
