"""Compare every adapter with the other variants on the same questions. This module does not import torch.

docs/protocol.md declares the tests. `compare` returns, and comparison/comparison.json holds:

    n, protocol, n_train, confidence, alpha (1 - confidence), margin
    variants    by name, in the order of evaluate.variants:
        color           "#rrggbb"
        kind            "baseline", "untrained", "diagnostic" (asked without the abstract: no test) or "adapter"
        metrics, replicates, abstention     `mean` and the others of evaluation/NAME/metrics.json
        intervals       accuracy, macro_f1, mcc, log_loss and brier -> [low, high], or null
        epochs          of an adapter, a list with the fold, seed, `kept` and `last` epoch of each run; else null
    pairs       the pairs that are tested, a list; each has `variant`, `reference` and:
        test            name of the test that decides (over_seeds, over_folds or mcnemar), difference, p, p_holm,
                        interval at `confidence`, interval_holm at the level of the pair's step in Holm's procedure,
                        and standard_errors: the roots of V_Q, V_S (of both variants together) and V_F
                        (significance.py); 0 if there is only one
        only_variant_right, only_reference_right    how many questions; only if the test is McNemar's
        corrected_t     the corrected t test: p and interval, not corrected for the family; null if it is undefined
        difference_shown    whether p_holm is at most alpha
        equivalent      whether the two are shown to differ by less than `margin`
        scope, verdict  in words what the test is about, and what difference_shown and equivalent say
    flags       what would mislead a reader (peftqa/statistics/flags.py)
    detectable  the differences that the protocol can show, whatever the results are; a list:
        run_sd          standard deviation of a run's accuracy; null if each method was trained once
        differences     per discordance (share of questions that only one of two single runs gets right): the smallest
                        true difference in accuracy that is shown with probability compare.power; null if none is

stages/compare.py adds `humans`: name -> n, accuracy, interval, other_answers (share of answers that are not a label).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from peftqa.config.params import Params
from peftqa.evaluation.metrics import encode_labels
from peftqa.evaluation.palette import variant_color
from peftqa.evaluation.predictions import Replicates, same_test_questions
from peftqa.statistics import significance
from peftqa.statistics.bootstrap import bootstrap_scores, draw_questions, percentile_interval
from peftqa.statistics.flags import find_flags, scope
from peftqa.statistics.power import mcnemar_power, runs_power, smallest_detectable

DISCORDANCES = (0.1, 0.2, 0.3)
RUN_SDS = (0.02, 0.05)


def compare(
    test: Mapping[str, Replicates],
    evaluation: Mapping[str, Mapping],
    epochs: Mapping[str, Sequence[Mapping]],
    n_train: int,
    n_val: int,
    params: Params,
) -> dict:
    """What the module's docstring describes, not rounded.

    test: the predictions of each variant, on the same questions in the same order. evaluation: the contents of
    evaluation/NAME/metrics.json. epochs: each adapter's `epochs`, as in the module's docstring. n_train, n_val:
    training and validation questions of a run.
    """
    labels, settings = params.data.labels, params.compare
    first, alpha = next(iter(test.values())), 1 - settings.confidence
    y_true, folds = encode_labels(first.truth, labels), first.folds
    correct = {name: answers(replicates, y_true, len(params.split.folds)) for name, replicates in test.items()}
    one_seed = len(params.train.seeds) == 1 and len(np.unique(folds)) > 1
    counts = draw_questions(folds, settings.resamples, settings.seed, draw_folds=one_seed)
    variants = {}
    for name, evaluated in evaluation.items():
        # With the name in the seed, a variant's draws of runs do not depend on what other variants there are.
        entropy = [settings.seed, *name.encode()]
        scores = bootstrap_scores(test[name].probabilities, y_true, folds, counts, entropy)
        variants[name] = {
            "color": variant_color(name),
            "kind": kind_of(name, params),
            "metrics": evaluated["mean"],
            "replicates": evaluated["replicates"],
            "abstention": evaluated["abstention"],
            "intervals": {"accuracy": significance.accuracy_interval(correct[name], alpha)}
            | {metric: percentile_interval(values, alpha) for metric, values in scores.items()},
            "epochs": epochs.get(name),
        }
    pairs = compare_pairs(correct, variants, len(y_true) / len(np.unique(folds)) / n_train, params)
    return {
        "n": len(y_true),
        "protocol": params.split.protocol,
        "n_train": n_train,
        "confidence": settings.confidence,
        "alpha": alpha,
        "margin": settings.margin,
        "variants": variants,
        "pairs": pairs,
        "detectable": detectable(len(y_true), alpha / max(len(pairs), 1), params),
        "flags": list(find_flags(test, n_val, variants, pairs, params)),
    }


def answers(replicates: Replicates, y_true: np.ndarray, folds: int) -> significance.Answers:
    """Which answers are right. If labels are equally probable, the first one is the answer."""
    correct = replicates.probabilities.argmax(axis=2) == y_true
    if len(np.unique(replicates.folds)) < folds:  # each replicate is a run, sorted by fold
        return significance.answers_to_the_same(correct.reshape(folds, -1, len(y_true)))
    return significance.answers_by_fold(correct, replicates.folds)


def detectable(n: int, alpha: float, params: Params) -> list[dict]:
    """`detectable` of the module's docstring, for the primary test of two trained methods."""
    seeds, folds = len(params.train.seeds), len(params.split.folds)
    design = {"seeds": seeds, "folds": folds, "shared": same_test_questions(params.split.protocol)}
    rows, once = [], seeds * folds == 1
    for run_sd in [None] if once else RUN_SDS:
        power_at = mcnemar_power if once else partial(runs_power, run_sd=run_sd, **design)
        differences = {}
        for discordance in DISCORDANCES:
            planned = partial(power_at, discordance=discordance, n=n, alpha=alpha)
            differences[f"{discordance:g}"] = smallest_detectable(planned, discordance, params.compare.power)
        rows.append({"run_sd": run_sd, "differences": differences})
    return rows


