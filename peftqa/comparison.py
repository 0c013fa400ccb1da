"""Every pair of variants compared on the same questions. Imports no torch.

Differences are of means over seeds, as metrics/NAME.json has them; the McNemar test compares the labels of the
seed-averaged probabilities. `compare` returns, and metrics/comparison.json holds:

    n, labels, confidence, alpha (1 - confidence), resamples, power
    note        what one training seed cannot say, or null
    variants    by name, in the order of evaluate.variants:
        color           "#rrggbb"
        seeds           [42]; [0] where nothing was trained
        metrics         figure -> mean over seeds (accuracy, macro_f1, ..., recall_no)
        intervals       accuracy, macro_f1, mcc, log_loss, brier -> [low, high]
        per_seed        seed -> those five
        seed_averaged   accuracy, macro_f1, mcc of the labels that McNemar's test compares
        threshold       null unless there are two labels; of the seed-averaged probabilities:
            label           the label whose probability is compared with the threshold
            value           the threshold with the highest macro-F1 on validation
            at_half, at_value   accuracy, macro_f1, mcc on test with 0.5 and with the value
        abstention      coverage, and accuracy on that share of questions, the most confident ones
    pairs       a list, every two variants once; the one listed first, or base, is the reference:
        variant, reference
        differences     figure -> variant - reference; null where either has none
        intervals       the five figures -> [low, high] of the difference
        mcnemar         only_variant_right, only_reference_right, p, p_holm
        difference_shown    is p_holm at most alpha
        verdict         that in words
        smallest_detectable_difference
            discordance     observed share of questions that just one of the two gets right
            alpha           alpha / number of pairs, the level of the first step of Holm's procedure
            accuracy        smallest true difference shown with probability `power`; null: none at this discordance
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from peftqa.metrics import (
    accuracy_at_coverage,
    choose_threshold,
    classification_metrics,
    label_codes,
    label_metrics,
    mean_over_seeds,
    predict,
)
from peftqa.palette import variant_color
from peftqa.params import Params
from peftqa.predictions import SplitPredictions
from peftqa.significance import (
    BOOTSTRAPPED,
    McNemar,
    bootstrap_scores,
    holm,
    intervals,
    mcnemar,
    question_weights,
    smallest_detectable_difference,
)

ONE_SEED = "one seed: says nothing about training variance"


def compare(test: Mapping[str, SplitPredictions], val: Mapping[str, SplitPredictions], params: Params) -> dict:
    """The comparison of the module's docstring, floats unrounded.

    `test` and `val` map each variant to its predictions: the same questions in the same order for all of them.
    """
    labels, settings = params.data.labels, params.compare
    codes = label_codes(next(iter(test.values())).truth, labels)
    weights = question_weights(len(codes), settings.resamples, settings.seed)
    scores = {
        # The name makes each variant's draws of seeds its own, whatever other variants there are.
        name: bootstrap_scores(test[name].probabilities, codes, weights, [settings.seed, *name.encode()])
        for name in test
    }
    variants = {name: describe_variant(name, test[name], val[name], scores[name], params) for name in test}
    trained = [len(test[name].seeds) for name in test if name in params.adapters]
    return {
        "n": len(codes),
        "labels": labels,
        "confidence": settings.confidence,
        "alpha": 1 - settings.confidence,
        "resamples": settings.resamples,
        "power": settings.power,
        "note": ONE_SEED if 1 in trained else None,
        "variants": variants,
        "pairs": compare_pairs(test, scores, variants, params),
    }


def describe_variant(
    name: str, test: SplitPredictions, val: SplitPredictions, scores: dict[str, np.ndarray], params: Params
) -> dict:
    """One variant by itself; `scores` are its bootstrapped figures."""
    labels, bins, coverage = params.data.labels, params.evaluate.calibration_bins, params.evaluate.coverage
    per_seed = {
        seed: classification_metrics(probabilities, test.truth, labels, bins)
        for seed, probabilities in zip(test.seeds, test.probabilities, strict=True)
    }
    averaged = label_metrics(predict(test.averaged, labels), test.truth, labels)
    threshold = choose_threshold(val.averaged, val.truth, labels)
    if threshold is not None:
        at_value = label_metrics(predict(test.averaged, labels, threshold), test.truth, labels)
        threshold = {"label": labels[0], "value": threshold, "at_half": averaged, "at_value": at_value}
    return {
        "color": variant_color(name),
        "seeds": test.seeds,
        "metrics": mean_over_seeds(list(per_seed.values())),
        "intervals": intervals(scores, params.compare.confidence),
        "per_seed": {seed: {key: figures[key] for key in BOOTSTRAPPED} for seed, figures in per_seed.items()},
        "seed_averaged": averaged,
        "threshold": threshold,
        "abstention": {
            "coverage": coverage,
            "accuracy": accuracy_at_coverage(test.averaged, test.truth, labels, coverage),
        },
    }


def compare_pairs(
    test: Mapping[str, SplitPredictions], scores: dict[str, dict], variants: dict[str, dict], params: Params
) -> list[dict]:
    """Every two variants: one exact McNemar test each, corrected for the number of pairs."""
    pairs = list(combinations(sorted(test, key=lambda name: name != "base"), 2))
    alpha, n = 1 - params.compare.confidence, variants[next(iter(test))]["metrics"]["n"]
    right = {
        name: predict(predictions.averaged, params.data.labels) == np.asarray(predictions.truth)
        for name, predictions in test.items()
    }
    tests = [mcnemar(right[variant], right[reference]) for reference, variant in pairs]
    rows = []
    for (reference, variant), result, p_holm in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
        difference_of = {key: scores[variant][key] - scores[reference][key] for key in BOOTSTRAPPED}
        discordance = (result.only_first + result.only_second) / n
        detectable = smallest_detectable_difference(discordance, n, alpha / len(pairs), params.compare.power)
        rows.append(
            {
                "variant": variant,
                "reference": reference,
                "differences": differences(variants[variant]["metrics"], variants[reference]["metrics"]),
                "intervals": intervals(difference_of, params.compare.confidence),
                "mcnemar": {
                    "only_variant_right": result.only_first,
                    "only_reference_right": result.only_second,
                    "p": result.p,
                    "p_holm": p_holm,
                },
                "difference_shown": p_holm <= alpha,
                "verdict": verdict(variant, reference, result, p_holm, alpha),
                "smallest_detectable_difference": {
                    "discordance": discordance,
                    "alpha": alpha / len(pairs),
                    "accuracy": detectable,
                },
            }
        )
    return rows


def differences(variant: dict, reference: dict) -> dict[str, float | None]:
    """Figure by figure, `n` aside."""
    return {
        key: None if None in (value, reference[key]) else value - reference[key]
        for key, value in variant.items()
        if key != "n"
    }


def verdict(variant: str, reference: str, result: McNemar, p_holm: float, alpha: float) -> str:
    """The finding in words, by the corrected p-value and nothing else."""
    value = f"{p_text(p_holm)} after Holm's correction"
    if p_holm > alpha:
        return f"no difference was shown between {variant} and {reference} ({value})"
    more = "more" if result.only_first > result.only_second else "fewer"
    return f"{variant} answers {more} questions correctly than {reference} ({value})"


def p_text(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
