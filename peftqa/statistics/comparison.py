"""Every adapter against the other variants on the same questions. Imports no torch.

docs/protocol.md declares the tests. `compare` returns, and comparison/comparison.json holds:

    n, labels, protocol, folds, seeds, n_train, confidence, alpha (1 - confidence), resamples, power
    variants    by name, in the order of evaluate.variants:
        color           "#rrggbb"
        kind            "baseline", "untrained" or "adapter"
        metrics         metric -> mean over replicates (accuracy, macro_f1, ..., recall_no)
        intervals       metric of BOOTSTRAPPED -> [low, high], or null
        replicates      name -> metrics of that replicate
        epochs          null unless it is an adapter: a list, for each run its fold, seed, `kept` and `last` epoch
        threshold       null unless there are two labels; of the probabilities averaged over replicates:
            label           the label whose probability is compared with the threshold
            value           the threshold with the highest macro-F1 on validation
            at_half, at_value   accuracy, macro_f1, mcc on test with 0.5 and with the value
        abstention      coverage, and accuracy on that share of answers, the most confident ones
    pairs       the declared family, a list:
        variant, reference
        differences     metric -> variant - reference; null where either has none
        intervals       metric of BOOTSTRAPPED -> [low, high] of the difference; null where undefined
        test            name (seeds_t, folds_t or mcnemar), difference, p, p_holm,
                        interval at `confidence`, interval_holm at the level of the pair's step in Holm's procedure
        only_variant_right, only_reference_right    where the test is McNemar's
        corrected_t     the sceptic's test: p and interval, neither corrected for the family; null for a single run
        scope           what a test of single trainings is about, in words; null for a test over runs
        difference_shown    is p_holm at most alpha
        verdict         that in words
    flags       what would mislead a reader (peftqa/statistics/flags.py)
    detectable  what the protocol can show, whatever came out; a list:
        run_sd          standard deviation of a run's accuracy; null where each method was trained once
        differences     per discordance (share of questions that just one of two single runs gets right): the smallest
                        true difference in accuracy shown with probability `power`; null where there is none

stages/compare.py adds `humans`: name -> n, accuracy, interval, other_answers (the share of answers that are no label).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from peftqa.config.params import Params
from peftqa.evaluation.metrics import (
    accuracy_at_coverage,
    choose_threshold,
    classification_metrics,
    encode_labels,
    label_metrics,
    mean_over_replicates,
)
from peftqa.evaluation.palette import variant_color
from peftqa.evaluation.predictions import Replicates, predict, same_test_questions
from peftqa.statistics.bootstrap import BOOTSTRAPPED, bootstrap_scores, bootstrap_weights, percentile_interval
from peftqa.statistics.flags import find_flags
from peftqa.statistics.power import mcnemar_power, runs_power, smallest_detectable
from peftqa.statistics.significance import McNemar, correct_answers, corrected_t, holm, holm_levels, primary_test

PRINTED = ("accuracy", "macro_f1", "mcc", "log_loss")
DISCORDANCES = (0.1, 0.2, 0.3)
RUN_SDS = (0.02, 0.05)


def compare(
    test: Mapping[str, Replicates],
    val: Mapping[str, Replicates],
    epochs: Mapping[str, Sequence[Mapping]],
    n_train: int,
    params: Params,
) -> dict:
    """The comparison of the module's docstring, floats unrounded.

    `test` and `val` map each variant to its predictions: the same questions in the same order for all of them.
    epochs: of each adapter, `epochs` of the docstring; n_train: training questions of a run.
    """
    labels, settings = params.data.labels, params.compare
    first = next(iter(test.values()))
    y_true, folds = encode_labels(first.truth, labels), first.folds
    one_seed = len(params.train.seeds) == 1 and len(np.unique(folds)) > 1
    weights = bootstrap_weights(folds, settings.resamples, settings.seed, draw_folds=one_seed)
    scores = {
        # The name makes each variant's draws of runs its own, whatever other variants there are.
        name: bootstrap_scores(
            test[name].probabilities, y_true, folds, weights, params.evaluate.calibration_bins,
            [settings.seed, *name.encode()],
        )
        for name in test
    }  # fmt: skip
    variants = {
        name: describe_variant(name, test[name], val[name], scores[name], params) | {"epochs": epochs.get(name)}
        for name in test
    }
    pairs = compare_pairs(test, scores, variants, n_train, params)
    alpha = 1 - settings.confidence
    return {
        "n": len(y_true),
        "labels": labels,
        "protocol": params.split.protocol,
        "folds": params.split.folds,
        "seeds": params.train.seeds,
        "n_train": n_train,
        "confidence": settings.confidence,
        "alpha": alpha,
        "resamples": settings.resamples,
        "power": settings.power,
        "variants": variants,
        "pairs": pairs,
        "detectable": detectable(len(y_true), alpha / max(len(pairs), 1), params),
        "flags": find_flags(test, val, variants, pairs, labels),
    }


def detectable(n: int, alpha: float, params: Params) -> list[dict]:
    """The smallest differences that the primary test of two trained methods shows, `detectable` of the docstring."""
    seeds, folds = len(params.train.seeds), len(params.split.folds)
    if same_test_questions(params.split.protocol):  # a run is a replicate
        seeds, folds = seeds * folds, 1

    def smallest(discordance: float, run_sd: float | None) -> float | None:
        planned = {"discordance": discordance, "n": n, "alpha": alpha}
        if run_sd is None:
            power_at = partial(mcnemar_power, **planned)
        else:
            power_at = partial(runs_power, **planned, run_sd=run_sd, seeds=seeds, folds=folds)
        return smallest_detectable(power_at, discordance, params.compare.power)

    return [
        {
            "run_sd": run_sd,
            "differences": {f"{discordance:g}": smallest(discordance, run_sd) for discordance in DISCORDANCES},
        }
        for run_sd in ([None] if seeds * folds == 1 else RUN_SDS)
    ]


def kind_of(name: str, params: Params) -> str:
    """What a variant is: "adapter", "untrained" or "baseline"."""
    if name in params.adapters:
        return "adapter"
    return "untrained" if name in params.evaluate.untrained else "baseline"


def describe_variant(
    name: str, test: Replicates, val: Replicates, scores: dict[str, np.ndarray], params: Params
) -> dict:
    """One variant by itself; `scores` are its bootstrapped metrics."""
    labels, bins, coverage = params.data.labels, params.evaluate.calibration_bins, params.evaluate.coverage
    replicates = {
        replicate: classification_metrics(probabilities, test.truth, labels, bins)
        for replicate, probabilities in zip(test.names, test.probabilities, strict=True)
    }
    threshold = choose_threshold(val.averaged, val.truth, labels)
    if threshold is not None:
        at_half = label_metrics(predict(test.averaged, labels), test.truth, labels)
        at_value = label_metrics(predict(test.averaged, labels, threshold), test.truth, labels)
        threshold = {"label": labels[0], "value": threshold, "at_half": at_half, "at_value": at_value}
    alpha = 1 - params.compare.confidence
    return {
        "color": variant_color(name),
        "kind": kind_of(name, params),
        "metrics": mean_over_replicates(list(replicates.values())),
        "intervals": {metric: percentile_interval(values, alpha) for metric, values in scores.items()},
        "replicates": replicates,
        "threshold": threshold,
        "abstention": {
            "coverage": coverage,
            "accuracy": accuracy_at_coverage(*test.pooled, labels, coverage),
        },
    }


def family(names: list[str], params: Params) -> list[tuple[str, str]]:
    """The (variant, reference) pairs that are tested: every adapter against every other variant.

    Without an adapter, every two variants.
    """
    adapters = [name for name in names if name in params.adapters]
    others = [name for name in names if name not in params.adapters]
    if not adapters:
        return [(second, first) for first, second in combinations(others, 2)]
    pairs = [(adapter, other) for adapter in adapters for other in others]
    return pairs + [(second, first) for first, second in combinations(adapters, 2)]


def compare_pairs(
    test: Mapping[str, Replicates], scores: dict[str, dict], variants: dict[str, dict], n_train: int, params: Params
) -> list[dict]:
    """One primary test a pair of the family, corrected for their number, and what else is said of a pair."""
    alpha, labels = 1 - params.compare.confidence, params.data.labels
    pairs = family(list(test), params)
    correct = {
        name: correct_answers(replicates.probabilities, encode_labels(replicates.truth, labels))
        for name, replicates in test.items()
    }
    folds = next(iter(test.values())).folds
    ratio = len(folds) / len(np.unique(folds)) / n_train
    tests = [
        primary_test(
            correct[variant], correct[reference], folds, (variant in params.adapters, reference in params.adapters)
        )
        for variant, reference in pairs
    ]
    p_values = [result.p for result in tests]
    rows = []
    for (variant, reference), result, p_holm, level in zip(
        pairs, tests, holm(p_values), holm_levels(p_values, alpha), strict=True
    ):
        sceptic = corrected_t(correct[variant], correct[reference], folds, ratio)
        exact = isinstance(result, McNemar)
        about = scope(variant, reference, params) if exact else None
        row = {
            "variant": variant,
            "reference": reference,
            "differences": differences(variants[variant]["metrics"], variants[reference]["metrics"]),
            "intervals": {
                metric: percentile_interval(scores[variant][metric] - scores[reference][metric], alpha)
                for metric in BOOTSTRAPPED
            },
            "test": {
                "name": "mcnemar" if exact else result.name,
                "difference": result.difference,
                "p": result.p,
                "p_holm": p_holm,
                "interval": result.interval(alpha),
                "interval_holm": result.interval(level),
            },
            "corrected_t": sceptic and {"p": sceptic.p, "interval": sceptic.interval(alpha)},
            "scope": about,
            "difference_shown": p_holm <= alpha,
            "verdict": verdict(variant, reference, result.difference, p_holm, alpha, about),
        }
        if exact:
            row |= {"only_variant_right": result.only_first, "only_reference_right": result.only_second}
        rows.append(row)
    return rows


def differences(variant: dict, reference: dict) -> dict[str, float | None]:
    """Metric by metric, `n` aside."""
    return {
        key: None if None in (value, reference[key]) else value - reference[key]
        for key, value in variant.items()
        if key != "n"
    }


def scope(variant: str, reference: str, params: Params) -> str | None:
    """What McNemar's test of the two is about; None where neither is trained, and there is nothing to add."""
    trained = [name for name in (variant, reference) if name in params.adapters]
    if not trained:
        return None
    if len(params.split.folds) * len(params.train.seeds) > 1:
        return "about one run each, since the runs show no spread"
    if len(trained) == 2:
        return "about these two trained adapters, one training each"
    return "about this one trained adapter, one training"


