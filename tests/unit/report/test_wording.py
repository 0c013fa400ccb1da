"""The report's finding against exact tests and Holm's correction worked here, and its numbers in words."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest

from peftqa.comparison import compare
from peftqa.params import METHODS, check_params, read_params
from peftqa.predictions import SplitPredictions
from peftqa.report import describe
from peftqa.report.wording import figure, finding, interval, listed, signed
from tests.conftest import ROOT

MINUS = "\N{MINUS SIGN}"


def comparison_of(**right: list[int]) -> dict:
    """The comparison of variants that get the questions right where `right` has 1; half the labels are yes."""
    params = read_params(ROOT / "params.yaml")
    n = len(next(iter(right.values())))
    truth = ["yes", "no"] * (n // 2)
    ids = [str(i) for i in range(n)]
    predictions = {}
    for name, answers in right.items():
        yes = np.where((np.array(truth) == "yes") == np.array(answers, bool), 0.9, 0.1)
        predictions[name] = SplitPredictions(ids, truth, [0], np.stack([yes, 1 - yes], axis=1)[None])
    return compare(predictions, predictions, params)


def evidence(comparison: dict, position: int, sign: int = 1, plus: str = "+") -> str:
    """The part in brackets of pair `position`: its bootstrap interval as given, its p computed here."""
    pair = comparison["pairs"][position]
    ends = sorted(sign * 100 * end for end in pair["intervals"]["accuracy"])
    low, high = ("0.0" if abs(end) < 0.05 else f"{end:{plus}.1f}".replace("-", MINUS) for end in ends)
    return f"(95% CI {low} to {high}, p = {pair['mcnemar']['p_holm']:.3f})"


def test_a_variant_that_is_better_beats_the_other():
    comparison = comparison_of(base=[1] * 42 + [0] * 18, prefix=[1] * 40 + [0] * 2 + [1] * 16 + [0] * 2)
    p = binomtest(16, 18).pvalue
    assert f"p = {p:.3f})" == "p = 0.001)"
    expected = "On 60 test questions, prefix beats base by 23.3 points of accuracy "
    assert finding(comparison) == expected + evidence(comparison, 0, plus="") + "."


def test_a_variant_that_is_worse_falls_behind():
    comparison = comparison_of(base=[1] * 50 + [0] * 10, prompt=[1] * 38 + [0] * 12 + [1, 1] + [0] * 8)
    p = binomtest(2, 14).pvalue
    assert f"{p:.3f}" == "0.013"
    expected = "On 60 test questions, prompt falls behind base by 16.7 points of accuracy "
    assert finding(comparison) == expected + evidence(comparison, 0, sign=-1, plus="") + "."
    assert "p = 0.013" in finding(comparison)


def test_a_difference_that_may_be_chance_is_not_shown():
    comparison = comparison_of(base=[1] * 30 + [0] * 30, prefix=[1] * 26 + [0] * 4 + [1] * 6 + [0] * 24)
    assert f"{binomtest(4, 10).pvalue:.3f}" == "0.754"
    found = finding(comparison)
    assert found == (
        "On 60 test questions, no difference was shown between prefix and base: observed +3.3 points "
        f"{evidence(comparison, 0)}."
    )
    assert "p = 0.754" in found


def test_of_three_variants_two_differences_are_shown():
    base = [1] * 30 + [0] * 30
    prompt = [1] * 28 + [0] * 2 + [1] * 4 + [0] * 26
    prefix = [1] * 30 + [1] * 20 + [0] * 10
    comparison = comparison_of(base=base, prompt=prompt, prefix=prefix)
    # (prompt, base): 4 : 2. (prefix, base): 20 : 0. (prefix, prompt): 2 + 16 only prefix, 0 only prompt.
    raw = [binomtest(2, 6).pvalue, binomtest(0, 20).pvalue, binomtest(0, 18).pvalue]
    holm = [raw[0], 3 * raw[1], 2 * raw[2]]
    assert holm[1] < holm[2] < 0.001 and holm[0] > 0.05
    ends = [[100 * end for end in pair["intervals"]["accuracy"]] for pair in comparison["pairs"]]
    assert finding(comparison) == (
        "On 60 test questions, "
        f"prefix beats base by 33.3 points of accuracy (95% CI {ends[1][0]:.1f} to {ends[1][1]:.1f}, p < 0.001); "
        f"prefix beats prompt by 30.0 points of accuracy (95% CI {ends[2][0]:.1f} to {ends[2][1]:.1f}, p < 0.001); "
        f"no difference was shown between prompt and base: observed +3.3 points {evidence(comparison, 0)}."
    )


def test_where_nothing_is_shown_the_largest_observed_difference_is_named():
    base = [1] * 30 + [0] * 30
    comparison = comparison_of(base=base, prompt=base, prefix=[1] * 22 + [0] * 8 + [1] * 2 + [0] * 28)
    assert binomtest(2, 10).pvalue * 3 > 0.05
    assert finding(comparison) == (
        "On 60 test questions, no difference in accuracy was shown between base, prompt and prefix; the largest "
        f"observed, prefix against base, is {MINUS}10.0 points {evidence(comparison, 1)}."
    )


def test_the_finding_follows_the_corrected_p_where_the_interval_says_otherwise():
    comparison = comparison_of(base=[1] * 30 + [0] * 30, prompt=[1] * 60, prefix=[1] * 60)
    for pair in comparison["pairs"]:
        pair["difference_shown"] = False
        pair["mcnemar"]["p_holm"] = 0.051
    assert comparison["pairs"][0]["intervals"]["accuracy"][0] > 0
    assert finding(comparison).startswith("On 60 test questions, no difference in accuracy was shown between ")
    assert "beats" not in finding(comparison)


def test_one_variant_alone_is_compared_with_nothing():
    comparison = comparison_of(prefix=[1] * 45 + [0] * 15)
    low, high = (100 * end for end in comparison["variants"]["prefix"]["intervals"]["accuracy"])
    assert finding(comparison) == (
        f"On 60 test questions, prefix is right on 75.0% (95% CI {low:.1f} to {high:.1f}); "
        "no other variant was evaluated to compare it with."
    )


def test_many_pairs_still_make_one_sentence():
    good, bad = [1] * 60, [0] * 60
    found = finding(comparison_of(base=bad, prompt=bad, prefix=good, lora=good, ia3=bad))
    # Of 10 pairs 2 * 3 differ.
    assert len(re.findall("beats|falls behind", found)) == 3
    assert found.endswith("; 3 more of the 10 pairs differ; no difference was shown in the other 4 pairs.")


def test_every_method_has_its_description():
    params = read_params(ROOT / "params.yaml").model_dump()
    for method, extra in {
        "prefix_tuning": {"num_virtual_tokens": 7},
        "lora": {"r": 8, "alpha": 16, "target_modules": ["q"]},
        "ia3": {},
    }.items():
        params["adapters"][method] = {"method": method, "learning_rate": 0.01} | extra
    params["evaluate"]["few_shot"] = 3
    params = check_params(params)
    assert {adapter.method for adapter in params.adapters.values()} == set(METHODS)
    assert {name: describe(name, params) for name in ["base", "fewshot", *params.adapters]} == {
        "base": "the frozen model as it is",
        "fewshot": "the frozen model after 3 solved examples",
        "prompt": "prompt tuning, 20 tokens",
        "prefix": "prefix tuning, 5 tokens (encoder, decoder and cross)",
        "prefix_tuning": "PEFT's prefix tuning, 7 tokens",
        "lora": "LoRA of rank 8",
        "ia3": "IA3",
    }


@pytest.mark.parametrize(
    ("value", "key", "plus", "text"),
    [
        (0.382022, "accuracy", False, "38.2%"),
        (-0.0004, "accuracy", True, "0.0"),
        (0.0, "mcc", True, "0.000"),
        (-0.0125, "mcc", False, f"{MINUS}0.013"),
        (0.5, "roc_auc", True, "+0.500"),
        (None, "roc_auc", False, "undefined"),
    ],
)
def test_a_figure_is_written_as_its_column_has_it(value, key, plus, text):
    assert figure(value, key, plus) == text


def test_numbers_and_names_in_words():
    assert interval((-0.05, 0.2), "accuracy", plus=True) == f"{MINUS}5.0 to +20.0"
    assert interval((0.281, 0.4831), "accuracy") == "28.1 to 48.3"
    assert signed(-0.04, 1) == "0.0"
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
