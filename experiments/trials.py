"""What comes out of a search (experiments/tune.py): its table, its picture, and the settings to take over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from statistics import mean

import matplotlib
import numpy as np
import pandas as pd
from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization.matplotlib import plot_slice

from experiments.runs import duration
from experiments.table import short
from peftqa.config.params import Params
from stages import workspace

EDGE = 0.05  # of a range, in logarithms if it is searched so: a value nearer to an end than this is on the edge
SCORE = "val_log_loss"


def report(study: Study, space: Mapping, base: Params, adapter: str, experiment: str | None, folder: Path) -> None:
    """Write trials.csv, best.csv and trials.svg into `folder`, and print what they say and what to do with it."""
    table = trial_table(study, space)
    if table.empty:
        return print("No trial has finished yet.")
    workspace.write_csv(folder / "trials.csv", table)
    if not np.isfinite(table[SCORE]).any():
        return print("Every training has diverged, so there is nothing to take over: lower the rates in tuning.yaml.")
    workspace.write_csv(folder / "best.csv", best_so_far(table[SCORE]))
    draw(study, adapter, folder / "trials.svg")
    ranked = table.sort_values(SCORE, kind="stable")
    print(f"\n{ranked.head(10).to_string(index=False, float_format=lambda number: f'{number:.4g}')}")
    if len(ranked) > 10:
        print(f"({len(ranked) - 10} more in trials.csv)")
    winner = study.best_trial.params
    for key in edges(winner, space):
        print(f"\nThe best trial's {key}, {short(winner[key])}, is on an edge of its range: widen it in tuning.yaml.")
    print(
        f"\n{take_over(winner, base, adapter, len(table), experiment)}"
        f"\n\nEvery trial:  {folder / 'trials.csv'}    (and as an experiment: make experiments)"
        f"\nPicture:      {folder / 'trials.svg'}"
        f"\nWith DVC:     dvc plots show {folder / 'trials.csv'} -x {next(iter(space))} -y {SCORE} --template scatter"
        f"\n              dvc plots show {folder / 'best.csv'} -x trials -y {SCORE} --template curve"
    )


def progress(study: Study, trial: FrozenTrial, wanted: int) -> str:
    """A line about a trial that has just finished."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    left, seconds = wanted - len(done), mean(other.duration.total_seconds() for other in done)
    rest = f"{left} left, about {duration(left * seconds)}" if left > 0 else "none left"
    what = (
        f"log loss {trial.value:.4f}, best epoch {trial.user_attrs['epoch']:g}"
        if trial.value < math.inf
        else "diverged"
    )
    settings = ", ".join(f"{key} {short(value)}" for key, value in trial.params.items())
    best = study.best_trial
    return f"trial {trial.number}: {what} with {settings}; lowest {best.value:.4f} (trial {best.number}); {rest}"


def trial_table(study: Study, space: Mapping) -> pd.DataFrame:
    """A row per finished trial: trial, val_log_loss (infinite if training diverged), epoch (mean), settings."""
    return pd.DataFrame(
        {"trial": trial.number, SCORE: trial.value, "epoch": trial.user_attrs.get("epoch")}
        | {setting: trial.params[setting] for setting in space}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    )


def best_so_far(scores: Sequence[float]) -> pd.DataFrame:
    """Two curves over the number of trials; columns variant, trials, val_log_loss.

    `found`: the lowest score so far. `expected`: the lowest of so many trials if these scores were drawn at random,
    with replacement (Dodge et al. 2019, arXiv 1909.03004): E[min of k] is the sum over sorted scores v_i of
    v_i ((n-i+1)/n)^k - v_i ((n-i)/n)^k. It says what a smaller budget would have found on average. A training that
    diverged counts as the worst that did not, of which there must be one.
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
    """The settings that are on an edge of their range. A choice among names has none."""
    found = []
    for setting, choices in space.items():
        if not isinstance(choices, list):
            scale = math.log if choices.log else float
            low, high, value = (scale(end) for end in (choices.low, choices.high, settings[setting]))
            if not EDGE < (value - low) / (high - low) < 1 - EDGE:
                found.append(setting)
    return found


def current_settings(base: Params, adapter: str, space: Mapping) -> dict[str, object]:
    """What the parameters have for the settings of a space; None if a setting is not given."""
    values = base.adapters[adapter].model_dump()
    values["schedule"] = values["schedule"] or base.train.schedule
    return {path: reduce(lambda group, key: (group or {}).get(key), path.split("."), values) for path in space}


def take_over(settings: Mapping, base: Params, adapter: str, trials: int, experiment: str | None) -> str:
    """In words, how to take settings over: options of `dvc exp run`, or lines for the experiment's file.

    Only what differs from the parameters searched from, and how many trials chose it, which the report says.
    """
    now = current_settings(base, adapter, settings)
    changes = {f"adapters.{adapter}.{key}": value for key, value in settings.items() if now[key] != value}
    changes[f"tuning.{adapter}"] = f"{{trials: {trials}, protocol: {base.split.protocol}}}"
    if experiment:
        lines = "\n".join(f"{key}: {value}" for key, value in changes.items())
        return f"To take the best over, in experiments/{experiment}.yaml:\n{lines}"
    options = " \\\n  ".join(f"-S '++{key}={value}'" for key, value in changes.items())
    return f"To take the best over:\ndvc exp run {options}"


def draw(study: Study, adapter: str, path: Path) -> None:
    """Score by each setting as SVG, later trials darker. Those that diverged are not in it."""
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": adapter, "backend": "agg"}):
        axes = plot_slice(study, target_name="validation log loss, best epoch")
        np.ravel(axes)[0].figure.savefig(path, metadata={"Date": None})