def kind_of(name: str, params: Params) -> str:
    """What a variant is: "adapter", "untrained", "diagnostic" or "baseline"."""
    if name in params.adapters:
        return "adapter"
    if name not in params.evaluate.untrained:
        return "baseline"
    return "diagnostic" if params.evaluate.untrained[name].context is False else "untrained"


def family(variants: Mapping[str, Mapping]) -> list[tuple[str, str]]:
    """The (variant, reference) pairs that are tested: every adapter against every other variant but diagnostic ones.

    Without an adapter, every two variants.
    """
    names = {name: variant["kind"] for name, variant in variants.items() if variant["kind"] != "diagnostic"}
    adapters = [name for name, kind in names.items() if kind == "adapter"]
    others = [name for name in names if name not in adapters]
    pairs = [(adapter, other) for adapter in adapters for other in others]
    return pairs + [(second, first) for first, second in combinations(adapters or others, 2)]


def compare_pairs(
    correct: Mapping[str, significance.Answers], variants: Mapping[str, Mapping], ratio: float, params: Params
) -> list[dict]:
    """One primary test per pair of the family, corrected for their number, and the other figures of the pair.

    ratio: test questions over training questions of a run.
    """
    alpha, margin, pairs = 1 - params.compare.confidence, params.compare.margin, family(variants)
    tests = [significance.primary_test(correct[variant], correct[reference]) for variant, reference in pairs]
    rows = []
    for (variant, reference), result, p_holm, level in zip(
        pairs, tests, *significance.holm([result.p for result in tests], alpha), strict=True
    ):
        both = correct[variant], correct[reference]
        sceptic, parts = significance.corrected_t(*both, ratio), significance.variances(*both)
        # Two one-sided tests at alpha each. Bonferroni corrects them, because Holm's steps belong to the primary tests.
        low, high = result.interval(min(2 * alpha / len(pairs), 0.999))
        trained = [variants[name]["kind"] for name in (variant, reference)].count("adapter")
        row = {
            "variant": variant,
            "reference": reference,
            "test": {
                "name": result.name,
                "difference": result.difference,
                "standard_errors": {name: float(np.sqrt(sum(v for v, _ in found))) for name, found in parts.items()},
                "p": result.p,
                "p_holm": p_holm,
                "interval": result.interval(alpha),
                "interval_holm": result.interval(level),
            },
            "corrected_t": sceptic and {"p": float(sceptic.p), "interval": sceptic.interval(alpha)},
            "scope": scope(trained, len(params.train.seeds), len(params.split.folds)),
            "difference_shown": p_holm <= alpha,
            "equivalent": -margin < low and high < margin,
        }
        if isinstance(result, significance.McNemar):
            row |= {"only_variant_right": result.only_first, "only_reference_right": result.only_second}
        rows.append(row | {"verdict": verdict(row, margin)})
    return rows


