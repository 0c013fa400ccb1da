"""What comes out of a search (experiments/tune.py): its table, its picture, and the settings to take over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from experiments.table import short
from peftqa.config.params import Params
from peftqa.evaluation.palette import variant_color
from stages import workspace

EDGE = 0.05  # of a range, in logarithms where it is searched so: nearer to an end than this is on the edge
SCORE = "val_log_loss"


def report(study: Study, space: Mapping, base: Params, adapter: str, experiment: str | None, folder: Path) -> None:
    """Write trials.csv, best.csv and trials.svg into `folder`, and print what they say and what to do with it."""
    done = finished(study)
    if not done:
        print("No trial has finished yet.")
        return
    table = trial_table(done, space)
    workspace.write_csv(folder / "trials.csv", table)
    if not np.isfinite(table[SCORE]).any():
        print("Every training has diverged, so there is nothing to take over: lower the rates in tuning.yaml.")
        return
    best = best_so_far(table[SCORE])
    workspace.write_csv(folder / "best.csv", best)
    draw(table, best, adapter, folder / "trials.svg")
    ranked = table.sort_values(SCORE, kind="stable")
    print(f"\n{ranked.head(10).to_string(index=False, float_format=lambda number: f'{number:.4g}')}")
    if len(ranked) > 10:
        print(f"({len(ranked) - 10} more in trials.csv)")
    winner = study.best_trial
    for setting in edges(winner.params, space):
        value = short(winner.params[setting])
        print(
            f"\nThe best trial's {setting}, {value}, lies on an edge of its range: widen it in tuning.yaml if you can."
        )
    print(f"\n{take_over(winner.params, base, adapter, len(done), experiment)}")
    print(
        f"\nEvery trial:  {folder / 'trials.csv'}    (and as an experiment: make experiments)"
        f"\nPicture:      {folder / 'trials.svg'}"
        f"\nWith DVC:     dvc plots show {folder / 'trials.csv'} -x learning_rate -y {SCORE} --template scatter"
        f"\n              dvc plots show {folder / 'best.csv'} -x trials -y {SCORE} --template curve"
    )


def finished(study: Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]


def trial_table(trials: Sequence[FrozenTrial], space: Mapping) -> pd.DataFrame:
    """A row a trial in their order: trial, val_log_loss (infinite where training diverged), epoch (mean), settings."""
    return pd.DataFrame(
        [
            {"trial": trial.number, SCORE: trial.value, "epoch": trial.user_attrs.get("epoch")}
            | {setting: trial.params[setting] for setting in space}
            for trial in trials
        ]
    )


def best_so_far(scores: Sequence[float]) -> pd.DataFrame:
    """Two curves over the number of trials; columns variant, trials, val_log_loss.

    `found`: the lowest score so far. `expected`: the lowest of so many trials if these scores were drawn at random,
    with replacement (Dodge et al. 2019, arXiv 1909.03004): E[min of k] is the sum over sorted scores v_i of
    v_i ((n-i+1)/n)^k - v_i ((n-i)/n)^k. It says what a smaller budget would have found on average; a search that
    learns is better than that later on. A training that diverged counts as the worst that did not,
    of which there must be one.
    """
    scores = np.asarray(scores, dtype=float)
    scores, n = np.minimum(scores, scores[np.isfinite(scores)].max()), len(scores)
    at_least = (n - np.arange(n + 1)) / n  # share of scores that are the i-th lowest or worse
    expected = [float(np.sort(scores) @ -np.diff(at_least**k)) for k in range(1, n + 1)]
    curves = {"found": np.minimum.accumulate(scores), "expected": expected}
    return pd.concat(
        pd.DataFrame({"variant": name, "trials": range(1, n + 1), SCORE: values}) for name, values in curves.items()
    )


def edges(settings: Mapping, space: Mapping) -> list[str]:
    """The settings that lie on an edge of their range. A choice among names has none."""
    found = []
    for setting, choices in space.items():
        if isinstance(choices, list):
            continue
        scale = math.log if choices.log else float
        low, high, value = (scale(end) for end in (choices.low, choices.high, settings[setting]))
        if not EDGE < (value - low) / (high - low) < 1 - EDGE:
            found.append(setting)
    return found


def take_over(settings: Mapping, base: Params, adapter: str, trials: int, experiment: str | None) -> str:
    """In words, how to take settings over: options of `dvc exp run`, or lines for the experiment's file.

    Only what differs from the parameters searched from, and how many trials chose it, which the report says.
    """
    now = base.adapters[adapter].model_dump()
    now["schedule"] = now["schedule"] or base.train.schedule
    changes = {f"adapters.{adapter}.{key}": value for key, value in settings.items() if now[key] != value}
    changes[f"tuning.{adapter}"] = f"{{trials: {trials}, protocol: {base.split.protocol}}}"
    if experiment:
        lines = "\n".join(f"{key}: {value}" for key, value in changes.items())
        return f"To take the best over, in experiments/{experiment}.yaml:\n{lines}"
    options = " \\\n  ".join(f"-S '++{key}={value}'" for key, value in changes.items())
    return f"To take the best over:\ndvc exp run {options}"


def described(score: float, epoch: float | None) -> str:
    return f"log loss {score:.4f}, best epoch {epoch:g}" if math.isfinite(score) else "diverged"


def draw(table: pd.DataFrame, best: pd.DataFrame, adapter: str, path: Path) -> None:
    """Score by learning rate, and best so far by number of trials, side by side as SVG."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    by_rate, by_trials = figure.subplots(1, 2, sharey=True)
    color = variant_color(adapter)
    by_rate.set(xscale="log", xlabel="learning rate", ylabel="validation log loss, best epoch")
    kept = np.isfinite(table[SCORE])
    by_rate.plot(table["learning_rate"][kept], table[SCORE][kept], "o", color=color)
    for rate in table["learning_rate"][~kept]:
        by_rate.axvline(rate, color=color, lw=0.6, ls=":")
    if not kept.all():
        by_rate.set_title("dotted: diverged", fontsize=9)
    for (name, curve), style in zip(best.groupby("variant", sort=False), ("-", "--"), strict=True):
        label = {"found": "lowest so far", "expected": "expected lowest of so many at random"}[name]
        by_trials.step(curve["trials"], curve[SCORE], style, where="post", color=color, label=label)
    by_trials.set(xlabel="trials")
    by_trials.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_trials.legend(frameon=False, fontsize=9)
    for axes in (by_rate, by_trials):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(lw=0.4, alpha=0.5)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": adapter}):
        figure.savefig(path, metadata={"Date": None})
