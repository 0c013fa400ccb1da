"""How often the primary test errs, and how often it finds a difference, in this project's designs, simulated.

Usage: python -m benchmarks.simulation [--repetitions N] [--json FILE]

Two adapters, the frozen model (base), the majority label, TF-IDF and few-shot prompting answer test questions, each
with an accuracy of 70%. Cross-validation: each fold has 89 questions of its own, stratified, so that all have the same
share of yes. official: all folds ask the same 445, those with the labels yes and no. Of two single runs, only one is
right on 22% of the questions. Half of that difference belongs to the method, in all its runs; the other half is luck of
the run. The accuracy of an adapter's run, one seed in one fold, varies by 5 points (standard deviation). Shares of that
variance may be common to a seed over its folds and to a fold over its seeds. TF-IDF varies by 2.5 points from fold to
fold, few-shot prompting by 5, because its examples differ. The majority label is right on all questions labelled yes.

It prints the percentage of repetitions in which the test rejects: if the accuracies are equal (type-I error), for one
pair of each kind and for any of the nine pairs of the family after Holm's correction (FWER), and if one adapter is 4
points better (power).
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm
from tqdm import tqdm

from peftqa.statistics.significance import Answers, corrected_t, mcnemar, t_tests

ACCURACY, DISCORDANCE, MAJORITY_DISCORDANCE, METHOD_SHARE = 0.7, 0.22, 0.35, 0.5
RUN_SD, TFIDF_SD, FEW_SHOT_SD = 0.05, 0.025, 0.05
OWN, SHARED = 89, 445  # test questions of a fold, and of all folds together (official, labels yes and no)
DIFFERENCE, ALPHA, SEED = 0.04, 0.05, 42
TEST_TRAIN_RATIO = {False: 1 / 8, True: 445 / 400}
AT_ONCE = 100  # repetitions, which bounds the memory

REFERENCES = ("base", "majority", "tfidf", "fewshot")
FAMILY = [(adapter, other) for adapter in ("first", "second") for other in REFERENCES] + [("first", "second")]
COLUMNS = {"adapters": ("first", "second")} | {name: ("first", name) for name in REFERENCES}


class Design(NamedTuple):
    """What is run: how many seeds and folds, and whether all folds ask the same questions (official)."""

    seeds: int
    folds: int
    shared: bool = False

    def __str__(self) -> str:
        asked = SHARED if self.shared else self.folds * OWN
        folds = f"{self.folds} fold{'s' * (self.folds > 1)}"
        return f"{'official, ' * self.shared}{self.seeds} seed{'s' * (self.seeds > 1)}, {folds}, {asked} questions"


class Common(NamedTuple):
    """Shares of the runs' variance that are common to a seed over its folds, and to a fold over its seeds."""

    seed: float = 0.0
    fold: float = 0.0

    def __str__(self) -> str:
        parts = [f"{100 * share:.0f}% to a {name}" for name, share in self._asdict().items() if share]
        return " and ".join(parts) or "nothing"


COMMON = (Common(), Common(seed=0.3), Common(fold=0.3), Common(fold=0.5), Common(0.2, 0.2))
KEPT = (Design(3, 10), Design(3, 10, True))
# Designs with fewer runs, read as statements about the methods, with the shares that matter most to each.
FEWER = {
    Design(2, 10): (Common(), Common(seed=0.3), Common(fold=0.5)),
    Design(2, 10, True): (Common(), Common(seed=0.3), Common(fold=0.5)),
    Design(1, 10): (Common(), Common(seed=0.1), Common(seed=0.3)),
    Design(1, 10, True): (Common(), Common(seed=0.1), Common(seed=0.3)),
    Design(3, 3): (Common(), Common(seed=0.3), Common(fold=0.5)),
    Design(3, 5, True): (Common(), Common(seed=0.3), Common(fold=0.5)),
    Design(3, 3, True): (Common(), Common(seed=0.3), Common(fold=0.5)),
    Design(3, 1): (Common(), Common(fold=0.3)),
    Design(3, 1, True): (Common(), Common(fold=0.3)),
    Design(1, 1): (Common(),),
    Design(1, 1, True): (Common(),),
}
POWER = (*(Design(seeds, 10, shared) for shared in (False, True) for seeds in (1, 3, 5)), Design(3, 1), Design(5, 1))


