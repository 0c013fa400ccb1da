"""Search an adapter's settings on validation alone: python -m experiments.tune prefix --trials 20

tuning.yaml says what is searched. Each trial trains the adapter once per fold and seed named there, in a clone of this
repository (experiments/tune-ADAPTER/worker-N/), and becomes a DVC experiment. No trial reads a test question. The same
command continues an interrupted search. Several processes, also on machines that share the folder, work on one study.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Mapping
from functools import reduce
from itertools import count, product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from pydantic import BeforeValidator, Field, InstanceOf, ValidationError

from experiments.clone import prepare, record
from experiments.git import git
from experiments.overrides import FOLDER, files_of, read_overrides, write_params
from experiments.runs import REPRO, run_python
from experiments.table import short
from peftqa.config.errors import explain
from peftqa.config.params import Params, Seed, read_yaml
from peftqa.config.settings import Positive, Settings
from peftqa.data.digest import digest
from peftqa.data.files import write_csv, write_json
from peftqa.errors import UserError, one_line
from stages import run_stage, workspace
from stages.runs import CHECKPOINTS, training_code
from stages.summary import training_summary

SEARCH = Path("tuning.yaml")
EDGE = 0.05  # share of a range (of its logarithms, if `log`) that counts as an end
DIVERGED = "the loss is no longer a number"  # as peftqa/training/trainer.py prints; it is a result like any other


def distribution(choices: object) -> BaseDistribution:
    """Optuna's form of a list of choices, or of a range `{low: 1, high: 50, log: true}`."""
    try:
        if isinstance(choices, list):
            return CategoricalDistribution(choices)
        whole = isinstance(choices["low"], int) and isinstance(choices["high"], int)
        return (IntDistribution if whole else FloatDistribution)(**choices)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"must be a list of choices or a range with low and high ({one_line(error)})") from None


Choices = Annotated[InstanceOf[BaseDistribution], BeforeValidator(distribution)]
Space = Annotated[dict[str, Choices], Field(min_length=1)]  # by a setting's path: `learning_rate`, `config.r`


class Search(Settings):
    trials: Positive
    seed: Seed
    folds: list[int] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    spaces: dict[str, Space]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="a key under adapters in params.yaml")
    parser.add_argument("--trials", type=int, help=f"how many in all, with earlier ones (default: as in {SEARCH})")
    parser.add_argument("--experiment", help=f"a file in {FOLDER}/ with the parameters that the search starts from")
    options = parser.parse_args()
    search = read_search(options.trials)
    overrides = read_overrides(options.experiment) if options.experiment else {}
    overrides |= {"split.folds": search.folds, "train.seeds": search.seeds}
    base, space = check(search, options.adapter, overrides)
    # So far nothing has been written.
    folder = FOLDER / "-".join(filter(None, [options.experiment, "tune", options.adapter]))
    worker, clone, _held = claim_clone(folder, overrides, files_of(options.experiment) if options.experiment else [])
    name = f"{options.adapter}-{study_digest(options.adapter, base, search.seed, space, clone)}"
    lock = FileLock(folder / "study.lock")  # a process that changes the study holds it, so that no other does
    with lock:
        study = open_study(folder / "study.journal", name, lock)
        if not study.trials:
            given = current_settings(base, options.adapter, space)
            with contextlib.suppress(ValueError):  # a setting is not in the space
                study.add_trial(create_trial(state=TrialState.WAITING, params=given, distributions=space))
        # With one seed, every process and every new start would propose the same settings.
        seed = np.random.SeedSequence([search.seed, len(study.trials), worker]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(seed[0]), constant_liar=True)
    while True:
        with lock:
            put_back(study, folder, worker)
            # Running trials of other processes count too, so that there are never more than wanted.
            if len(study.get_trials(states=(TrialState.COMPLETE, TrialState.RUNNING))) >= search.trials:
                return report(study, space, base, options.adapter, options.experiment, folder)
            trial = study.ask(space)
            trial.set_user_attr("worker", worker)
        settings = {f"adapters.{options.adapter}.{key}": value for key, value in trial.params.items()}
        write_params(clone / workspace.PARAMS, settings, clone / workspace.PARAMS)
        score, epoch = train(clone, options.adapter, search, f"{name}-{trial.number}")
        with lock:
            trial.set_user_attr("epoch", epoch)
            study.tell(trial, score)
            lowest = f"lowest {study.best_value:.4f} (trial {study.best_trial.number})"
        how = "diverged" if epoch is None else f"log loss {score:.4f}, best epoch {epoch:g}"
        chosen = ", ".join(f"{key} {short(value)}" for key, value in trial.params.items())
        print(f"{name}-{trial.number}: {how} with {chosen}; {lowest}", flush=True)


