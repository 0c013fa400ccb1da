"""How often each test errs, and how often it finds a difference, in this project's situation, simulated.

Usage: python -m benchmarks.simulation [--repetitions N] [--json FILE]

Two methods answer 890 questions, each a test question of one of ten folds, with an accuracy of 70%. Of two single
runs, one of each method, just one is right on 22% of questions; half of what sets them apart there belongs to the
method, in all its runs, and half is luck of the run. A run, one seed in one fold, has an accuracy of its own: it is off
by 5 points (standard deviation), of which variance a share may be common to a seed over all folds. For each number of
seeds, on one fold (89 questions) or all ten, it prints per cent of repetitions in which a procedure rejects: with equal
methods (type-I error), then with one of them 4 points better (power).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm
from tqdm import tqdm

from peftqa.statistics.bootstrap import bootstrap_weights, percentile_interval
from peftqa.statistics.significance import corrected_t, mcnemar, primary_test

QUESTIONS, FOLDS, SEEDS = 890, 10, (1, 3, 5)
ACCURACY, DISCORDANCE, DIFFERENCE = 0.7, 0.22, 0.04
RUN_SD, COMMON_SHARE = 0.05, 0.3
METHOD_SHARE = 0.5
TEST_TRAIN_RATIO = 1 / 8  # a tenth of the records against eight tenths
ALPHA, RESAMPLES, SEED = 0.05, 500, 42


class Situation(NamedTuple):
    """What the simulated methods are like."""

    difference: float = 0.0  # true difference in accuracy
    run_sd: float = RUN_SD
    common_share: float = 0.0  # of the runs' variance, common to a seed over its folds
    method_share: float = METHOD_SHARE  # of what sets two runs apart on a question, common to all runs of a method


class Procedure(NamedTuple):
    """One way to compare: does it reject, given `correct` (R, n) of both methods and `fold` (n,)?"""

    title: str
    rejects: Callable[[np.ndarray, np.ndarray, np.ndarray], bool | None]  # None: it does not apply


def latent_correlation(accuracy: float, discordance: float) -> float:
    """Correlation of two normal variables which fall below the accuracy's quantile apart as often as `discordance`."""
    quantile = norm.ppf(accuracy)

    def excess(correlation: float) -> float:
        both = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([quantile, quantile])
        return 2 * (accuracy - both) - discordance

    return float(brentq(excess, 0.0, 0.999))