def latent_correlation(accuracy: float, discordance: float) -> float:
    """Correlation of two normal variables; only one is below the accuracy's quantile in `discordance` of cases."""
    quantile = norm.ppf(accuracy)

    def excess(correlation: float) -> float:
        both = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([quantile, quantile])
        return 2 * (accuracy - both) - discordance

    return float(brentq(excess, 0.0, 0.999))


RHO = latent_correlation(ACCURACY, DISCORDANCE)
# Share of a question's label in its difficulty.
LABEL_RHO = latent_correlation(ACCURACY, MAJORITY_DISCORDANCE) ** 2 / RHO


def simulate(
    design: Design,
    common: Common,
    count: int,
    rng: np.random.Generator,
    difference: float = 0.0,
    run_sd: float = RUN_SD,
) -> dict[str, np.ndarray]:
    """`correct` of every variant, bool (count, seeds, folds, questions of a fold), for `count` repetitions.

    A run is right if the sum of the question's difficulty, in general and for its method, and the run's own luck is
    below the quantile of its accuracy.
    """

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((count, *shape), dtype=np.float32)

    folds = 1 if design.shared else design.folds  # that have questions of their own
    asked = SHARED if design.shared else OWN
    difficulty, own = normal(folds * asked), normal(folds * asked)
    yes = np.sqrt(LABEL_RHO) * difficulty + np.sqrt(1 - LABEL_RHO) * own < norm.ppf(ACCURACY)
    # Sorted by label and dealt out in turn, each fold gets its share of yes.
    order = np.argsort(~yes, axis=1, kind="stable")
    difficulty, yes = (
        np.take_along_axis(values, order, axis=1).reshape(count, asked, folds).swapaxes(1, 2)[:, None]
        for values in (difficulty, yes)
    )

    def answer(accuracy: np.ndarray | float, seeds: int, luck: float) -> np.ndarray:
        method = np.sqrt(RHO) * difficulty + np.sqrt((1 - RHO) * (1 - luck)) * normal(1, folds, asked)
        limit = norm.ppf(np.clip(accuracy, 1e-6, 1 - 1e-6)).astype(np.float32)
        if not luck:
            return np.broadcast_to(method < limit, (count, 1, design.folds, asked))
        return method + np.sqrt((1 - RHO) * luck).astype(np.float32) * normal(seeds, design.folds, asked) < limit

    def adapter(shift: float) -> np.ndarray:
        each = np.sqrt(1 - common.seed - common.fold) * normal(design.seeds, design.folds, 1)
        seed = np.sqrt(common.seed) * normal(design.seeds, 1, 1)
        fold = np.sqrt(common.fold) * normal(1, design.folds, 1)
        return answer(ACCURACY + shift + run_sd * (each + seed + fold), design.seeds, 1 - METHOD_SHARE)

    def fitted(sd: float) -> np.ndarray:
        return answer(ACCURACY + sd * normal(1, design.folds, 1), 1, 1 - METHOD_SHARE)

    return {
        "first": adapter(difference),
        "second": adapter(0.0),
        "base": answer(ACCURACY, 1, 0.0),
        "majority": np.broadcast_to(yes, (count, 1, design.folds, asked)),
        "tfidf": fitted(TFIDF_SD),
        "fewshot": fitted(FEW_SHOT_SD),
    }


def as_answers(correct: np.ndarray, shared: bool) -> Answers:
    """What the tests take, with the repetitions as first axis."""
    count, accuracies = len(correct), correct.mean(axis=-1)
    if shared:
        return Answers(correct.mean(axis=(1, 2)), accuracies, correct[:, 0, 0], True)
    return Answers(correct.mean(axis=1).reshape(count, -1), accuracies, correct[:, 0].reshape(count, -1), False)