def verdict(pair: Mapping, margin: float) -> str:
    """What was shown about a pair, in words. The corrected p-value decides first, then the margin."""
    variant, reference = pair["variant"], pair["reference"]
    if pair["difference_shown"]:
        return f"{variant} is {'more' if pair['test']['difference'] > 0 else 'less'} accurate than {reference}"
    if pair["equivalent"]:
        return f"{variant} and {reference} differ by less than {100 * margin:g} points"
    return f"{variant} against {reference}: undecided"


def p_text(p: float, alpha: float) -> str:
    """`p = 0.012`, or `p < 0.001`. A p such as 0.0496, which three digits round to the level alpha, gets five."""
    if p < 0.001:
        return "p < 0.001"
    digits = 5 if abs(round(p, 3) - alpha) < 1e-9 else 3
    return f"p = {p:.{digits}f}"


def pair_table(comparison: Mapping) -> pd.DataFrame:
    """The primary test of every pair, one row each: what git keeps of the comparison.

    `low`, `high` and `p` are not corrected; the columns that end in `_holm` are corrected for all pairs. The `error_`
    columns are standard errors (`standard_errors` of comparison.json). `decided_by` names the test.
    """
    columns = ["pair", "difference", "low", "high", "p", "low_holm", "high_holm", "p_holm"]
    columns += ["error_questions", "error_seeds", "error_folds", "decided_by"]
    rows = []
    for pair in comparison["pairs"]:
        name, test = f"{pair['variant']} - {pair['reference']}", pair["test"]
        numbers = *test["interval"], test["p"], *test["interval_holm"], test["p_holm"]
        rows.append((name, test["difference"], *numbers, *test["standard_errors"].values(), test["name"]))
    return pd.DataFrame(rows, columns=columns)


def about_pairs(pairs: Sequence[Mapping]) -> str:
    """One sentence: what the tests of all pairs are about, and for how many they are corrected. "" without pairs."""
    if not pairs:
        return ""
    scopes = {pair["scope"] for pair in pairs}
    about = scopes.pop() if len(scopes) == 1 else "about these trained adapters"
    return f"The tests are {about}" + f"; p and intervals are corrected for {len(pairs)} tests" * (len(pairs) > 1)


def as_text(comparison: Mapping) -> str:
    """The comparison for a terminal: the variants, the pairs, and what to keep in mind."""
    metrics = {name: variant["metrics"] for name, variant in comparison["variants"].items()}
    table = pd.DataFrame.from_dict(metrics | comparison["humans"], orient="index")
    table = table.reindex(columns=["accuracy", "macro_f1", "mcc", "log_loss"])
    text = [f"{comparison['n']} test questions", table.to_string(float_format="{:.3f}".format, na_rep="-"), ""]
    text += [f"{about}:" for about in [about_pairs(comparison["pairs"])] if about]
    for pair in comparison["pairs"]:
        low, high = pair["test"]["interval_holm"]
        between = f"{100 * comparison['confidence']:g}% interval {100 * low:+.1f} to {100 * high:+.1f}"
        p, difference = p_text(pair["test"]["p_holm"], comparison["alpha"]), 100 * pair["test"]["difference"]
        text.append(f"{pair['verdict']}, {difference:+.1f} points of accuracy ({between}, {p})")
    return "\n".join([*text, *(f"note: {flag['text']}" for flag in comparison["flags"])])
