"""Every figure against another computation of scikit-learn's or scipy's, or a case worked by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from peftqa.evaluation import metrics
from peftqa.evaluation.predictions import Replicates
from tests.unit.made_up import BINS, THREE, TWO, binary, example


def test_a_case_worked_by_hand():
    figures = metrics.classification_metrics(
        binary(0.9, 0.8, 0.4, 0.3, 0.6), ["yes", "yes", "yes", "no", "no"], TWO, BINS
    )
    # Of three yes two are found, with one false alarm; of two no one is found, with one false alarm.
    assert figures["n"] == 5
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert (figures["precision_yes"], figures["recall_yes"], figures["f1_yes"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (figures["precision_no"], figures["recall_no"], figures["f1_no"]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert figures["macro_f1"] == pytest.approx(7 / 12)
    assert figures["mcc"] == pytest.approx((2 * 1 - 1 * 1) / 6)
    assert figures["roc_auc"] == pytest.approx(5 / 6)  # one of six pairs (yes .4, no .6) is in the wrong order
    assert figures["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7, 0.4]).mean())
    assert figures["brier"] == pytest.approx(2 * (0.01 + 0.04 + 0.36 + 0.09 + 0.36) / 5)
    # Bins (.5, .6] .6 and .6, both wrong; (.6, .7] .7 right; (.7, .8] .8 right; (.8, .9] .9 right.
    assert figures["ece"] == pytest.approx((2 * 0.6 + 0.3 + 0.2 + 0.1) / 5)


def test_figures_of_three_labels_agree_with_independent_computations():
    probabilities, truth = example(THREE)
    figures = metrics.classification_metrics(probabilities, truth, THREE, BINS)
    # scikit-learn's own multiclass figures take columns in alphabetical order.
    columns = probabilities[:, np.argsort(THREE)]
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(truth, columns, multi_class="ovr", average="macro"))
    assert figures["log_loss"] == pytest.approx(log_loss(truth, columns))
    assert figures["brier"] == pytest.approx(
        brier_score_loss(truth, columns, labels=sorted(THREE), scale_by_half=False)
    )
    assert figures["macro_f1"] == pytest.approx(np.mean([figures[f"f1_{label}"] for label in THREE]))
    assert figures["accuracy"] == pytest.approx(
        sum(figures[f"recall_{label}"] * (truth == label).sum() for label in THREE) / len(truth)
    )


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_a_label_that_is_never_predicted_counts_as_zero(labels):
    _, truth = example(labels)
    probabilities = np.tile([0.8] + [0.2 / (len(labels) - 1)] * (len(labels) - 1), (len(truth), 1))
    figures = metrics.classification_metrics(probabilities, truth, labels, BINS)
    share = np.mean(truth == "yes")
    assert (figures["f1_no"], figures["precision_no"], figures["recall_no"]) == (0, 0, 0)
    assert figures["macro_f1"] == pytest.approx(2 * share / (1 + share) / len(labels))
    assert figures["accuracy"] == pytest.approx(share)
    assert figures["mcc"] == 0
    assert figures["roc_auc"] == 0.5
    assert figures["ece"] == pytest.approx(abs(share - 0.8))


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_a_label_that_is_absent_from_truth_leaves_auc_undefined_and_the_rest_written_as_json(labels):
    probabilities, _ = example(labels)
    truth = ["yes"] * len(probabilities)
    figures = metrics.classification_metrics(probabilities, truth, labels, BINS)
    assert figures["roc_auc"] is None and figures["mcc"] is None
    assert figures["macro_f1"] == pytest.approx(figures["f1_yes"] / len(labels))
    json.dumps(figures, allow_nan=False)


def test_a_probability_of_zero_gives_a_finite_log_loss():
    assert metrics.log_losses(binary(0.0, 1.0), np.array([0, 0])) == pytest.approx([36.04365, 0.0])


def test_reliability_bins_are_closed_on_the_right():
    points = metrics.reliability_points(binary(0.75, 0.25, 0.8125, 1.0), ["yes"] * 4, TWO, 4)
    assert points.to_dict("list") == {
        "lower": [0.5, 0.75],
        "upper": [0.75, 1.0],
        "confidence": [0.75, 0.90625],
        "accuracy": [0.5, 1.0],
        "count": [2, 2],
    }


def test_accuracy_at_coverage_worked_by_hand_with_ties():
    probabilities, truth = binary(0.9, 0.8, 0.2, 0.8, 0.5), ["yes", "yes", "yes", "no", "no"]
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.2) == 1
    # Two answers: .9, and one of the three at .8, which is right one time in three.
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.4) == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.31) == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 1.0) == pytest.approx(0.4)


def test_evaluate_of_several_runs_gives_the_means_over_runs():
    # Of two runs, each the surest where it is right, the pooled answers would leave out all of the second's.
    truth, folds = ["yes"] * 5 + ["no"] * 5, np.zeros(10, int)
    sure, unsure = (np.where(np.arange(10) < 5, p, 1 - p) for p in (0.99, 0.6))
    unsure[[0, 9]] = 0.45, 0.55
    runs = Replicates([str(i) for i in range(10)], truth, folds, ["1", "2"], np.stack([binary(*sure), binary(*unsure)]))
    found = metrics.evaluate(runs, runs, TWO, BINS, 0.9)
    each = [metrics.accuracy_at_coverage(run, truth, TWO, 0.9) for run in runs.probabilities]
    assert found["abstention"] == {"coverage": 0.9, "accuracy": pytest.approx(np.mean(each))}
    pooled = runs.probabilities.reshape(-1, 2)
    assert metrics.accuracy_at_coverage(pooled, truth * 2, TWO, 0.9) != pytest.approx(np.mean(each))
    assert found["mean"]["accuracy"] == pytest.approx((1 + 0.8) / 2) == pytest.approx(found["mean"]["val_accuracy"])
    assert list(found["replicates"]) == ["1", "2"]


def test_rounding_reaches_every_float_but_p_values():
    values = {"a": [0.12345678, 3], "pairs": [{"p": 1.23456789e-9, "p_holm": 2e-9, "mean": 1e-9}], "text": "x"}
    expected = {"a": [0.123457, 3], "pairs": [{"p": 1.23456789e-9, "p_holm": 2e-9, "mean": 0.0}], "text": "x"}
    assert metrics.rounded(values) == expected
