"""Label probabilities that tests of numbers and curves share, and changed parameters."""

import numpy as np

from peftqa.config.params import Params, check_params, read_params
from tests.conftest import ROOT

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


def params_with(**changes: object) -> Params:
    """The committed parameters, `train__epochs=9` for train.epochs."""
    values = read_params(ROOT / "params.yaml").model_dump()
    for key, value in changes.items():
        *groups, last = key.split("__")
        group = values
        for name in groups:
            group = group[name]
        group[last] = value
    return check_params(values)
