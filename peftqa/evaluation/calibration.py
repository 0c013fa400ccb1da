"""One bias per label on a model's logits, fitted on validation. It changes only how often each label is given."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

MOST = 10.0  # nats; without a bound a label that no validation question has would get a bias of minus infinity


def fit_biases(probabilities: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """The biases with the lowest log loss, one per label, float64 (L,); the first is 0 (arXiv 2309.17249).

    probabilities: float64 (n, L), of which the logarithms are the logits; y_true: int (n,), positions of true labels.
    """
    logits, truth = _logits(probabilities), np.eye(probabilities.shape[1])[y_true]

    def loss(biases: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = logits + np.r_[0.0, biases]
        gradient = (softmax(shifted, axis=1) - truth).mean(axis=0)[1:]
        return -(log_softmax(shifted, axis=1) * truth).sum(axis=1).mean(), gradient

    start = np.zeros(probabilities.shape[1] - 1)
    return np.r_[0.0, minimize(loss, start, jac=True, bounds=[(-MOST, MOST)] * len(start), tol=1e-12).x]


def shift(probabilities: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Probabilities with the biases added to their logits; both arrays (n, L)."""
    return softmax(_logits(probabilities) + biases, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
