"""Planned power against enumeration and simulated test sets."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from peftqa.statistics import power
from peftqa.statistics.significance import answers_by_fold, answers_to_the_same, primary_test


def power_by_enumeration(difference: float, discordance: float, n: int, alpha: float) -> float:
    """The same power the long way: every count of questions that the one or the other alone gets right."""
    better, worse = (discordance + difference) / 2, (discordance - difference) / 2
    total = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if 0 < b + c <= n and stats.binomtest(b, b + c).pvalue <= alpha:
            ways = math.factorial(n) // math.factorial(b) // math.factorial(c) // math.factorial(n - b - c)
            total += ways * better**b * worse**c * (1 - discordance) ** (n - b - c)
    return total


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 2 / 32])
@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.4), (0.2, 0.4), (0.4, 0.4), (0.3, 0.9)])
def test_mcnemars_power_agrees_with_enumeration(difference, discordance, alpha):
    expected = power_by_enumeration(difference, discordance, 20, alpha)
    assert power.mcnemar_power(difference, discordance, 20, alpha) == pytest.approx(expected)


def smallest_by_mcnemar(discordance: float = 0.25, n: int = 89, alpha: float = 0.05) -> float | None:
    power_at = partial(power.mcnemar_power, discordance=discordance, n=n, alpha=alpha)
    return power.smallest_detectable(power_at, discordance, 0.8)


def test_smallest_detectable_has_the_power_asked_for():
    smallest = smallest_by_mcnemar()
    assert power.mcnemar_power(smallest, 0.25, 89, 0.05) == pytest.approx(0.8)
    assert smallest_by_mcnemar(n=500) < smallest < smallest_by_mcnemar(alpha=0.05 / 3)
    assert smallest_by_mcnemar(discordance=2 / 89) is None  # too few questions on which the two differ


def simulated_power(difference: float, n: int, run_sd: float, seeds: int, folds: int, shared: bool):
    """Share of rejections; every question is as hard as every other, so two runs differ on 2 p (1 - p) of them."""
    rng, shown, asked = np.random.default_rng(0), 0, n if shared else n // folds
    for _ in range(1500):
        both = []
        for accuracy in (0.7 + difference / 2, 0.7 - difference / 2):
            runs = accuracy + run_sd * rng.normal(size=(folds, seeds, 1))
            correct = rng.random((folds, seeds, asked)) < runs
            if shared:
                both.append(answers_to_the_same(correct))
            else:
                both.append(answers_by_fold(np.concatenate(correct, axis=1), np.repeat(np.arange(folds), asked)))
        shown += primary_test(*both).p <= 0.05
    return shown / 1500


@pytest.mark.parametrize(
    ("n", "run_sd", "seeds", "folds", "shared", "difference", "tolerance"),
    [
        (500, 0.02, 3, 5, False, 0.08, 0.06),
        (400, 0.04, 1, 10, False, 0.10, 0.06),
        (500, 0.02, 2, 5, False, 0.09, 0.12),
        (300, 0.05, 3, 5, True, 0.06, 0.06),
    ],
)
def test_runs_power_agrees_with_simulated_runs(n, run_sd, seeds, folds, shared, difference, tolerance):
    runs = {"run_sd": run_sd, "seeds": seeds, "folds": folds, "shared": shared}
    # If questions are all alike, a method has none that are its own.
    planned = power.runs_power(difference, 0.42, n, 0.05, method_share=0, **runs)
    assert 0.3 < planned < 0.95
    assert planned == pytest.approx(simulated_power(difference, n, **runs), abs=tolerance)


def test_smallest_detectable_of_more_seeds_is_smaller():
    def smallest(discordance: float = 0.2, n: int = 890, folds: int = 10, **runs) -> float:
        planned = {"discordance": discordance, "n": n, "alpha": 0.05, "run_sd": 0.05, "folds": folds}
        return power.smallest_detectable(partial(power.runs_power, **planned, **runs), discordance, 0.8)

    three = smallest(seeds=3)
    assert power.runs_power(three, 0.2, 890, 0.05, run_sd=0.05, seeds=3, folds=10) == pytest.approx(0.8)
    assert smallest(seeds=1) > three > smallest(seeds=5)
    # Not even a difference on every question that only one gets right would be found.
    assert smallest(0.1, n=89, folds=1, seeds=3) is None
