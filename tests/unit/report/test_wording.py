"""The report's sentences and its numbers in words, each crafted case with what it must give."""

import pytest
from ruamel.yaml import YAML

from peftqa.config.params import check_params
from peftqa.report import wording
from tests.conftest import ROOT
from tests.finished_run import crafted_comparison, right_where

TRUTH = ["yes", "no"] * 30


def test_a_finding_is_the_verdict_and_its_numbers():
    right = {"base": [1] * 42 + [0] * 18, "prefix": [1] * 40 + [0] * 2 + [1] * 16 + [0] * 2}
    comparison = crafted_comparison(TRUTH, {name: [right_where(TRUTH, given)] for name, given in right.items()})
    low, high = (100 * end for end in comparison["pairs"][0]["test"]["interval_holm"])
    # p of McNemar's test: 16 of 18.
    evidence = f"+23.3 points of accuracy (95% interval +{low:.1f} to +{high:.1f}, p = 0.001)"
    assert wording.findings(comparison) == [("prefix is more accurate than base", evidence)]


def test_findings_are_adapters_against_models_and_each_other_and_the_table_has_all_pairs():
    truth = ["yes"] * 60 + ["no"] * 40
    base = [1] * 10 + [0] * 50 + [1] * 20 + [0] * 20
    yes = [["yes"] * 100]
    answers = {"majority": yes, "base": [right_where(truth, base)], "prompt": yes, "prefix": yes}
    comparison = crafted_comparison(truth, answers)
    assert [claim for claim, _ in wording.findings(comparison)] == [
        "prompt is more accurate than base",
        "prefix is more accurate than base",
        "prefix against prompt: undecided",
    ]
    assert [wording.outcome(pair, 0.05) for pair in comparison["pairs"]] == [
        *("undecided", "more accurate", "undecided", "more accurate", "undecided")
    ]


def test_metrics_of_answers_that_are_all_right_have_no_bootstrap_interval():
    """1.000 (1.000 to 1.000) would call them certain."""
    metrics = crafted_comparison(TRUTH, {"base": [TRUTH]})["variants"]["base"]
    assert metrics["metrics"]["mcc"] == 1 and metrics["intervals"]["mcc"] is None


def test_every_method_has_its_description():
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["adapters"]["lora"] = {"method": "peft", "config": {"peft_type": "LORA", "r": 8}, "learning_rate": 0.01}
    values["evaluate"]["untrained"] = {
        "base": {},
        "fewshot": {"few_shot": 3, "seed": 1, "max_tokens": 900},
        "both": {"calibrated": True, "context": False},
    }
    described = {
        "majority": "always the label most frequent in training",
        "tfidf": "logistic regression on word counts (TF-IDF)",
        "base": "the frozen model as it is",
        "fewshot": "the frozen model after 3 training examples",
        "both": "the frozen model asked without the abstract, with one bias per label, fitted on validation",
        "prompt": "prompt tuning, 20 tokens",
        "prefix": "prefix tuning, 5 tokens (encoder, decoder, cross)",
        "lora": "PEFT's LORA of rank 8",
    }
    values["evaluate"]["variants"] = list(described)
    params = check_params(values)
    assert {name: wording.describe(name, params) for name in described} == described


@pytest.mark.parametrize(
    ("tuned", "protocol", "says"),
    [
        ({}, "random", "does not record a search"),
        ({"prompt": None, "prefix": 9}, "random", "prompt (by hand) and prefix 9; judged on validation"),
        ({"prefix": 9}, "random", "no test question had a part in the choice"),
        ({"prefix": 9}, "official", "another split than this one: test questions may have had a part"),
        ({"prefix": 9}, "cross_validation", "other folds' test questions"),
    ],
)
def test_the_report_says_what_was_tuned_and_whether_test_questions_had_a_part_in_it(tuned, protocol, says):
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["split"]["protocol"] = protocol
    values["tuning"] = {name: {"trials": trials, "protocol": "random"} for name, trials in tuned.items()}
    assert says in wording.tuning(["prompt", "prefix"], check_params(values))


def test_numbers_and_names_in_words():
    assert wording.interval((-0.05, 0.2), "accuracy", plus=True) == "\N{MINUS SIGN}5.0 to +20.0"
    shown = wording.estimate(0.4, (0.281, 0.4831), "accuracy")
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == "40.0% (28.1 to 48.3)"
    assert (wording.estimate(None, None, "mcc"), wording.signed(-0.04, 1)) == ("\N{EN DASH}", "0.0")
    assert [wording.listed("abc"[:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
