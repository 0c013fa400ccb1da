"""Each flag if it applies, and not if it does not."""

import numpy as np
import pytest

from peftqa.statistics.flags import design_flags
from tests.finished_run import crafted_comparison, right_where

TRUTH = ["yes"] * 60 + ["no"] * 40
GOOD = right_where(TRUTH, [0] * 5 + [1] * 55 + [0] * 5 + [1] * 35)  # 90 of 100
POOR = right_where(TRUTH, [1] * 30 + [0] * 30 + [1] * 20 + [0] * 20)  # 50 of 100
YES = ["yes"] * 100


def texts(comparison: dict, flag: str) -> list[str]:
    return [found["text"] for found in comparison["flags"] if found["flag"] == flag]


def flags_of(flag: str, truth=TRUTH, **variants) -> list[str]:
    """Texts of one flag, for a training (or answers without one) of each variant."""
    return texts(crafted_comparison(truth, {name: [answers] for name, answers in variants.items()}), flag)


def test_one_label_for_every_question():
    assert flags_of("one_label", majority=YES, base=GOOD, prompt=YES) == ["prompt answers yes to every question."]
    assert flags_of("never_predicted", base=GOOD, prompt=YES) == []  # said by the other


def test_one_label_in_some_runs():
    comparison = crafted_comparison(TRUTH, {"base": [GOOD], "prompt": [GOOD, YES, GOOD]})
    assert texts(comparison, "one_label") == ["prompt answers nearly every question alike in 1 of 3 runs."]
    folds = np.arange(100) % 2
    one_fold = np.where(folds == 0, "no", GOOD)
    comparison = crafted_comparison(TRUTH, {"base": [one_fold], "prompt": [GOOD]}, folds=folds)
    assert texts(comparison, "one_label") == ["base answers nearly every question alike in 1 of 2 folds."]


def test_a_label_never_predicted():
    labels = ["yes", "no", "maybe"]
    truth = labels * 20
    answers = {"base": [truth], "prompt": [[label if label != "maybe" else "no" for label in truth]]}
    comparison = crafted_comparison(truth, answers, labels)
    assert texts(comparison, "never_predicted") == ["prompt never answers maybe."]
    comparison = crafted_comparison(["yes", "no"] * 30, {"base": [["yes", "no"] * 30]}, labels)
    assert texts(comparison, "never_predicted") == []  # no question asks for it


def test_not_better_than_the_majority_label():
    found = flags_of("not_better_than_majority", majority=YES, tfidf=GOOD, base=POOR, prompt=YES, prefix=GOOD)
    said = "is not better than always answering the most frequent label"
    assert found == [
        f"base {said}: 50.0% against 60.0% of the questions right.",
        f"prompt {said}: 60.0% against 60.0% of the questions right.",
    ]


def test_the_last_epoch_kept_in_some_runs():
    answers = {"base": [POOR], "prompt": [GOOD] * 3, "prefix": [GOOD] * 3}
    comparison = crafted_comparison(TRUTH, answers, kept={"prompt": [2, 3, 3], "prefix": [1, 2, 1]})
    assert texts(comparison, "not_converged") == [
        "prompt had not converged (its last epoch is the best in 2 of 3 runs): longer training may change the order."
    ]


def test_few_validation_questions():
    answers = {"base": [POOR], "prompt": [GOOD]}
    for validation, said in ((89, True), (199, True), (200, False)):
        found = texts(crafted_comparison(TRUTH, answers, validation=validation), "small_validation")
        assert bool(found) is said
    comparison = crafted_comparison(TRUTH, answers, validation=89, folds=np.arange(100) % 2)  # 89 a fold
    assert texts(comparison, "small_validation") == [
        "The best of 3 epochs was chosen on 89 validation questions, partly by luck."
    ]
    assert texts(crafted_comparison(TRUTH, {"base": [GOOD]}, validation=89), "small_validation") == []


def test_one_training():
    assert flags_of("one_training", base=GOOD) == []
    assert flags_of("one_training", base=GOOD, prompt=GOOD) == [
        "prompt was trained once: how different another training would be is unknown."
    ]
    (found,) = flags_of("one_training", base=GOOD, prompt=GOOD, prefix=GOOD)
    assert found.startswith("Every adapter was trained once")
    comparison = crafted_comparison(TRUTH, {"base": [GOOD], "prompt": [GOOD]}, folds=np.arange(100) % 2)
    assert texts(comparison, "one_training") == []


def test_one_label_in_truth():
    assert flags_of("one_class", base=GOOD) == []
    assert flags_of("one_class", truth=["no"] * 20, base=["no"] * 20) == [
        "All test questions have the label no: other labels were not tested."
    ]


def test_nothing_is_flagged_if_nothing_misleads():
    answers = {"majority": [YES], "base": [GOOD], "prompt": [GOOD] * 3}
    assert crafted_comparison(TRUTH, answers, folds=np.arange(100) % 5)["flags"] == []


ONE_SEED = "Each adapter was trained with one seed, so the tests are about the methods with this seed."


@pytest.mark.parametrize(
    ("seeds", "folds", "protocol", "said"),
    [
        (3, 10, "cross_validation", []),
        (3, 5, "official", []),
        (1, 1, "random", []),  # one_training says it
        (1, 10, "cross_validation", [ONE_SEED]),
        (1, 10, "official", [ONE_SEED]),
        (2, 10, "cross_validation", ["With 2 seeds the tests"]),
        (3, 4, "official", ["With 4 folds the tests"]),
        (1, 2, "official", [ONE_SEED, "With 2 folds the tests"]),
        (2, 4, "official", ["With 2 seeds and 4 folds the tests"]),
        (None, 1, "official", []),
        (None, 10, "cross_validation", []),
        (None, 4, "official", ["With 4 folds the tests"]),
        (3, 1, "random", ["All runs share one training set"]),
        (2, 1, "random", ["All runs share one training set", "With 2 seeds the tests"]),
        (3, 1, "official", ["All runs share one training set", "With 1 fold the tests"]),
    ],
)
def test_designs_that_do_not_keep_the_level_are_named(seeds, folds, protocol, said):
    found = [flag["text"] for flag in design_flags(seeds, folds, protocol)]
    assert len(found) == len(said) and all(part in text for part, text in zip(said, found, strict=True)), found
