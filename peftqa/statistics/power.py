"""Power of a protocol, before it runs, and the smallest difference that it finds often enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, chi2, norm, t


def mcnemar_power(difference: float, discordance: float, n: int, alpha: float) -> float:
    """Chance that the exact McNemar test at `alpha` rejects on n questions.

    discordance: probability that just one of two classifiers is right; difference: true difference in accuracy, at
    most the discordance. Exact and unconditional: the number of discordant questions is binomial (Duffy 1984,
    Biometrics 40:1005-1015).
    """
    share = (1 + difference / discordance) / 2  # of discordant questions that favour the better classifier
    sizes = np.arange(n + 1)
    # The largest k with two-sided p = 2 P(X <= k) <= alpha under a fair coin; -1 if there is none.
    limit = binom.ppf(alpha / 2, sizes, 0.5)
    limit -= binom.cdf(limit, sizes, 0.5) > alpha / 2 * (1 + 1e-12)
    reject = binom.cdf(limit, sizes, share) + binom.sf(sizes - limit - 1, sizes, share)
    return float(binom.pmf(sizes, n, discordance) @ reject)


def runs_power(
    difference: float,
    discordance: float,
    n: int,
    alpha: float,
    *,
    run_sd: float,
    seeds: int,
    folds: int = 1,
    shared: bool = False,
    method_share: float = 0.5,
) -> float:
    """Chance that the primary test of two trained methods (both its t tests) rejects at `alpha`.

    Each method has several runs. difference: of their true accuracies; discordance: share of questions that just one of
    two single runs gets right; method_share: the part of this that all runs of a method share and more seeds do not
    average out; run_sd: standard deviation of a run's expected accuracy, beyond the luck on single questions,
    independent between folds and seeds. n counts the questions of all folds; shared: all folds ask the same ones.

    This is an approximation. Standard errors count as independent of the difference and of each other. Satterthwaite's
    df are those of the expected variances. With two seeds, or three on one fold, it is up to ten points too high.
    """
    per_question = discordance - difference**2
    luck = (1 - method_share) * per_question / 2  # variance of one run's answer to one question
    asked = folds if shared else 1  # by how many runs of a seed is a question answered
    questions = (per_question - 2 * luck * (1 - 1 / (seeds * asked))) / n
    noise = run_sd**2 / (seeds * folds)
    runs = noise + luck / (n * seeds * asked)  # of the mean of all runs; has luck on questions again
    parts = [[(questions, n - 1), *([(runs, seeds - 1)] * 2 if seeds > 1 else [])]]
    if folds > 1:
        own = [(questions + 2 * noise, folds - 1)]
        parts.append([(questions, n - 1), (2 * runs, folds - 1)] if shared else own)
    # The difference that is seen, at the midpoints of 2,000 slices of equal probability.
    seen = difference + np.sqrt(questions + 2 * noise) * norm.ppf((np.arange(2000) + 0.5) / 2000)
    rejects = np.ones_like(seen)
    for test in parts:
        variance = sum(part for part, _ in test)
        df = variance**2 / sum(part**2 / df for part, df in test)
        rejects *= chi2.cdf(df * (seen / t.isf(alpha / 2, df)) ** 2 / variance, df)
    return float(rejects.mean())


def smallest_detectable(power_at: Callable[[float], float], discordance: float, power: float) -> float | None:
    """The smallest true difference in accuracy, at most the discordance, for which `power_at` reaches `power`.

    None if even a difference as large as the discordance is not shown often enough.
    """
    if power_at(discordance) < power:
        return None
    if power_at(0.0) >= power:
        return 0.0
    return float(brentq(lambda difference: power_at(difference) - power, 0.0, discordance, xtol=1e-9))