def read_search(wanted: int | None) -> Search:
    """What tuning.yaml says, with another number of trials if one is wanted. Raises UserError if it is not allowed."""
    try:
        search = Search.model_validate(read_yaml(SEARCH))
    except ValidationError as error:
        raise UserError(f"{SEARCH}: {'; '.join(explain(error))}") from None
    if wanted is not None and wanted < 1:
        raise UserError(f"--trials is {wanted}; it must be 1 or more.")
    return search.model_copy(update={"trials": wanted or search.trials})


def check(search: Search, adapter: str, overrides: dict[str, object]) -> tuple[Params, Space]:
    """params.yaml with the overrides, and the adapter's space.

    Raises UserError if the adapter or its space is missing, or if a value of the space is not allowed.
    """
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / workspace.PARAMS
        base = write_params(path, overrides)
        if adapter not in base.adapters:
            raise UserError(f"{workspace.PARAMS} lacks an adapter {adapter!r}; it has: {', '.join(base.adapters)}.")
        settings = base.adapters[adapter].model_dump()
        method = settings.get("config", {}).get("peft_type", settings["method"])
        if method not in search.spaces:
            raise UserError(f"{SEARCH} lacks a space for {method}; it has: {', '.join(search.spaces)}.")
        for key, choices in search.spaces[method].items():
            for value in getattr(choices, "choices", None) or (choices.low, choices.high):
                try:
                    write_params(path.with_name("changed.yaml"), {f"adapters.{adapter}.{key}": value}, path)
                except UserError as error:
                    raise UserError(f"{SEARCH}: spaces.{method}.{key}: {value!r}: {error}") from None
    return base, search.spaces[method]


def claim_clone(folder: Path, overrides: dict[str, object], files: list[Path]) -> tuple[int, Path, FileLock]:
    """The first number that no other process uses, its clone, ready to train, and the lock that keeps it."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    worker, held = next((n, held) for n in count() if (held := hold(folder / f"worker-{n}.lock")))
    clone = folder / f"worker-{worker}"
    prepare(clone, overrides, files)
    if not (clone / CHECKPOINTS).exists():
        # All workers share a folder, so that each can continue what another has begun.
        (clone / CHECKPOINTS).symlink_to(Path("..", "checkpoints"))
    # DVC's standard output is hidden; its errors and the progress bars show, on standard error.
    run_python(*REPRO, "split", "fetch_model", folder=clone)
    return worker, clone, held


def hold(path: Path) -> FileLock | None:
    """The lock, held as long as something refers to it or the process lives; None if another process holds it."""
    lock = FileLock(path)
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
        return lock


def open_study(journal: Path, name: str, lock: FileLock) -> Study:
    """The study of this name in a journal. Raises UserError if the journal is damaged.

    Half a line at its end, which a process leaves if it is killed while it writes, is cut off.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.touch()
    os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
    try:
        # Optuna's own lock of a journal would outlive a killed process for half a minute.
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    except OSError:
        raise
    except Exception as error:  # its class depends on the damage
        raise UserError(
            f"{journal} is damaged ({one_line(error)}); delete the file to begin the search anew. "
            "`make experiments` still lists its finished trials."
        ) from None


