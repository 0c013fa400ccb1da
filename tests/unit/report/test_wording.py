"""The report's findings, each crafted case with the sentence that it must give, and its numbers in words.

Intervals and p-values are those of tests worked here, where a formula is at hand.
"""

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.stats import binomtest, t

from peftqa.config.params import check_params
from peftqa.model.adapters import METHODS
from peftqa.report.render import describe
from peftqa.report.wording import (
    EXPLAINED,
    METRICS,
    findings,
    interval,
    listed,
    opening,
    signed,
    significant,
    training_budget,
    tuning,
    value,
)
from tests.conftest import ROOT
from tests.finished_run import crafted_comparison, crafted_params, right_where

MINUS = "\N{MINUS SIGN}"
ONE = "about this one trained adapter, one training"
TWO = "about these two trained adapters, one training each"
TRUTH = ["yes", "no"] * 30


def compared(**right: list[int]) -> dict:
    """One training each; right where a list has 1."""
    return crafted_comparison(TRUTH, {name: [right_where(TRUTH, given)] for name, given in right.items()})


def sentences(comparison: dict) -> list[str]:
    return [str(finding) for finding in findings(comparison)]


def ends(comparison: dict, position: int, plus: str = "+", sign: int = 1) -> str:
    """The corrected interval of a pair, as the comparison has it."""
    low, high = sorted(sign * 100 * end for end in comparison["pairs"][position]["test"]["interval_holm"])
    return " to ".join("0.0" if abs(end) < 0.05 else f"{end:{plus}.1f}".replace("-", MINUS) for end in (low, high))


def test_a_variant_that_is_better_beats_the_other():
    comparison = compared(base=[1] * 42 + [0] * 18, prefix=[1] * 40 + [0] * 2 + [1] * 16 + [0] * 2)
    assert f"{binomtest(16, 18).pvalue:.3f}" == "0.001"
    assert sentences(comparison) == [
        f"prefix beats base by 23.3 points of accuracy (95% interval {ends(comparison, 0, '')}, p = 0.001), {ONE}."
    ]


def test_significantly_worse():
    comparison = compared(base=[1] * 50 + [0] * 10, prompt=[1] * 38 + [0] * 12 + [1, 1] + [0] * 8)
    assert f"{binomtest(2, 14).pvalue:.3f}" == "0.013"
    assert sentences(comparison) == [
        "prompt falls behind base by 16.7 points of accuracy "
        f"(95% interval {ends(comparison, 0, '', sign=-1)}, p = 0.013), {ONE}."
    ]
    assert comparison["pairs"][0]["verdict"].startswith("prompt is less accurate than base (p = 0.013")


def test_every_heading_is_explained():
    assert set(METRICS.values()) == set(EXPLAINED)


def test_five_to_none_is_no_difference_shown():
    comparison = compared(base=[1] * 30 + [0] * 30, prompt=[1] * 35 + [0] * 25)
    assert binomtest(5, 5).pvalue == 0.0625
    high = 100 * comparison["pairs"][0]["test"]["interval"][1]
    assert sentences(comparison) == [
        "No difference in accuracy was shown between prompt and base: +8.3 points "
        f"(95% interval 0.0 to +{high:.1f}, p = 0.062), {ONE}."
    ]


def test_identical_predictions():
    comparison = compared(base=[1] * 30 + [0] * 30, prompt=[1] * 30 + [0] * 30)
    low, high = comparison["pairs"][0]["test"]["interval"]
    assert low == pytest.approx(-high) and high > 0.03
    assert sentences(comparison) == [
        "No difference in accuracy was shown between prompt and base: 0.0 points "
        f"(95% interval {MINUS}{100 * high:.1f} to +{100 * high:.1f}, p = 1.000), {ONE}."
    ]


