"""The report's sentences and its numbers in words, each crafted case with what it must give."""

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.stats import binomtest

from peftqa.config.params import check_params
from peftqa.report.wording import (
    describe,
    findings,
    interval,
    listed,
    opening,
    outcome,
    signed,
    significant,
    standard_errors,
    training_budget,
    tuning,
    value,
)
from tests.conftest import ROOT
from tests.finished_run import crafted_comparison, crafted_params, right_where

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
TRUTH = ["yes", "no"] * 30


def compared(**right: list[int]) -> dict:
    """One training each; right where a list has 1."""
    return crafted_comparison(TRUTH, {name: [right_where(TRUTH, given)] for name, given in right.items()})


def sentences(comparison: dict) -> list[str]:
    return [f"{claim}: {numbers}." for claim, numbers in findings(comparison)]


def test_a_finding_is_the_verdict_and_its_numbers():
    comparison = compared(base=[1] * 42 + [0] * 18, prefix=[1] * 40 + [0] * 2 + [1] * 16 + [0] * 2)
    low, high = (100 * end for end in comparison["pairs"][0]["test"]["interval_holm"])
    assert f"{binomtest(16, 18).pvalue:.3f}" == "0.001"
    assert sentences(comparison) == [
        f"prefix is more accurate than base: +23.3 points of accuracy (95% interval +{low:.1f} to +{high:.1f}, "
        "p = 0.001)."
    ]


def test_several_pairs_have_corrected_numbers_and_the_flags_say_the_rest():
    truth = ["yes"] * 60 + ["no"] * 40
    base = [1] * 10 + [0] * 50 + [1] * 20 + [0] * 20
    yes = [["yes"] * 100]
    answers = {"majority": yes, "base": [right_where(truth, base)], "prompt": yes, "prefix": yes}
    comparison = crafted_comparison(truth, answers)
    # Against base and each other; against baselines in the table of pairs.
    assert [claim for claim, _ in findings(comparison)] == [
        "prompt is more accurate than base",
        "prefix is more accurate than base",
        "prefix against prompt: undecided",
    ]
    (_, numbers), *_ = findings(comparison)
    assert numbers.startswith("+30.0 points of accuracy (95% interval +")
    assert numbers.endswith(", p = 0.002)")
    assert [outcome(pair, 0.05) for pair in comparison["pairs"]] == [
        *("undecided", "more accurate", "undecided", "more accurate", "undecided")
    ]
    assert opening(comparison, "PubMedQA") == (
        "On 100 test questions of PubMedQA, one training per adapter. The tests are about these trained adapters; p "
        "and intervals are corrected for 5 tests:"
    )


def test_three_seeds_on_ten_folds_are_about_the_methods():
    rng = np.random.default_rng(0)
    truth = ["yes", "no"] * 100
    answers = {"base": [right_where(truth, rng.random(200) < 0.5)]}
    answers["prompt"] = [right_where(truth, rng.random(200) < 0.9) for _ in range(3)]
    comparison = crafted_comparison(truth, answers, folds=np.arange(200) % 10)
    (sentence,) = sentences(comparison)
    assert sentence.startswith("prompt is more accurate than base: +")
    assert sentence.endswith(", p < 0.001).")
    assert opening(comparison, "PubMedQA") == (
        "On 200 test questions of PubMedQA, means over 30 trainings per adapter. The tests are about the methods:"
    )


def test_answers_that_are_all_right_are_not_known_to_be_perfect():
    truth = ["yes"] * 60
    answers = {"base": [right_where(truth, [1] * 40 + [0] * 20)], "prompt": [truth]}
    comparison = crafted_comparison(truth, answers)
    prompt = comparison["variants"]["prompt"]
    assert interval(prompt["intervals"]["accuracy"], "accuracy") == "94.0 to 100.0"  # Wilson's
    # With one label in truth it is not defined, and its interval is not either.
    assert value(prompt["metrics"]["mcc"], "mcc") == interval(prompt["intervals"]["mcc"], "mcc") == DASH
    # A bootstrap without spread does not give an interval: 1.000 (1.000 to 1.000) would call it certain.
    truth = ["yes", "no"] * 30
    metrics = crafted_comparison(truth, {"base": [truth]})["variants"]["base"]
    assert metrics["metrics"]["mcc"] == 1 and metrics["intervals"]["mcc"] is None