def simulate(
    situation: Situation, repetitions: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`correct`, bool (max SEEDS, QUESTIONS), of both methods, once a repetition.

    A run is right where the question's difficulty, in general and for its method, and its own luck together fall below
    the quantile of its accuracy.
    """
    correlation, shape = latent_correlation(ACCURACY, DISCORDANCE), (2, max(SEEDS))
    parts = np.sqrt([correlation, (1 - correlation) * situation.method_share, 0])
    parts[2] = np.sqrt(1 - (parts**2).sum())
    accuracy = ACCURACY + situation.difference * np.array([1, 0])[:, None, None]
    for _ in range(repetitions):
        own = rng.normal(size=(*shape, FOLDS)) * np.sqrt(1 - situation.common_share)
        common = rng.normal(size=(*shape, 1)) * np.sqrt(situation.common_share)
        runs = np.clip(accuracy + situation.run_sd * (own + common), 1e-6, 1 - 1e-6)
        limits = np.repeat(norm.ppf(runs), QUESTIONS // FOLDS, axis=2)
        sizes = (QUESTIONS,), (2, 1, QUESTIONS), (*shape, QUESTIONS)
        first, second = sum(part * rng.normal(size=size) for part, size in zip(parts, sizes, strict=True)) < limits
        yield first, second


def primary(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> bool:
    return primary_test(first, second, fold, (True, True)).p <= ALPHA


def averaged_mcnemar(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> bool:
    """With two labels and an odd number of seeds, the seeds' majority is right where most of them are."""
    return mcnemar(first.mean(axis=0) > 0.5, second.mean(axis=0) > 0.5).p <= ALPHA


def sceptics(first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> bool | None:
    result = corrected_t(first, second, fold, TEST_TRAIN_RATIO)
    return None if result is None else result.p <= ALPHA


class Bootstrap:
    """The interval of secondary figures, here of accuracy, where its error can be set beside the primary test's.

    The resamples are drawn once and serve all repetitions, whose data are independent of them.
    """

    def __init__(self) -> None:
        self.weights: dict[tuple[int, int], tuple[np.ndarray, list[np.ndarray]]] = {}

    def __call__(self, first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> bool:
        low, high = self.interval(first, second, fold)
        return low > 0 or high < 0

    def interval(self, first: np.ndarray, second: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
        """As by `bootstrap_scores`, which scores much else besides."""
        seeds, n = first.shape
        if (seeds, n) not in self.weights:
            drawn = bootstrap_weights(fold, RESAMPLES, SEED, draw_folds=seeds == 1)
            runs = [
                np.random.default_rng([SEED, method]).multinomial(seeds, [1 / seeds] * seeds, size=drawn.folds.shape)
                * (drawn.folds / drawn.folds.sum(axis=1, keepdims=True))[:, :, None]
                / seeds
                for method in range(2)
            ]
            self.weights[seeds, n] = drawn.questions, runs
        questions, runs = self.weights[seeds, n]
        questions = questions.reshape(RESAMPLES, -1, QUESTIONS // FOLDS).swapaxes(0, 1)
        means = []
        for correct, drawn in zip((first, second), runs, strict=True):
            answers = correct.reshape(seeds, -1, QUESTIONS // FOLDS).transpose(1, 2, 0).astype(np.float64)
            means.append(((questions @ answers / answers.shape[1]).swapaxes(0, 1) * drawn).sum(axis=(1, 2)))
        return percentile_interval(means[0] - means[1], ALPHA)


PROCEDURES = {
    "primary": Procedure("primary test", primary),
    "replaced": Procedure("McNemar on seed-averaged labels, which it replaced", averaged_mcnemar),
    "sceptic": Procedure("sceptic's row: corrected t over runs", sceptics),
    "bootstrap": Procedure("bootstrap interval, as of secondary figures", Bootstrap()),
}


def rejection_rates(
    situation: Situation, repetitions: int, procedures: dict[str, Procedure], seed: int = SEED
) -> dict[str, dict[str, float | None]]:
    """Share of repetitions in which each procedure rejects, by its key and then by setting, "1 seed, 89 questions"."""
    fold = np.repeat(np.arange(FOLDS), QUESTIONS // FOLDS)
    settings = {
        f"{s} seed{'s' * (s > 1)}, {n} questions": (s, n) for n in (QUESTIONS // FOLDS, QUESTIONS) for s in SEEDS
    }
    rejected = {key: {setting: [] for setting in settings} for key in procedures}
    data = simulate(situation, repetitions, np.random.default_rng(seed))
    for first, second in tqdm(data, total=repetitions, desc=str(tuple(situation)), unit="repetition", disable=None):
        for key, procedure in procedures.items():
            for setting, (seeds, n) in settings.items():
                rejected[key][setting].append(procedure.rejects(first[:seeds, :n], second[:seeds, :n], fold[:n]))
    return {
        key: {
            # Without a verdict now and then, as where all runs differ by the same, it does not reject.
            setting: None if set(values) == {None} else sum(map(bool, values)) / repetitions
            for setting, values in by_setting.items()
        }
        for key, by_setting in rejected.items()
    }


def run_simulation(repetitions: int) -> dict:
    """All rates: "independent" and "common" runs, each "null" and "difference"; and the primary test's alone:

    "own_null" for one seed and one fold without run noise, and "method_share" for shares of none and all.
    """
    primary_only = {"primary": PROCEDURES["primary"]}

    def both_hypotheses(procedures: dict[str, Procedure], **situation: float) -> dict:
        return {
            "null": rejection_rates(Situation(**situation), repetitions, procedures),
            "difference": rejection_rates(Situation(DIFFERENCE, **situation), repetitions, procedures),
        }

    own = rejection_rates(Situation(run_sd=0.0), repetitions, primary_only)
    return {
        "repetitions": repetitions,
        "independent": both_hypotheses(PROCEDURES),
        "common": both_hypotheses(PROCEDURES, common_share=COMMON_SHARE),
        "own_null": own["primary"]["1 seed, 89 questions"],
        "method_share": {str(share): both_hypotheses(primary_only, method_share=share) for share in (0.0, 1.0)},
    }


def markdown_table(rates: dict) -> str:
    """Type-I error / power in per cent, a row a procedure; empty where it does not apply."""
    settings = list(rates["null"]["primary"])
    lines = ["| | " + " | ".join(settings) + " |", "| --- |" + " --- |" * len(settings)]
    for key in rates["null"]:
        pairs = [(rates["null"][key][setting], rates["difference"][key][setting]) for setting in settings]
        cells = ["" if None in pair else f"{100 * pair[0]:.1f} / {100 * pair[1]:.0f}" for pair in pairs]
        lines.append(f"| {PROCEDURES[key].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the rates to this file")
    arguments = parser.parse_args()
    result = run_simulation(arguments.repetitions)
    print(
        f"Type-I error / power at a difference of {100 * DIFFERENCE:.0f} points, per cent of {arguments.repetitions}."
    )
    print("\nRuns independent:\n\n" + markdown_table(result["independent"]))
    print(f"\n{100 * COMMON_SHARE:.0f}% of their variance common to a seed over its folds:\n")
    print(markdown_table(result["common"]))
    for share, rates in result["method_share"].items():
        print(
            f"\nRuns independent, {float(share):.0%} of what sets runs apart on a question belonging to the method:\n"
        )
        print(markdown_table(rates))
    print(f"\nOne seed, 89 questions, about these two trained adapters: type-I error {100 * result['own_null']:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
