"""Numbers from label probabilities. Imports no torch.

Everywhere `probabilities` is float64 of shape (n, L), rows summing to 1, columns in the order of `labels`; `truth` is a
sequence of n labels. A label counts even if it is absent from truth or predictions. Undefined ratios count as 0, but
ROC AUC and MCC are None if the truth leaves them undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support, roc_auc_score

from peftqa.evaluation.predictions import Replicates


def evaluate(test: Replicates, val: Replicates, labels: Sequence[str], bins: int, coverage: float) -> dict:
    """The figures of one variant.

    replicates      name -> `classification_metrics` on test
    mean            their means, and as `val_METRIC` those on validation
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
        "abstention": {"coverage": coverage, "accuracy": float(np.mean(surest))},
    }


def encode_labels(truth: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Position of each label in `labels`, int64 of shape (n,). Raises ValueError for a label that is not there."""
    return np.array([list(labels).index(label) for label in truth], dtype=np.int64)


def classification_metrics(
    probabilities: np.ndarray, truth: Sequence[str], labels: Sequence[str], bins: int
) -> dict[str, float | int | None]:
    """All metrics of one set of predictions, flat.

    `n accuracy macro_f1 mcc roc_auc log_loss brier ece`, then `f1_L precision_L recall_L` for every label L.
    `roc_auc` is None if a label is absent from truth, `mcc` if truth has one label; log loss is in nats.
    """
    y_true, answers = encode_labels(truth, labels), probabilities.argmax(axis=1)
    positions = list(range(len(labels)))
    scores = precision_recall_fscore_support(y_true, answers, labels=positions, zero_division=0)
    metrics = {
        "n": len(y_true),
        "accuracy": float((answers == y_true).mean()),
        "macro_f1": float(scores[2].mean()),
        "mcc": float(matthews_corrcoef(y_true, answers)) if len(np.unique(y_true)) > 1 else None,
        "roc_auc": roc_auc(probabilities, y_true),
        "log_loss": float(log_losses(probabilities, y_true).mean()),
        "brier": float(brier_scores(probabilities, y_true).mean()),
        "ece": expected_calibration_error(probabilities, truth, labels, bins),
    }
    for label, precision, recall, f1, _ in zip(labels, *scores, strict=True):
        metrics |= {f"f1_{label}": float(f1), f"precision_{label}": float(precision), f"recall_{label}": float(recall)}
    return metrics


def mean_over_replicates(metrics: Sequence[dict[str, float | int | None]]) -> dict[str, float | int | None]:
    """Each metric's mean over replicates; None if any is None. If all agree, as on `n`, their type is kept."""

    def mean(values: list) -> float | int | None:
        if None in values:
            return None
        return values[0] if len(set(values)) == 1 else float(np.mean(values))

    return {key: mean([replicate[key] for replicate in metrics]) for key in metrics[0]}


def rounded(value: object) -> object:
    """Floats, however nested, rounded to six decimals: no test set here needs more. p-values stay."""
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

    Ties in confidence at the cut enter with their mean accuracy.
    """
    _, kept, right = answers_by_confidence(probabilities, truth, labels)
    # Floating point can give 72.00000000000001 for 0.8 * 90, which must not be rounded up to 73 rows.
    answered = np.ceil(coverage * kept[-1] - 1e-9)
    return float(np.interp(answered, np.r_[0, kept], np.r_[0, right]) / answered)


def answers_by_confidence(probabilities, truth, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct confidences, falling; how many answers have at least that confidence; how many of them are right."""
    confidence, correct = _confidence(probabilities, truth, labels)
    levels, index, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    return -levels, counts.cumsum(), np.bincount(index, weights=correct).cumsum()


def _confidence(probabilities, truth, labels) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each row's predicted label, and whether that label is the true one; both (n,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == encode_labels(truth, labels)
