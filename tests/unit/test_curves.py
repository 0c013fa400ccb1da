"""Curves: their areas are the metrics' figures, and their points those of cases worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from peftqa.evaluation import curves, metrics
from tests.unit.made_up import BINS, THREE, TWO, binary, example


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_curves_enclose_the_areas_that_the_figures_name(labels):
    probabilities, truth = example(labels)
    found = curves.curves(probabilities[None], truth, labels, BINS)
    areas = [np.trapezoid(curve["tpr"], curve["fpr"]) for _, curve in found["roc"].groupby("label")]
    assert len(areas) == (1 if labels == TWO else 3)
    assert np.mean(areas) == pytest.approx(metrics.roc_auc(probabilities, metrics.encode_labels(truth, labels)))
    for label, curve in found["precision_recall"].groupby("label"):
        steps = np.diff(curve["recall"]) @ curve["precision"][1:]
        expected = average_precision_score(truth == label, probabilities[:, labels.index(label)])
        assert steps == pytest.approx(expected)


def test_risk_and_coverage_worked_by_hand_with_ties():
    probabilities, truth = binary(0.9, 0.8, 0.2, 0.8, 0.5), ["yes", "yes", "yes", "no", "no"]
    points = curves.risk_coverage_points(probabilities, truth, TWO)
    # .9 right; at .8 one right of three; .5 is answered yes, wrong.
    assert points.round(6).to_dict("list") == {
        "coverage": [0.2, 0.8, 1.0],
        "risk": [0.0, 0.5, 0.6],
        "confidence": [0.9, 0.8, 0.5],
    }


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_a_label_that_is_absent_from_truth_has_no_roc_curve_and_its_row_of_the_confusion_matrix(labels):
    probabilities, _ = example(labels)
    truth = ["yes"] * len(probabilities)
    found = curves.curves(np.stack([probabilities, probabilities]), truth, labels, BINS)
    assert list(found["roc"].columns) == ["label", "fpr", "tpr"] and found["roc"].empty
    assert list(found["precision_recall"].columns) == ["label", "recall", "precision"]
    confusion = found["confusion"]
    assert confusion["count"].sum() == 2 * len(truth) and len(confusion) == len(labels) ** 2
    assert (confusion.loc[confusion["actual"] == "no", "share"] == 0).all()


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_curves_of_several_runs_are_the_means_that_the_figures_are(labels):
    first, truth = example(labels, n=890)
    runs = np.stack([first, first**3, example(labels, n=890, seed=5)[0]])
    runs /= runs.sum(axis=2, keepdims=True)
    found, y_true = curves.curves(runs, truth, labels, BINS), metrics.encode_labels(truth, labels)
    areas = [np.trapezoid(curve["tpr"], curve["fpr"]) for _, curve in found["roc"].groupby("label")]
    assert np.mean(areas) == pytest.approx(np.mean([metrics.roc_auc(run, y_true) for run in runs]), abs=2e-3)
    risk = found["risk_coverage"].set_index("coverage")["risk"]
    surest = [metrics.accuracy_at_coverage(run, truth, labels, 0.8) for run in runs]
    assert 1 - risk[0.8] == pytest.approx(np.mean(surest), abs=1e-9)
    share = found["confusion"].set_index(["actual", "predicted"])["share"]["yes", "yes"]
    recalls = [metrics.classification_metrics(run, truth, labels, BINS)["recall_yes"] for run in runs]
    assert share == pytest.approx(np.mean(recalls))