def test_five_mediocre_seeds_with_a_good_ensemble():
    n = 200
    truth = ["yes", "no"] * (n // 2)
    # Each seed errs on 64 questions, each question misleads at most two seeds of five: their average is always right.
    right = np.array([[(i + 40 * seed) % n >= 64 for i in range(n)] for seed in range(5)])
    assert (right.sum(axis=0) >= 3).all()
    base = np.arange(n) % 10 < 7
    answers = {"base": [right_where(truth, base)], "prompt": [right_where(truth, seed) for seed in right]}
    comparison = crafted_comparison(truth, answers)
    differences = right.mean(axis=0) - base  # the seeds' accuracies are equal, so only the questions vary
    error = np.sqrt(differences.var(ddof=1) / n)
    reach = 100 * t.isf(0.025, n - 1) * error
    p = 2 * t.sf(0.02 / error, n - 1)
    assert sentences(comparison) == [
        f"No difference in accuracy was shown between prompt and base: {MINUS}2.0 points "
        f"(95% interval {MINUS}{2 + reach:.1f} to +{reach - 2:.1f}, p = {p:.3f})."
    ]
    assert opening(comparison, "PubMedQA") == "On 200 test questions of PubMedQA, means over 5 trainings an adapter:"


def test_all_yes_adapters_over_a_worse_base():
    truth = ["yes"] * 60 + ["no"] * 40
    base = [1] * 10 + [0] * 50 + [1] * 20 + [0] * 20
    yes = [["yes"] * 100]
    answers = {"majority": yes, "base": [right_where(truth, base)], "prompt": yes, "prefix": yes}
    comparison = crafted_comparison(truth, answers)
    pairs = [(pair["variant"], pair["reference"]) for pair in comparison["pairs"]]
    assert pairs[:2] == [("prompt", "majority"), ("prompt", "base")] and pairs[4] == ("prefix", "prompt")
    assert sentences(comparison)[0] == (
        "prompt beats base by 30.0 points of accuracy, but is not shown better than always answering the most frequent "
        f"label (against base: corrected 95% interval {ends(comparison, 1, '')}, p = 0.002; against majority: "
        f"0.0 points, corrected 95% interval {ends(comparison, 0)}, p = 1.000), {ONE}."
    )
    assert sentences(comparison)[2] == (
        "No difference in accuracy was shown between prefix and prompt: 0.0 points "
        f"(corrected 95% interval {ends(comparison, 4)}, p = 1.000), {TWO}."
    )


def test_better_than_base_and_worse_than_the_majority_label():
    truth = ["yes"] * 60 + ["no"] * 40
    base, prompt = [0] * 98 + [1] * 2, [1] * 25 + [0] * 75
    answers = {name: [right_where(truth, right)] for name, right in {"base": base, "prompt": prompt}.items()}
    found = sentences(crafted_comparison(truth, {"majority": [["yes"] * 100]} | answers))
    assert found[0].startswith(
        "prompt beats base by 23.0 points of accuracy, but falls behind always answering the most frequent label ("
    )


def test_three_labels_with_one_never_predicted():
    labels = ["yes", "no", "maybe"]
    truth = labels * 20
    given = [label if label != "maybe" else "no" for label in truth]
    base = right_where(truth, [1, 1, 1, 0] * 15, labels)
    comparison = crafted_comparison(truth, {"base": [base], "prompt": [given]}, labels)
    assert sentences(comparison)[0].startswith(
        f"No difference in accuracy was shown between prompt and base: {MINUS}8.3 points (95% interval "
    )
    assert "prompt never answers maybe." in [flag["text"] for flag in comparison["flags"]]


def test_one_class_test_set():
    truth = ["yes"] * 60
    answers = {"base": [right_where(truth, [1] * 40 + [0] * 20)], "prompt": [["yes"] * 60]}
    comparison = crafted_comparison(truth, answers)
    assert sentences(comparison)[0].startswith("prompt beats base by 33.3 points of accuracy (95% interval ")
    assert comparison["pairs"][0]["differences"]["roc_auc"] is None
    assert comparison["pairs"][0]["intervals"]["roc_auc"] is None
    assert interval(None, "roc_auc") == "undefined"


def test_equal_accuracy_with_different_macro_f1():
    truth = ["yes"] * 45 + ["no"] * 15
    base, prompt = [1] * 45 + [0] * 15, [0] * 15 + [1] * 45
    answers = {name: [right_where(truth, right)] for name, right in {"base": base, "prompt": prompt}.items()}
    comparison = crafted_comparison(truth, answers)
    (pair,) = comparison["pairs"]
    assert sentences(comparison)[0].startswith(
        "No difference in accuracy was shown between prompt and base: 0.0 points (95% interval "
    )
    assert pair["differences"]["macro_f1"] > 0.2 and pair["intervals"]["macro_f1"][0] > 0


def test_one_variant_alone():
    comparison = compared(prefix=[1] * 45 + [0] * 15)
    low, high = (100 * end for end in comparison["variants"]["prefix"]["intervals"]["accuracy"])
    assert sentences(comparison) == [
        f"prefix is right on 75.0% (95% interval {low:.1f} to {high:.1f}); no other variant was evaluated to compare "
        "it with."
    ]
    assert opening(comparison, "PubMedQA") == "On 60 test questions of PubMedQA, one training an adapter:"
    assert opening(compared(base=[1] * 60), "X") == "On 60 test questions of X:"


def test_baselines_are_findings_where_there_is_no_untrained_model():
    truth = ["yes"] * 30 + ["no"] * 30
    right = [1] * 10 + [0] * 20 + [1] * 10 + [0] * 20
    answers = {"majority": [["yes"] * 60]} | {name: [right_where(truth, right)] for name in ("prompt", "prefix")}
    found = [sentence.split(":")[0] for sentence in sentences(crafted_comparison(truth, answers))]
    assert found == [
        f"No difference in accuracy was shown between {pair}"
        for pair in ("prompt and majority", "prefix and majority", "prefix and prompt")
    ]


def test_many_pairs_leave_a_line_that_counts_the_rest():
    good, bad = [1] * 60, [0] * 60
    found = sentences(compared(base=bad, prompt=bad, prefix=good, lora=good, ia3=bad))
    # Of 10 pairs 2 * 3 differ.
    assert sum("beats" in line or "falls behind" in line for line in found) == 6
    assert found[6:] == ["Of 4 more pairs none are shown to differ (table of pairs)."]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "folds"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_sentence_interval_and_p_never_disagree(seeds, folds):
    rng = np.random.default_rng([seeds, folds])
    truth = rng.choice(["yes", "no"], 90)
    shown = 0
    for _ in range(8):
        skill = {"majority": 0.6, "base": 0.5} | dict.fromkeys(("prompt", "prefix"), rng.uniform(0.2, 0.95))
        answers = {
            name: [
                right_where(truth, rng.random(90) < share) for _ in range(seeds if name in ("prompt", "prefix") else 1)
            ]
            for name, share in skill.items()
        }
        comparison = crafted_comparison(truth, answers, folds=np.arange(90) % folds)
        pairs = [pair for pair in comparison["pairs"] if pair["reference"] != "majority"]
        for pair, sentence in zip(pairs, sentences(comparison), strict=True):
            low, high = pair["test"]["interval_holm"]
            difference, p = pair["test"]["difference"], pair["test"]["p_holm"]
            assert ("beats" in sentence) == (difference > 0 and p <= 0.05) == (low > 0)
            assert (
                sentence.startswith(f"{pair['variant']} falls behind") == (difference < 0 and p <= 0.05) == (high < 0)
            )
            assert sentence.startswith("No difference") == (p > 0.05)
            assert ("one training" in sentence) == (seeds == folds == 1)
            shown += p <= 0.05
    assert shown


def test_every_method_has_its_description():
    params = crafted_params(["base", "prompt"], ["yes", "no"], 1, 1).model_dump()
    for method, extra in {
        "prompt_tuning": {"num_virtual_tokens": 20, "init": "random"},
        "kv_prefix": {"num_virtual_tokens": 5, "init": "random", "target": ["encoder", "decoder", "cross"]},
        "prefix_tuning": {"num_virtual_tokens": 7},
        "lora": {"r": 8, "alpha": 16, "target_modules": ["q"]},
        "ia3": {},
    }.items():
        params["adapters"][method] = {"method": method, "learning_rate": 0.01} | extra
    params["evaluate"]["untrained"]["fewshot"] = {"few_shot": 3, "seed": 1, "max_tokens": 900}
    params = check_params(params)
    assert len(params.adapters) == len(METHODS) + 1
    assert {name: describe(name, params) for name in ["majority", "tfidf", "base", "fewshot", *params.adapters]} == {
        "majority": "always the label most frequent in training",
        "tfidf": "logistic regression on word counts (TF-IDF)",
        "base": "the frozen model as it is",
        "fewshot": "the frozen model after 3 training examples",
        "prompt": "IA3",
        "prompt_tuning": "prompt tuning, 20 tokens",
        "kv_prefix": "prefix tuning, 5 tokens (encoder, decoder, cross)",
        "prefix_tuning": "PEFT's prefix tuning, 7 tokens",
        "lora": "LoRA of rank 8",
        "ia3": "IA3",
    }


@pytest.mark.parametrize(
    ("tuned", "protocol", "says", "says_not"),
    [
        ({}, "random", ["nothing was tuned"], ["trials"]),
        (
            {"prompt": (20, "official"), "prefix": (20, "official")},
            "official",
            ["20", "no test question"],
            ["not as many"],
        ),
        ({"prompt": (20, "official"), "prefix": (9, "official")}, "official", ["prefix 9", "not as many"], []),
        ({"prefix": (9, "official")}, "official", ["prompt 0 and prefix 9", "not as many"], []),
        ({"prefix": (9, "official")}, "random", ["another split"], ["no test question"]),
        (
            {"prompt": (9, "cross_validation"), "prefix": (9, "cross_validation")},
            "cross_validation",
            ["not within each fold"],
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


@pytest.mark.parametrize(
    ("number", "metric", "plus", "text"),
    [
        (0.382022, "accuracy", False, "38.2%"),
        (-0.0004, "accuracy", True, "0.0"),
        (0.0, "mcc", True, "0.000"),
        (-0.0125, "mcc", False, f"{MINUS}0.013"),
        (0.5, "roc_auc", True, "+0.500"),
        (None, "roc_auc", False, "undefined"),
    ],
)
def test_a_metric_is_written_as_its_column_has_it(number, metric, plus, text):
    assert value(number, metric, plus) == text


def test_numbers_and_names_in_words():
    assert interval((-0.05, 0.2), "accuracy", plus=True) == f"{MINUS}5.0 to +20.0"
    assert interval((0.281, 0.4831), "accuracy") == "28.1 to 48.3"
    assert signed(-0.04, 1) == "0.0"
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [significant(number) for number in (0, 0.0849, 1.04, 9.96, 23.6, 213.8, 2351)] == [
        *("0", "0.085", "1.0", "10", "24", "210", "2,400")
    ]
    assert training_budget(1).startswith("After one epoch ") and training_budget(3).startswith(
        "After at most 3 epochs "
    )


def test_an_interval_that_leaves_out_zero_is_not_rounded_to_it():
    assert interval((0.0004, 0.06), "accuracy") == "0.04 to 6.00"
    assert interval((-0.06, -0.0004), "accuracy", plus=True) == f"{MINUS}6.00 to {MINUS}0.04"
    assert interval((-0.0004, 0.06), "accuracy") == "0.0 to 6.0"