def put_back(study: Study, folder: Path, worker: int) -> None:
    """Queue the trials again that an error, Ctrl-C or a kill has ended: they are RUNNING without a process."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        other = trial.user_attrs.get("worker", worker)
        if other == worker or hold(folder / f"worker-{other}.lock"):
            study.enqueue_trial(trial.system_attrs.get("fixed_params", {}) | trial.params)
            study.tell(trial.number, state=TrialState.FAIL)


def train(clone: Path, adapter: str, search: Search, name: str) -> tuple[float, float | None]:
    """Train with the clone's parameters and record that as the experiment `name`; returns its score and best epoch.

    The score is the validation log loss at the best epoch (infinite if a run diverged). Score and epoch are means over
    the runs. Raises UserError if a training failed in another way.
    """
    runs = list(product(search.folds, search.seeds))
    stages = [f"train@{adapter}-{fold}-{seed}" for fold, seed in runs]
    result = run_python(*REPRO, "--single-item", *stages, folder=clone, stderr=subprocess.STDOUT, check=False)
    diverged = result.returncode != 0 and DIVERGED in result.stdout
    if result.returncode and not diverged:
        raise UserError(f"trial {name} failed; what it printed:\n{result.stdout}")
    # The metrics of this commit belong to other settings. A trial has one number, computed on validation only.
    for file in (clone / workspace.METRICS).glob("*"):
        file.unlink()
    score, epoch = float("inf"), None
    if not diverged:
        best = [training_summary(adapter, run, clone)["best"] for run in runs]
        score, epoch = (mean(figures[key] for figures in best) for key in ("val_log_loss", "epoch"))
        write_json(clone / workspace.METRICS / f"{adapter}.json", {"val_log_loss": round(score, 6)})
    # DVC fails on files that are only in git's index, such as the last trial's results.
    git("add", "--update", cwd=clone)
    # A training that diverged has only its settings to save.
    record(clone, name, ["split"] if diverged else stages)
    return score, epoch


def study_digest(adapter: str, base: Params, seed: int, space: Space, clone: Path) -> str:
    """4 hexadecimal digits: a hash of what a score depends on besides the trial's settings. Each digest has its own
    study."""
    used = base.model_dump(include={"data", "split", "model", "template", "train"}) | {
        "adapter": base.adapters[adapter].model_dump(),
        "space": repr(space),
        "seed": seed,
        "code": [digest(clone / path) for path in training_code()],
    }
    return hashlib.sha256(json.dumps(used).encode()).hexdigest()[:4]


def report(study: Study, space: Space, base: Params, adapter: str, experiment: str | None, folder: Path) -> None:
    """Write trials.csv into `folder`, and print the best trials and how to take them over.

    trials.csv has one row per finished trial: trial, val_log_loss (infinite if training diverged), epoch, settings.
    """
    table = pd.DataFrame(
        {"trial": trial.number, "val_log_loss": trial.value, "epoch": trial.user_attrs["epoch"]} | trial.params
        for trial in study.get_trials(states=(TrialState.COMPLETE,))
    )
    if table.empty:
        return print("No trial has finished yet.")
    write_csv(folder / "trials.csv", table)
    if math.isinf(study.best_value):
        return print("Every training has diverged, so there is nothing to take over: lower the rates in tuning.yaml.")
    ranked, best = table.sort_values("val_log_loss", kind="stable"), study.best_params
    print(f"\n{ranked.head(10).to_string(index=False, float_format=short)}")
    for key in filter(lambda key: on_edge(space[key], best[key]), space):
        print(f"\nThe best trial's {key}, {short(best[key])}, is at an end of its range: widen it in tuning.yaml.")
    print(f"\n{take_over(best, base, adapter, len(table), experiment)}")
    print(f"\nEvery trial: {folder / 'trials.csv'} (and as an experiment: make experiments)")


def on_edge(choices: BaseDistribution, value: float | str) -> bool:
    """Whether a value is at an end of its range, if it has one."""
    if isinstance(choices, CategoricalDistribution):
        return False
    low, high, value = map(math.log if choices.log else float, (choices.low, choices.high, value))
    return not EDGE < (value - low) / (high - low) < 1 - EDGE


def current_settings(base: Params, adapter: str, space: Space) -> dict[str, object]:
    """The values in params.yaml of a space's settings; None for a setting that it lacks."""
    values = base.adapters[adapter].model_dump()
    values["schedule"] = values["schedule"] or base.train.schedule
    return {path: reduce(lambda group, key: (group or {}).get(key), path.split("."), values) for path in space}


def take_over(settings: Mapping, base: Params, adapter: str, trials: int, experiment: str | None) -> str:
    """What to type to take over the settings that differ from those at the start, and the number of trials."""
    now = current_settings(base, adapter, settings)
    changes = {f"adapters.{adapter}.{key}": value for key, value in settings.items() if now[key] != value}
    changes[f"tuning.{adapter}"] = f"{{trials: {trials}, protocol: {base.split.protocol}}}"
    if experiment:
        lines = "\n".join(f"{key}: {value}" for key, value in changes.items())
        return f"To use the best, add to experiments/{experiment}.yaml:\n{lines}"
    options = " \\\n  ".join(f"-S '++{key}={value}'" for key, value in changes.items())
    return f"To take the best over:\ndvc exp run {options}"


if __name__ == "__main__":
    run_stage(main)
