"""Numbers from label probabilities. Imports no torch.

Everywhere `probabilities` is float64 of shape (n, L), rows summing to 1, columns in the order of `labels`; `truth` is a
sequence of n labels. A label counts even if it is absent from truth or predictions. Undefined ratios count as 0, but
ROC AUC and MCC are None if the truth leaves them undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_recall_fscore_support, roc_auc_score

from peftqa.evaluation.predictions import Replicates, predict


def evaluate(test: Replicates, val: Replicates, labels: Sequence[str], bins: int, coverage: float) -> dict:
    """The figures of one variant, each the mean over replicates.

    replicates      name -> `classification_metrics` on test
    mean            their means, and as `val_METRIC` those on validation
    threshold       `at_threshold`, null unless there are two labels
    abstention      coverage, and accuracy on that share of answers, the most confident ones
    """
    on_test, on_val = (
        [classification_metrics(run, part.truth, labels, bins) for run in part.probabilities] for part in (test, val)
    )
    mean = mean_over_replicates(on_test)
    mean |= {f"val_{key}": value for key, value in mean_over_replicates(on_val).items() if key != "n"}
    surest = [accuracy_at_coverage(run, test.truth, labels, coverage) for run in test.probabilities]
    return {
        "mean": mean,
        "replicates": dict(zip(test.names, on_test, strict=True)),
        "threshold": at_threshold(test, val, labels) if len(labels) == 2 else None,
        "abstention": {"coverage": coverage, "accuracy": float(np.mean(surest))},
    }


def encode_labels(truth: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Position of each label in `labels`, int64 of shape (n,). Raises ValueError for a label that is not there."""
    y_true = pd.Index(list(labels)).get_indexer(pd.Index(list(truth)))
    if (y_true < 0).any():
        raise ValueError(f"label {list(truth)[int(np.argmin(y_true))]!r} is not one of {list(labels)}")
    return y_true.astype(np.int64)


def label_metrics(predicted: Sequence[str], truth: Sequence[str], labels: Sequence[str]) -> dict[str, float | None]:
    """`accuracy`, `macro_f1` (unweighted mean over `labels`) and `mcc` (None if truth has one label alone).

    MCC is 0 if the answers are all alike and the truth is not. A prediction outside `labels` is an error.
    """
    truth, predicted, labels = list(truth), list(predicted), list(labels)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, labels=labels, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(truth, predicted)) if len(set(truth)) > 1 else None,
    }


def confusion_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """`accuracy macro_f1 mcc` of many confusion matrices at once, as `label_metrics` has them; mcc nan for its None.

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
        "accuracy": right / total,
        "macro_f1": _ratio(2 * hits, actual + predicted).mean(axis=-1),
        "mcc": np.where(one_label, np.nan, _ratio(covariance, np.sqrt(spread))),
    }


def classification_metrics(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> dict[str, float | int | None]:
    """All metrics of one set of predictions, flat.

    `n accuracy macro_f1 mcc roc_auc log_loss brier ece`, then `f1_L precision_L recall_L` for every label L.
    `roc_auc` is None if a label is absent from truth, `mcc` if truth has one label; log loss is in nats.
    """
    y_true = encode_labels(truth, labels)
    predicted = predict(probabilities, labels)
    metrics = {"n": len(y_true), **label_metrics(predicted, truth, labels)}
    metrics["roc_auc"] = roc_auc(probabilities, y_true)
    metrics["log_loss"] = float(log_losses(probabilities, y_true).mean())
    metrics["brier"] = float(brier_scores(probabilities, y_true).mean())
    metrics["ece"] = expected_calibration_error(probabilities, truth, labels, bins)
    scores = precision_recall_fscore_support(list(truth), list(predicted), labels=list(labels), zero_division=0)
    for label, precision, recall, f1, _ in zip(labels, *scores, strict=True):
        metrics |= {f"f1_{label}": float(f1), f"precision_{label}": float(precision), f"recall_{label}": float(recall)}
    return metrics


def mean_over_replicates(metrics: Sequence[dict[str, float | int | None]]) -> dict[str, float | int | None]:
    """Each metric's mean over replicates; None if one has none. Whole numbers that agree (`n`) stay as they are."""
    means = {}
    for key in metrics[0]:
        values = [replicate[key] for replicate in metrics]
        if None in values:
            means[key] = None
        elif isinstance(values[0], int) and len(set(values)) == 1:
            means[key] = values[0]
        else:
            means[key] = float(np.mean(values))
    return means