def test_every_method_has_its_description():
    params = crafted_params(["base", "prompt"], ["yes", "no"], 1, 1).model_dump()
    for method, extra in {
        "prompt_tuning": {"num_virtual_tokens": 20, "init": "random"},
        "kv_prefix": {"num_virtual_tokens": 5, "init": "random", "target": ["encoder", "decoder", "cross"]},
        "prefix_tuning": {"config": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 7}},
        "lora": {"config": {"peft_type": "LORA", "r": 8}},
        "hra": {"config": {"peft_type": "HRA"}},
    }.items():
        kind = "peft" if "config" in extra else method
        params["adapters"][method] = {"method": kind, "learning_rate": 0.01, "init_scale": 0.02} | extra
        if method != "kv_prefix":
            del params["adapters"][method]["init_scale"]
    params["evaluate"]["untrained"]["fewshot"] = {"few_shot": 3, "seed": 1, "max_tokens": 900}
    params["evaluate"]["untrained"]["both"] = {"calibrated": True, "context": False}
    params = check_params(params)
    assert {
        name: describe(name, params) for name in ["majority", "tfidf", *params.evaluate.untrained, *params.adapters]
    } == {
        "majority": "always the label most frequent in training",
        "tfidf": "logistic regression on word counts (TF-IDF)",
        "base": "the frozen model as it is",
        "calibrated": "the frozen model with one bias per label, fitted on validation",
        "question_only": "the frozen model asked without the abstract",
        "fewshot": "the frozen model after 3 training examples",
        "both": "the frozen model asked without the abstract, with one bias per label, fitted on validation",
        "prompt": "IA3",
        "prompt_tuning": "prompt tuning, 20 tokens",
        "kv_prefix": "prefix tuning, 5 tokens (encoder, decoder, cross)",
        "prefix_tuning": "PEFT's prefix tuning with 7 tokens",
        "lora": "LoRA of rank 8",
        "hra": "HRA",
    }


@pytest.mark.parametrize(
    ("tuned", "protocol", "says", "says_not"),
    [
        ({}, "random", ["no search chose", "by hand on validation questions"], ["nothing was tuned", "trials"]),
        (
            {"prompt": (None, "random"), "prefix": (None, "random")},
            "random",
            ["prompt unknown (by hand) and prefix unknown (by hand)", "no test question had a part"],
            ["not the same number"],
        ),
        ({"prompt": (20, "official"), "prefix": (9, "official")}, "official", ["prefix 9", "not the same number"], []),
        ({"prefix": (9, "official")}, "random", ["another split"], ["no test question"]),
        (
            {"prompt": (9, "cross_validation"), "prefix": (9, "cross_validation")},
            "cross_validation",
            ["test questions of another fold"],
            ["no test question"],
        ),
    ],
)
def test_the_report_says_what_was_tuned_and_whether_test_questions_had_a_part_in_it(tuned, protocol, says, says_not):
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["split"]["protocol"] = protocol
    values["tuning"] = {name: {"trials": trials, "protocol": under} for name, (trials, under) in tuned.items()}
    text = tuning(["prompt", "prefix"], check_params(values))
    assert all(part in text for part in says) and not [part for part in says_not if part in text], text


def test_numbers_and_names_in_words():
    assert interval((-0.05, 0.2), "accuracy", plus=True) == f"{MINUS}5.0 to +20.0"
    assert interval((0.281, 0.4831), "accuracy") == "28.1 to 48.3"
    assert signed(-0.04, 1) == "0.0"
    errors = {"questions": 0.0151, "seeds": 0.0, "folds": 0.02}
    assert standard_errors({"test": {"standard_errors": errors}}) == ["1.5", DASH, "2.0"]
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [significant(number) for number in (0, 0.0849, 1.04, 9.96, 23.6, 213.8, 2351)] == [
        *("0", "0.085", "1.0", "10", "24", "210", "2,400")
    ]
    assert "after one epoch," in training_budget(1) and "after at most 3 epochs," in training_budget(3)


def test_an_interval_that_leaves_out_zero_is_not_rounded_to_it():
    assert interval((0.0004, 0.06), "accuracy") == "0.04 to 6.00"
    assert interval((-0.06, -0.0004), "accuracy", plus=True) == f"{MINUS}6.00 to {MINUS}0.04"
    assert interval((-0.0004, 0.06), "accuracy") == "0.0 to 6.0"
