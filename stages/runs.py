"""The runs of params.yaml, and where the files of a run are.

A run is one variant on one fold with one seed, written (fold, seed); the seed is 0 if nothing is trained.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from peftqa.config.params import Params, read_yaml
from peftqa.errors import UserError

UNTRAINED_SEED = 0
SPLIT = Path("data/split")
BASE_MODEL = Path("models/base")
ADAPTERS = Path("models/adapters")
PREDICTIONS = Path("predictions")
TRAINING_CURVES = Path("plots/training")
RUNTIME = Path("runtime")
CHECKPOINTS = Path(".checkpoints")


def runs_of(name: str, params: Params) -> list[tuple[int, int]]:
    """(fold, seed) of every run of a variant."""
    seeds = params.train.seeds if name in params.adapters else [UNTRAINED_SEED]
    return [(fold, seed) for fold in params.split.folds for seed in seeds]


def named_runs(variants: Iterable[str], params: Params) -> dict[str, tuple[str, int, int]]:
    """Variant, fold and seed by the name that dvc.yaml gives a run: `prompt-0-42`, or `base-0` without training."""
    return {
        f"{name}-{fold}-{seed}" if name in params.adapters else f"{name}-{fold}": (name, fold, seed)
        for name in variants
        for fold, seed in runs_of(name, params)
    }


def find_run(key: str, params: Params, variants: Iterable[str]) -> tuple[str, int, int]:
    """Variant, fold and seed of the run with this name. Raises UserError unless one of the variants has it."""
    known = named_runs(variants, params)
    if key not in known:
        raise UserError(
            f"no run {key!r} in params.yaml: a run is ADAPTER-FOLD-SEED, or VARIANT-FOLD if nothing is trained, with "
            f"one of {', '.join(variants)}, a fold of split.folds {params.split.folds} and a seed of train.seeds "
            f"{params.train.seeds}."
        )
    return known[key]


def stage_key() -> str:
    """The part of this stage's name after the @: `prompt-0-42` in `train@prompt-0-42`.

    It is on the command line if a person runs the stage, else in DVC_STAGE, which DVC sets. So no command in dvc.yaml
    gives a shell a value of params.yaml to run.
    """
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        return sys.argv[1]
    _, at, key = os.environ.get("DVC_STAGE", "").partition("@")
    if len(sys.argv) > 1 or not at:
        module = Path(sys.argv[0]).stem
        raise UserError(f"name the run, as `dvc stage list` shows it after {module}@: python -m stages.{module} NAME")
    return key


def fold_table(fold: int, split: str) -> Path:
    """The table of "train", "val" or "test" in a fold."""
    return SPLIT / f"fold-{fold}" / f"{split}.csv"


def run_path(folder: Path, name: str, run: tuple[int, int], suffix: str = "") -> Path:
    """The file or folder of one run below `folder`. name: the adapter or variant; run: its fold and seed."""
    return folder / name / f"fold-{run[0]}" / f"seed-{run[1]}{suffix}"


def run_paths(folder: Path, names: Iterable[str], params: Params, suffix: str = "") -> list[Path]:
    """The files or folders of every run of some variants below `folder`."""
    return [run_path(folder, name, run, suffix) for name in names for run in runs_of(name, params)]


def epochs_table(name: str, run: tuple[int, int]) -> Path:
    """The table of a run's epochs: epoch, step, loss, val_loss, val_log_loss, val_accuracy, val_macro_f1."""
    return run_path(TRAINING_CURVES, name, run) / "epochs.csv"


def training_code() -> list[Path]:
    """The code of this repository that training depends on, as dvc.yaml says."""
    try:
        deps = read_yaml(Path("dvc.yaml"))["stages"]["train"]["deps"]
    except (KeyError, TypeError):
        raise UserError("dvc.yaml lacks a stage `train` with deps; restore it: `git checkout dvc.yaml`.") from None
    return [Path(dep) for dep in deps if Path(dep).parts[0] in ("peftqa", "stages")]
