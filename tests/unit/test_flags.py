"""Each flag if it applies, and not if it does not."""

import numpy as np
import pytest

from peftqa.statistics.flags import design_flags, scope
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


def test_one_label_of_a_single_run_is_flagged():
    assert flags_of("one_label", majority=YES, base=GOOD, prompt=YES) == ["prompt answers nearly every question alike."]
    assert flags_of("never_predicted", base=GOOD, prompt=YES) == ["prompt never answers no."]


def test_one_label_of_some_runs_is_flagged_with_their_number():
    comparison = crafted_comparison(TRUTH, {"base": [GOOD], "prompt": [GOOD, YES, GOOD]})
    assert texts(comparison, "one_label") == ["prompt answers nearly every question alike in 1 of 3 runs."]
    folds = np.arange(100) % 2
    one_fold = np.where(folds == 0, "no", GOOD)
    comparison = crafted_comparison(TRUTH, {"base": [one_fold], "prompt": [GOOD]}, folds=folds)
    assert texts(comparison, "one_label") == ["base answers nearly every question alike in 1 of 2 folds."]


def test_never_predicted_names_a_label_only_if_questions_have_it():
    labels = ["yes", "no", "maybe"]
    truth = labels * 20
    answers = {"base": [truth], "prompt": [[label if label != "maybe" else "no" for label in truth]]}
    assert texts(crafted_comparison(truth, answers, labels), "never_predicted") == ["prompt never answers maybe."]
    comparison = crafted_comparison(["yes", "no"] * 30, {"base": [["yes", "no"] * 30]}, labels)
    assert texts(comparison, "never_predicted") == []


def test_a_variant_not_better_than_the_majority_label_is_flagged():
    found = flags_of("not_better_than_majority", majority=YES, tfidf=GOOD, base=POOR, prompt=YES, prefix=GOOD)
    said = "is not better than always answering the most frequent label"
    assert found == [
        f"base {said}: 50.0% against 60.0% of the questions right.",
        f"prompt {said}: 60.0% against 60.0% of the questions right.",
    ]


def test_runs_that_keep_their_last_epoch_are_counted():
    answers = {"base": [POOR], "prompt": [GOOD] * 3, "prefix": [GOOD] * 3}
    comparison = crafted_comparison(TRUTH, answers, kept={"prompt": [2, 3, 3], "prefix": [1, 2, 1]})
    assert texts(comparison, "not_converged") == [
        "prompt had not converged (its last epoch is the best in 2 of 3 runs): more training may change the ranking."
    ]


@pytest.mark.parametrize(("validation", "flagged"), [(89, True), (199, True), (200, False)])
def test_few_validation_questions_per_fold_are_flagged(validation, flagged):
    answers = {"base": [POOR], "prompt": [GOOD]}
    comparison = crafted_comparison(TRUTH, answers, validation=validation, folds=np.arange(100) % 2)
    text = f"The best of 3 epochs was chosen on {validation} validation questions, partly by luck."
    assert texts(comparison, "small_validation") == ([text] if flagged else [])


def test_one_training_of_every_adapter_is_flagged():
    assert flags_of("one_training", base=GOOD) == []
    assert flags_of("one_training", base=GOOD, prompt=GOOD) == [
        "prompt was trained once: how different another training would be is unknown."
    ]
    (found,) = flags_of("one_training", base=GOOD, prompt=GOOD, prefix=GOOD)
    assert found.startswith("Every adapter was trained once")


def test_one_label_of_all_test_questions_is_flagged():
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
        (None, 4, "official", ["With 4 folds the tests"]),
        (3, 1, "random", ["All runs share one training set"]),
        (2, 1, "random", ["All runs share one training set", "With 2 seeds the tests"]),
        (3, 1, "official", ["All runs share one training set", "With 1 fold the tests"]),
    ],
)
def test_a_design_that_does_not_keep_the_level_is_flagged(seeds, folds, protocol, said):
    found = [flag["text"] for flag in design_flags(seeds, folds, protocol)]
    assert all(text.startswith(part) for part, text in zip(said, found, strict=True)), found


@pytest.mark.parametrize(
    ("trained", "seeds", "folds", "about"),
    [
        (2, 3, 3, "about the methods"),
        (2, 1, 3, "about the methods with this seed"),
        (0, 1, 3, "about the methods"),
        (2, 1, 1, "about these two trained adapters"),
        (1, 1, 1, "about this one trained adapter"),
        (2, 3, 1, "about the methods on this training set"),
    ],
)
def test_scope_leaves_out_what_is_not_repeated(trained, seeds, folds, about):
    assert scope(trained, seeds, folds) == about