def rounded(value: object) -> object:
    """Floats to six decimals, wherever they are: more than any test set here can tell apart. p-values stay."""
    if isinstance(value, dict):
        return {key: item if key in ("p", "p_holm") else rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def roc_auc(probabilities: np.ndarray, y_true: np.ndarray) -> float | None:
    """Area under the ROC curve; for more than two labels the unweighted mean of one-versus-rest areas.

    None if a label is absent from truth, since its area is undefined.
    """
    count = probabilities.shape[1]
    if len(np.unique(y_true)) < count:
        return None
    columns = [0] if count == 2 else range(count)
    return float(np.mean([roc_auc_score(y_true == column, probabilities[:, column]) for column in columns]))


def log_losses(probabilities: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Negative log probability of each row's true label, in nats; a probability of 0 counts as 2.2e-16.

    probabilities: (..., n, L); the result is (..., n).
    """
    return -np.log(np.maximum(probabilities[..., np.arange(len(y_true)), y_true], np.finfo(np.float64).eps))


def brier_scores(probabilities: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Brier score of each row: squared differences summed over all labels (Brier 1950). Shapes as in `log_losses`."""
    return ((probabilities - np.eye(probabilities.shape[-1])[y_true]) ** 2).sum(axis=-1)


def expected_calibration_error(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> float:
    """Gap between confidence and accuracy of the top label, averaged over bins by their share of rows.

    Guo et al. 2017, arXiv 1706.04599: `bins` intervals of equal width over (0, 1], each closed on the right.
    """
    points = reliability_points(probabilities, truth, labels, bins)
    gaps = (points["accuracy"] - points["confidence"]).abs()
    return float((gaps * points["count"]).sum() / points["count"].sum())


def reliability_points(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> pd.DataFrame:
    """Means in each bin (lower, upper] that is not empty: `lower upper confidence accuracy count`."""
    edges = np.linspace(0, 1, bins + 1)
    confidence, correct = _confidence(probabilities, truth, labels)
    table = pd.DataFrame({"bin": np.digitize(confidence, edges[1:-1], right=True)})
    table["confidence"], table["accuracy"] = confidence, correct
    points = table.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), count=("accuracy", "size")
    )
    points.insert(0, "lower", edges[points.index])
    points.insert(1, "upper", edges[points.index + 1])
    return points.reset_index(drop=True)


def accuracy_at_coverage(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], coverage: float
) -> float:
    """Accuracy on the most confident `coverage` (0 < coverage <= 1) of the rows, rounded up to whole rows.

    If the limit is among answers of equal confidence, that group counts with its mean accuracy.
    """
    _, kept, right = answers_by_confidence(probabilities, truth, labels)
    # Floating point can give 72.00000000000001 for 0.8 * 90, which must not be rounded up to 73 rows.
    answered = np.ceil(coverage * kept[-1] - 1e-9)
    return float(np.interp(answered, np.r_[0, kept], np.r_[0, right]) / answered)


def at_threshold(test: Replicates, val: Replicates, labels: Sequence[str]) -> dict:
    """The answers if the threshold is not 0.5, but chosen for each run on its own fold's validation questions.

    So no test question has a part in the threshold that it is judged by.

    label       the label whose probability is compared with the threshold
    ends        the lowest and the highest threshold of a run
    metrics     `label_metrics` on test, means over replicates
    """
    val_folds, test_folds, seeds = np.unique(val.folds), np.unique(test.folds), len(val.names)
    truth, thresholds = np.array(val.truth), []
    given = np.array([predict(probabilities, labels) for probabilities in test.probabilities])
    for k, seed in np.ndindex(len(val_folds), seeds):
        asked = val.folds == val_folds[k]
        thresholds.append(choose_threshold(val.probabilities[seed][asked], truth[asked], labels))
        own = len(test_folds) == len(val_folds)  # else all folds ask the same questions, and each run is a replicate
        replicate = seed if own else k * seeds + seed
        rows = test.folds == test_folds[k if own else 0]
        given[replicate, rows] = predict(test.probabilities[replicate, rows], labels, thresholds[-1])
    return {
        "label": labels[0],
        "ends": [min(thresholds), max(thresholds)],
        "metrics": mean_over_replicates([label_metrics(run, test.truth, labels) for run in given]),
    }


def choose_threshold(probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> float:
    """The threshold on the probability of `labels[0]`, of two, with the highest macro-F1 on these rows.

    Candidates are 0.5 and the midpoints between neighbouring probabilities (0 and 1 among them); of equally good ones
    the nearest to 0.5 is taken, then the lower.
    """
    first, answers = encode_labels(truth, labels) == 0, probabilities[:, 0]
    grid = np.unique(np.r_[0, answers, 1])
    candidates = np.r_[0.5, (grid[1:] + grid[:-1]) / 2]
    chosen = (answers >= candidates[:, None]).astype(np.float64)
    true_chosen, all_chosen = chosen @ first, chosen.sum(axis=1)
    missed, wrong = first.sum() - true_chosen, all_chosen - true_chosen
    cells = [true_chosen, missed, wrong, (~first).sum() - wrong]
    macro_f1 = confusion_scores(np.stack(cells, axis=1).reshape(-1, 2, 2))["macro_f1"].round(12)
    return float(candidates[np.lexsort((candidates, abs(candidates - 0.5), -macro_f1))[0]])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, or 0 if that is undefined, as in scikit-learn."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _confidence(probabilities, truth, labels) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each row's predicted label, and whether that label is the true one; both (n,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == encode_labels(truth, labels)


def answers_by_confidence(probabilities, truth, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct confidences, falling, with the number of answers of at least each, and how many of those are right."""
    confidence, correct = _confidence(probabilities, truth, labels)
    levels, index, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    return -levels, counts.cumsum(), np.bincount(index, weights=correct).cumsum()
