"""The results of a search (experiments/tune.py): its table, its picture, and the settings to take over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
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
from peftqa.data.files import write_csv


def report(study: Study, space: Mapping, base: Params, adapter: str, experiment: str | None, folder: Path) -> None:
    """Write trials.csv and trials.svg into `folder`, and print the best trials and how to take them over.

    trials.csv has one row per finished trial: trial, val_log_loss (infinite if training diverged), epoch, settings.
    """
    table = pd.DataFrame(
        {"trial": trial.number, "val_log_loss": trial.value, "epoch": trial.user_attrs["epoch"]} | trial.params
        for trial in finished(study)
    )
    if table.empty:
        return print("No trial has finished yet.")
    write_csv(folder / "trials.csv", table)
    if math.isinf(study.best_value):
        return print("Every training has diverged, so there is nothing to take over: lower the rates in tuning.yaml.")
    with matplotlib.rc_context({"backend": "agg", "svg.fonttype": "none", "svg.hashsalt": adapter}):
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        axes = plot_slice(study, target_name="validation log loss, best epoch")
        np.ravel(axes)[0].figure.savefig(folder / "trials.svg", metadata={"Date": None})
    ranked = table.sort_values("val_log_loss", kind="stable")
    print(f"\n{ranked.head(10).to_string(index=False, float_format=lambda number: f'{number:.4g}')}")
    if len(ranked) > 10:
        print(f"({len(ranked) - 10} more in trials.csv)")
    best = study.best_params
    for key in edges(best, space):
        print(f"\nThe best trial's {key}, {short(best[key])}, is at an end of its range: widen it in tuning.yaml.")
    print(
        f"\n{take_over(best, base, adapter, len(table), experiment)}"
        f"\n\nEvery trial:  {folder / 'trials.csv'}    (and as an experiment: make experiments)"
        f"\nPicture:      {folder / 'trials.svg'}"
    )


def finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def progress(study: Study, trial: FrozenTrial, wanted: int) -> str:
    """A line about a trial that has just finished."""
    left, seconds = wanted - len(finished(study)), mean(done.duration.total_seconds() for done in finished(study))
    rest = f"{left} left, about {duration(left * seconds)}" if left > 0 else "none left"
    epoch, best = trial.user_attrs["epoch"], study.best_trial
    what = "diverged" if epoch is None else f"log loss {trial.value:.4f}, best epoch {epoch:g}"
    settings = ", ".join(f"{key} {short(value)}" for key, value in trial.params.items())
    return f"{study.study_name}-{trial.number}: {what} with {settings}; lowest {best.value:.4f} ({best.number}); {rest}"


def edges(settings: Mapping, space: Mapping) -> list[str]:
    """The settings that are at an end of their range, if they have one."""
    return [key for key, choices in space.items() if not isinstance(choices, list) and choices.on_edge(settings[key])]


def current_settings(base: Params, adapter: str, space: Mapping) -> dict[str, object]:
    """The values in params.yaml of a space's settings; None for a setting that it lacks."""
    values = base.adapters[adapter].model_dump()
    values["schedule"] = values["schedule"] or base.train.schedule
    return {path: reduce(lambda group, key: (group or {}).get(key), path.split("."), values) for path in space}


def take_over(settings: Mapping, base: Params, adapter: str, trials: int, experiment: str | None) -> str:
    """How to take settings over: options of `dvc exp run`, or lines for the experiment's file.

    They name the settings that differ from those that the search started from, and how many trials there were.
    """
    now = current_settings(base, adapter, settings)
    changes = {f"adapters.{adapter}.{key}": value for key, value in settings.items() if now[key] != value}
    changes[f"tuning.{adapter}"] = f"{{trials: {trials}, protocol: {base.split.protocol}}}"
    if experiment:
        lines = "\n".join(f"{key}: {value}" for key, value in changes.items())
        return f"To take the best over, in experiments/{experiment}.yaml:\n{lines}"
    options = " \\\n  ".join(f"-S '++{key}={value}'" for key, value in changes.items())
    return f"To take the best over:\ndvc exp run {options}"
