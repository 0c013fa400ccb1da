"""Biases of labels: the fit has the lowest log loss, and moves the shares of the labels alone."""

import numpy as np
import pytest

from peftqa.evaluation.calibration import MOST, fit_biases, shift
from peftqa.evaluation.metrics import encode_labels, log_losses
from tests.unit.made_up import THREE, TWO, example


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_the_mean_probability_of_each_label_becomes_its_share(labels):
    # Just there the gradient of the log loss by the biases is 0.
    probabilities, truth = example(labels)
    probabilities = shift(probabilities, np.array([3.0, -1.0, 0.5][: len(labels)]))
    y_true = encode_labels(truth, labels)
    biases = fit_biases(probabilities, y_true)
    fitted = shift(probabilities, biases)
    assert fitted.mean(axis=0) == pytest.approx(np.bincount(y_true) / len(y_true), abs=1e-5)
    lowest = log_losses(fitted, y_true).mean()
    for change in np.eye(len(labels)) * 0.01:
        for sign in (-1, 1):
            assert log_losses(shift(probabilities, biases + sign * change), y_true).mean() > lowest
    assert fit_biases(probabilities, y_true).tobytes() == biases.tobytes()


def test_a_label_that_validation_lacks_and_a_probability_of_zero_leave_numbers():
    probabilities = np.array([[1.0, 0.0], [0.7, 0.3], [0.6, 0.4]])
    biases = fit_biases(probabilities, np.zeros(3, dtype=int))
    assert biases[1] == pytest.approx(-MOST)
    assert np.isfinite(shift(probabilities, biases)).all()
