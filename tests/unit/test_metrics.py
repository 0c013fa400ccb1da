"""Every figure against scikit-learn's other road to it, scipy, or a case worked by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, pearsonr
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from peftqa import metrics
from peftqa.errors import UserError
from peftqa.predictions import leaderboard, on_split, prediction_table, read_predictions

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


def test_figures_of_two_labels_agree_with_independent_computations():
    probabilities, truth = example(TWO)
    figures = metrics.classification_metrics(probabilities, truth, TWO, BINS)
    yes = truth == "yes"
    p_yes = probabilities[:, 0]
    statistic = mannwhitneyu(p_yes[yes], p_yes[~yes]).statistic
    assert figures["roc_auc"] == pytest.approx(statistic / (yes.sum() * (~yes).sum()))
    assert figures["mcc"] == pytest.approx(pearsonr(yes, p_yes >= 0.5).statistic)
    assert figures["log_loss"] == pytest.approx(log_loss(yes, p_yes))
    assert figures["brier"] == pytest.approx(2 * brier_score_loss(yes, p_yes))


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
def test_the_order_of_labels_changes_nothing(labels):
    probabilities, truth = example(labels)
    figures = metrics.classification_metrics(probabilities, truth, labels, BINS)
    turned = metrics.classification_metrics(probabilities[:, ::-1], truth, labels[::-1], BINS)
    assert figures == pytest.approx({key: turned[key] for key in figures})


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
    assert figures["roc_auc"] is None
    assert figures["macro_f1"] == pytest.approx(figures["f1_yes"] / len(labels))
    json.dumps(figures, allow_nan=False)
    curves = metrics.curves(probabilities, truth, labels, BINS)
    assert list(curves["roc"].columns) == ["label", "fpr", "tpr"] and curves["roc"].empty
    assert curves["confusion"]["count"].sum() == len(truth)


def test_a_probability_of_zero_gives_a_finite_log_loss():
    assert metrics.log_losses(binary(0.0, 1.0), np.array([0, 0])) == pytest.approx([36.04365, 0.0])


def test_an_answer_outside_the_labels_is_an_error_and_no_class():
    scores = metrics.label_metrics(["maybe", "yes", "no", ""], ["yes", "yes", "no", "no"], TWO)
    assert scores["accuracy"] == 0.5
    assert scores["macro_f1"] == pytest.approx(2 / 3)  # for each label, precision 1 and recall 1/2


def test_a_true_label_outside_the_labels_is_refused():
    with pytest.raises(ValueError, match="'maybe' is none of"):
        metrics.encode_labels(["yes", "maybe"], TWO)


def test_of_equal_probabilities_the_first_label_is_predicted_as_at_threshold_a_half():
    tie = binary(0.5, 0.5)
    assert list(metrics.predict(tie, TWO)) == list(metrics.predict(tie, TWO, 0.5)) == ["yes", "yes"]
    assert list(metrics.predict(np.full((1, 3), 1 / 3), THREE)) == ["yes"]


def test_means_over_seeds_keep_counts_and_pass_on_what_is_undefined():
    means = metrics.mean_over_seeds(
        [{"n": 3, "accuracy": 1.0, "roc_auc": None}, {"n": 3, "accuracy": 0.5, "roc_auc": 1.0}]
    )
    assert means == {"n": 3, "accuracy": 0.75, "roc_auc": None}
    assert isinstance(means["n"], int)


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_curves_enclose_the_areas_that_the_figures_name(labels):
    probabilities, truth = example(labels)
    roc = metrics.roc_points(probabilities, truth, labels)
    areas = [np.trapezoid(curve["tpr"], curve["fpr"]) for _, curve in roc.groupby("label")]
    assert len(areas) == (1 if labels == TWO else 3)
    assert np.mean(areas) == pytest.approx(metrics.roc_auc(probabilities, metrics.encode_labels(truth, labels)))
    for label, curve in metrics.precision_recall_points(probabilities, truth, labels).groupby("label"):
        steps = np.diff(curve["recall"]) @ curve["precision"][1:]
        expected = average_precision_score(truth == label, probabilities[:, labels.index(label)])
        assert steps == pytest.approx(expected)


def test_reliability_bins_are_closed_on_the_right():
    points = metrics.reliability_points(binary(0.75, 0.25, 0.8125, 1.0), ["yes"] * 4, TWO, 4)
    assert points.to_dict("list") == {
        "lower": [0.5, 0.75],
        "upper": [0.75, 1.0],
        "confidence": [0.75, 0.90625],
        "accuracy": [0.5, 1.0],
        "count": [2, 2],
    }


def test_one_bin_compares_mean_confidence_with_accuracy():
    probabilities, truth = example(THREE)
    figures = metrics.classification_metrics(probabilities, truth, THREE, 1)
    assert figures["ece"] == pytest.approx(abs(probabilities.max(axis=1).mean() - figures["accuracy"]))


def test_confusion_has_a_row_for_every_cell():
    points = metrics.confusion_points(binary(0.9, 0.8, 0.7), ["yes", "yes", "no"], TWO)
    assert points.to_dict("list") == {
        "actual": ["yes", "yes", "no", "no"],
        "predicted": ["yes", "no", "yes", "no"],
        "count": [2, 0, 1, 0],
        "share": [1.0, 0.0, 1.0, 0.0],
    }


def test_risk_and_coverage_worked_by_hand_with_ties():
    probabilities, truth = binary(0.9, 0.8, 0.2, 0.8, 0.5), ["yes", "yes", "yes", "no", "no"]
    points = metrics.risk_coverage_points(probabilities, truth, TWO)
    # .9 right; at .8 one right of three; .5 is answered yes, wrong.
    assert points.round(6).to_dict("list") == {
        "coverage": [0.2, 0.8, 1.0],
        "risk": [0.0, 0.5, 0.6],
        "confidence": [0.9, 0.8, 0.5],
    }
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.2) == 1
    # Two answers: .9, and one of the three at .8, which is right one time in three.
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.4) == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 0.31) == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.accuracy_at_coverage(probabilities, truth, TWO, 1.0) == pytest.approx(0.4)


def test_the_order_of_questions_changes_neither_risk_nor_coverage():
    probabilities, truth = example(THREE)
    probabilities = probabilities.round(1)  # many ties
    shuffled = np.random.default_rng(1).permutation(len(truth))
    points = metrics.risk_coverage_points(probabilities, truth, THREE)
    pd.testing.assert_frame_equal(points, metrics.risk_coverage_points(probabilities[shuffled], truth[shuffled], THREE))
    accuracy = metrics.accuracy_at_coverage(probabilities, truth, THREE, 0.8)
    assert accuracy == metrics.accuracy_at_coverage(probabilities[shuffled], truth[shuffled], THREE, 0.8)


def test_the_threshold_is_as_good_as_any_on_a_fine_grid():
    for seed in range(2):
        probabilities, truth = example(TWO, seed=seed)

        def macro_f1(threshold, p_yes=probabilities[:, 0], truth=truth):
            return f1_score(truth, np.where(p_yes >= threshold, "yes", "no"), average="macro")

        best = metrics.choose_threshold(probabilities, truth, TWO)
        assert macro_f1(best) == pytest.approx(max(macro_f1(threshold) for threshold in np.linspace(0, 1, 301)))


def test_the_threshold_between_separable_answers_lies_midway():
    assert metrics.choose_threshold(binary(0.9, 0.8, 0.7, 0.6), ["yes", "yes", "no", "no"], TWO) == pytest.approx(0.75)


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken_then_the_lower():
    assert metrics.choose_threshold(binary(0.9, 0.2), ["yes", "no"], TWO) == 0.5
    # All wrong at 0.5; yes to both and no to both are equally good.
    assert metrics.choose_threshold(binary(0.45, 0.6), ["yes", "no"], TWO) == pytest.approx(0.225)
    assert metrics.choose_threshold(binary(0.4, 0.55), ["yes", "no"], TWO) == pytest.approx(0.775)
    assert metrics.choose_threshold(binary(0.375, 0.625), ["yes", "no"], TWO) == 0.1875  # 0.8125 is as near
    assert metrics.choose_threshold(binary(0.5, 0.5), ["yes", "no"], TWO) == 0.5


def test_more_than_two_labels_have_no_threshold():
    assert metrics.choose_threshold(*example(THREE), THREE) is None


def seeds_table(labels: list[str], n: int = 20) -> pd.DataFrame:
    parts = []
    for seed in (7, 11):
        for split, rows in (("val", 5), ("test", n)):
            probabilities, _ = example(labels, rows, seed)
            truth = np.resize(labels, rows)
            ids = [f"{1000 * (split == 'test') + row:08}" for row in range(rows)]
            parts.append(prediction_table(split, seed, ids, truth, probabilities, labels))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_predictions_survive_their_file_to_the_last_bit(tmp_path, labels):
    table = seeds_table(labels, n=2000)
    table.to_csv(tmp_path / "prompt.csv", index=False)
    pd.testing.assert_frame_equal(
        read_predictions(tmp_path / "prompt.csv", labels), table, check_dtype=False, check_exact=True
    )
    test = on_split(read_predictions(tmp_path / "prompt.csv", labels), "test")
    assert test.ids[:2] == ["00001000", "00001001"]
    assert test.seeds == [7, 11]
    assert (test.probabilities[1] == example(labels, 2000, 11)[0]).all()
    assert (test.averaged == (example(labels, 2000, 7)[0] + example(labels, 2000, 11)[0]) / 2).all()


def test_the_submission_has_the_label_of_the_averaged_probability_for_test_questions_alone():
    yes, no = binary(0.6, 0.9), binary(0.1, 0.4)
    table = pd.concat(
        [
            prediction_table("test", 1, ["11", "12"], ["yes", "no"], yes, TWO),
            prediction_table("val", 1, ["13", "14"], ["yes", "no"], yes, TWO),
            prediction_table("test", 2, ["11", "12"], ["yes", "no"], no, TWO),
            prediction_table("val", 2, ["13", "14"], ["yes", "no"], no, TWO),
        ]
    )
    assert json.loads(json.dumps(leaderboard(table))) == {"11": "no", "12": "yes"}


def test_predictions_for_other_labels_are_refused_in_a_sentence(tmp_path):
    seeds_table(TWO).to_csv(tmp_path / "prompt.csv", index=False)
    with pytest.raises(UserError, match=r"prompt\.csv was not written for the labels yes, no, maybe .*evaluate@prompt"):
        read_predictions(tmp_path / "prompt.csv", THREE)
    with pytest.raises(UserError, match=r"prefix\.csv is missing; run `dvc repro evaluate@prefix`"):
        read_predictions(tmp_path / "prefix.csv", TWO)


def test_seeds_that_differ_in_their_questions_are_refused():
    table = seeds_table(TWO)
    with pytest.raises(ValueError, match="seeds differ"):
        on_split(table.drop(index=table.index[-1]), "test")
    with pytest.raises(ValueError, match="no predictions on split 'train'"):
        on_split(table, "train")
