"""Label probabilities that tests of numbers and curves share."""

import numpy as np

TWO = ["yes", "no"]
THREE = ["yes", "no", "maybe"]
BINS = 10


def example(labels: list[str], n: int = 89, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the truth, and the truth."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(len(labels), size=n)
    logits = rng.normal(size=(n, len(labels))) + np.eye(len(labels))[codes]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), np.asarray(labels)[codes]


def binary(*p_yes: float) -> np.ndarray:
    return np.array([[p, 1 - p] for p in p_yes])