def verdict(variant: str, reference: str, difference: float, p_holm: float, alpha: float, about: str | None) -> str:
    """What was shown of a pair, in words: the corrected p-value decides. about: its `scope`."""
    value = f"{p_text(p_holm)} after Holm's correction{f', {about}' if about else ''}"
    if p_holm > alpha:
        return f"no difference was shown between {variant} and {reference} ({value})"
    return f"{variant} is {'more' if difference > 0 else 'less'} accurate than {reference} ({value})"


def p_text(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`.

    A p such as 0.0496, which three digits would round to 0.050, gets a fourth: on which side of the level does it lie.
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.{4 if p < 0.2 and round(p, 3) == round(p, 2) != p else 3}f}"


def pair_table(comparison: Mapping) -> pd.DataFrame:
    """The primary test of every pair, one row each: what git keeps of the comparison."""
    rows = [
        {
            "pair": f"{pair['variant']} - {pair['reference']}",
            "difference": pair["test"]["difference"],
            "low": pair["test"]["interval"][0],
            "high": pair["test"]["interval"][1],
            "p": pair["test"]["p"],
            "p_holm": pair["test"]["p_holm"],
        }
        for pair in comparison["pairs"]
    ]
    return pd.DataFrame(rows, columns=["pair", "difference", "low", "high", "p", "p_holm"])


def describe_humans(answers: Sequence[str], truth: Sequence[str], labels: Sequence[str], confidence: float) -> dict:
    """A person's answers beside the variants'; the interval is Wilson's.

    Accuracy alone: what an answer that is no label, such as "maybe", counts in other metrics is open to dispute.
    """
    right = sum(answer == label for answer, label in zip(answers, truth, strict=True))
    return {
        "n": len(truth),
        "accuracy": right / len(truth),
        "interval": [float(end) for end in proportion_confint(right, len(truth), 1 - confidence, "wilson")],
        "other_answers": sum(answer not in labels for answer in answers) / len(truth),
    }


def as_text(comparison: Mapping) -> str:
    """The comparison for a terminal: the variants, the pairs, and what to keep in mind."""
    metrics = {name: variant["metrics"] for name, variant in comparison["variants"].items()}
    table = pd.DataFrame.from_dict(metrics | comparison["humans"], orient="index").reindex(columns=list(PRINTED))
    text = [f"{comparison['n']} test questions", table.to_string(float_format="{:.3f}".format, na_rep="-"), ""]
    percent = f"{100 * comparison['confidence']:g}%"
    for pair in comparison["pairs"]:
        low, high = pair["test"]["interval_holm"]
        text.append(
            f"{pair['verdict']}: {100 * pair['test']['difference']:+.1f} points of accuracy, "
            f"corrected {percent} interval {100 * low:+.1f} to {100 * high:+.1f}"
        )
    return "\n".join([*text, *(f"note: {flag['text']}" for flag in comparison["flags"])])