def p_values(first: Answers, second: Answers) -> np.ndarray:
    """The p-value of `primary_test` for each repetition, (repetitions,)."""
    if max(variant.accuracies[0].size for variant in (first, second)) == 1:
        return np.array([mcnemar(*pair).p for pair in zip(first.first, second.first, strict=True)])
    return np.max([test.p for test in t_tests(first, second)], axis=0)


def rejection_rates(
    design: Design, common: Common, repetitions: int, difference: float = 0.0, run_sd: float = RUN_SD
) -> dict[str, float]:
    """Share of repetitions in which the test of each kind of pair rejects, `fwer`, and the `sceptic` of adapters."""
    rng, p, sceptic = np.random.default_rng(SEED), {pair: [] for pair in FAMILY}, []
    for start in range(0, repetitions, AT_ONCE):
        correct = simulate(design, common, min(AT_ONCE, repetitions - start), rng, difference, run_sd)
        variants = {name: as_answers(values, design.shared) for name, values in correct.items()}
        for pair in FAMILY:
            p[pair].append(p_values(*(variants[name] for name in pair)))
        result = corrected_t(variants["first"], variants["second"], TEST_TRAIN_RATIO[design.shared])
        sceptic.append(np.zeros(len(p[pair][-1])) if result is None else result.p <= ALPHA)
    p = {pair: np.concatenate(values) for pair, values in p.items()}
    rates = {name: float((p[pair] <= ALPHA).mean()) for name, pair in COLUMNS.items()}
    rates["fwer"] = float((np.min(list(p.values()), axis=0) <= ALPHA / len(FAMILY)).mean())
    return rates | {"sceptic": float(np.concatenate(sceptic).mean())}


def run_simulation(repetitions: int) -> dict[str, list[dict]]:
    """All rates, a list of rows each: "kept", "fewer" (type-I errors), "own" (without run noise) and "power"."""
    cells = [("kept", design, common, {}) for design in KEPT for common in COMMON]
    cells += [("fewer", design, common, {}) for design, commons in FEWER.items() for common in commons]
    cells += [("own", Design(1, 1), Common(), {"run_sd": 0.0})]
    cells += [("power", design, Common(), {"difference": DIFFERENCE}) for design in POWER]
    result: dict[str, list[dict]] = {}
    for table, design, common, how in tqdm(cells, unit="cell", disable=None):
        rates = rejection_rates(design, common, repetitions, **how)
        result.setdefault(table, []).append({"design": str(design), "common": str(common), **rates})
    return result


def markdown_table(rows: list[dict], columns: dict[str, str]) -> str:
    """A row per cell, rates in per cent; columns: heading by key."""
    lines = [f"| {' | '.join(columns.values())} |", "| --- " * len(columns) + "|"]
    for row in rows:
        cells = (row[key] if isinstance(row[key], str) else f"{100 * row[key]:.1f}" for key in columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the rates to this file")
    arguments = parser.parse_args()
    result = run_simulation(arguments.repetitions)
    against = {name: f"against {name}" for name in REFERENCES}
    errors = {"design": "", "common": "common", "adapters": "between adapters", **against, "fwer": "FWER"}
    print(
        f"Type-I errors in per cent of {arguments.repetitions} repetitions:\n\n{markdown_table(result['kept'], errors)}"
    )
    print(f"\nOf designs with fewer runs, read as tests of the methods:\n\n{markdown_table(result['fewer'], errors)}")
    print(f"\nAbout these two trained adapters, one run each: {100 * result['own'][0]['adapters']:.1f}")
    power = {"design": "", "adapters": "between adapters", **against, "sceptic": "sceptic's row, adapters"}
    print(f"\nPower at {100 * DIFFERENCE:g} points, nothing common:\n\n{markdown_table(result['power'], power)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
