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
from itertools import count, product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback, Study
from optuna.trial import Trial, TrialState
from pydantic import Field, ValidationError, model_validator

from experiments import trials
from experiments.clone import explain_untracked, prepare, record, untracked_modules
from experiments.git import git
from experiments.overrides import FOLDER, files_of, read_overrides, write_params
from experiments.runs import REPRO, environment, run_python
from peftqa import program
from peftqa.config.errors import explain
from peftqa.config.params import Params, Seed, read_params, read_yaml
from peftqa.config.settings import Positive, Settings
from peftqa.data.digest import digest
from peftqa.data.files import write_json
from peftqa.errors import UserError, one_line
from stages import run_stage, workspace
from stages.runs import CHECKPOINTS, training_code
from stages.summary import training_summary

SEARCH = Path("tuning.yaml")
DIVERGED = "the loss is no longer a number"  # as peftqa/training/trainer.py prints; it is a result like any other
EDGE = 0.05  # part of a range, in logarithms if it is searched so, that counts as its end
Choice = str | int | float | bool


class Range(Settings):
    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if type(self.low) is not type(self.high):
            raise ValueError("low and high must both be whole numbers, or both have a decimal point")
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be less than high, and more than 0 with log")
        return self

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def on_edge(self, value: float) -> bool:
        low, high, value = (math.log(end) if self.log else end for end in (self.low, self.high, value))
        return not EDGE < (value - low) / (high - low) < 1 - EDGE


# Choices or a range, by a setting's path in the adapter: `learning_rate`, `config.r`.
Space = Annotated[dict[str, Annotated[list[Choice], Field(min_length=2)] | Range], Field(min_length=1)]


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
    try:
        search = Search.model_validate(read_yaml(SEARCH))
    except ValidationError as error:
        raise UserError(f"{SEARCH}: {'; '.join(explain(error))}") from None
    wanted = search.trials if options.trials is None else options.trials
    if wanted < 1:
        raise UserError(f"--trials is {wanted}; it must be 1 or more.")
    overrides = read_overrides(options.experiment) if options.experiment else {}
    overrides |= {"split.folds": search.folds, "train.seeds": search.seeds}
    text, base, space = check(search, options.adapter, overrides)
    # So far nothing has been written.
    folder = FOLDER / "-".join(filter(None, [options.experiment, "tune", options.adapter]))
    worker, clone, _held = claim_clone(folder, overrides, files_of(options.experiment) if options.experiment else [])
    name = f"{options.adapter}-{study_digest(options.adapter, base, search.seed, space, clone)}"
    lock = FileLock(folder / "study.lock")

    def objective(trial: Trial) -> float:
        trial.set_user_attr("worker", worker)
        settings = {f"adapters.{options.adapter}.{key}": suggest(trial, key, space[key]) for key in space}
        lock.release()
        try:
            write_params(clone / workspace.PARAMS, settings, text)
            score, epoch = train(clone, options.adapter, search, f"{name}-{trial.number}")
        finally:
            lock.acquire()
        trial.set_user_attr("epoch", epoch)
        return score

    # Except while it trains, a process holds the lock, so that no other changes the study.
    with lock:
        study = open_study(folder / "study.journal", name, lock)
        given = trials.current_settings(base, options.adapter, space)
        if not study.trials and all(given[key] in space[key] for key in space):
            study.enqueue_trial(given)
        put_back(study, space, folder, worker)
        # With one seed, every process and every new start would propose the same settings.
        seed = np.random.SeedSequence([search.seed, len(study.trials), worker]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(seed[0]), constant_liar=True)
        # Running trials of other processes count too, so that there are never more than wanted.
        counted = (TrialState.COMPLETE, TrialState.RUNNING)
        callbacks = (
            lambda study, trial: print(trials.progress(study, trial, wanted), flush=True),
            lambda study, _: put_back(study, space, folder, worker),
            MaxTrialsCallback(wanted, states=counted),
        )
        if len(study.get_trials(states=counted)) < wanted:
            study.optimize(objective, callbacks=callbacks)
        trials.report(study, space, base, options.adapter, options.experiment, folder)


def check(search: Search, adapter: str, overrides: dict[str, object]) -> tuple[str, Params, Space]:
    """params.yaml with the overrides, as text and read, and the adapter's space.

    Raises UserError if the adapter or its space is missing, or if a value of the space is not allowed.
    """
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / workspace.PARAMS
        write_params(path, overrides)
        text, base = path.read_text(encoding="utf-8"), read_params(path)
        if adapter not in base.adapters:
            raise UserError(f"{workspace.PARAMS} lacks an adapter {adapter!r}; it has: {', '.join(base.adapters)}.")
        settings = base.adapters[adapter].model_dump()
        method = settings.get("config", {}).get("peft_type", settings["method"])
        if method not in search.spaces:
            raise UserError(f"{SEARCH} lacks a space for {method}; it has: {', '.join(search.spaces)}.")
        for key, choices in search.spaces[method].items():
            for value in choices if isinstance(choices, list) else (choices.low, choices.high):
                try:
                    write_params(path, {f"adapters.{adapter}.{key}": value}, text)
                except UserError as error:
                    raise UserError(f"{SEARCH}: spaces.{method}.{key}: {value!r}: {error}") from None
    return text, base, search.spaces[method]


def claim_clone(folder: Path, overrides: dict[str, object], files: list[Path]) -> tuple[int, Path, FileLock]:
    """The first number that no other process uses, its clone, ready to train, and the lock that keeps it."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    worker, held = next((n, held) for n in count() if (held := hold(folder / f"worker-{n}.lock")))
    clone = folder / f"worker-{worker}"
    prepare(clone, overrides, files)
    if not (clone / CHECKPOINTS).exists():
        # All workers share a folder, so that each can continue what another has begun.
        (clone / CHECKPOINTS).symlink_to(Path("..", "checkpoints"))
    with explain_untracked():
        # Of what DVC prints, its errors and the stages' progress bars remain: they go to standard error.
        run_python(*REPRO[1:], "split", "fetch_model", folder=clone, stdout=subprocess.PIPE)
    return worker, clone, held


def hold(path: Path) -> FileLock | None:
    """The lock, held as long as something refers to it; None if another process, on any machine, holds it.

    The file system frees the lock of a killed process.
    """
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
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    except OSError:
        raise
    except Exception as error:  # its class depends on the damage
        raise UserError(
            f"{journal} is damaged ({one_line(error)}); delete the file to begin the search anew. "
            "`make experiments` still lists its finished trials."
        ) from None


def put_back(study: Study, space: Space, folder: Path, worker: int) -> None:
    """Queue the trials again that an error or Ctrl-C ended, or whose process has ended."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        other = trial.user_attrs.get("worker", worker)
        if other == worker or hold(folder / f"worker-{other}.lock"):
            study.tell(trial.number, state=TrialState.FAIL)
    failed, others = [], []
    for trial in study.get_trials():
        settings = trial.system_attrs.get("fixed_params", {}) | trial.params
        (failed if trial.state == TrialState.FAIL else others).append(settings)
    for settings in failed:
        # A trial that lacks a setting had not begun to train.
        if settings.keys() == space.keys() and settings not in others:
            study.enqueue_trial(settings)
            others.append(settings)


def suggest(trial: Trial, key: str, choices: list[Choice] | Range) -> Choice:
    if isinstance(choices, list):
        return trial.suggest_categorical(key, choices)
    kind = trial.suggest_int if isinstance(choices.low, int) else trial.suggest_float
    return kind(key, choices.low, choices.high, log=choices.log)


def train(clone: Path, adapter: str, search: Search, name: str) -> tuple[float, float | None]:
    """Train with the clone's parameters and record that as the experiment `name`; returns its score and best epoch.

    The score is the validation log loss at the best epoch, or infinite if a run diverged; both are means over the runs.
    Raises UserError if a training failed in another way.
    """
    runs = list(product(search.folds, search.seeds))
    stages = [f"train@{adapter}-{fold}-{seed}" for fold, seed in runs]
    command, end = [*REPRO, "--single-item", *stages], program.end_with_parent
    result = subprocess.run(command, cwd=clone, env=environment(), capture_output=True, text=True, preexec_fn=end)
    printed = result.stdout + result.stderr
    diverged = result.returncode != 0 and DIVERGED in printed
    if result.returncode and not diverged:
        raise UserError(f"trial {name} failed; what it printed:\n{printed} {untracked_modules()}")
    # The metrics of this commit belong to other settings. A trial has one number, which no test question decides.
    for file in (clone / workspace.METRICS).glob("*"):
        file.unlink()
    score, epoch = float("inf"), None
    if not diverged:
        best = [training_summary(adapter, run, clone)["best"] for run in runs]
        score, epoch = (mean(figures[key] for figures in best) for key in ("val_log_loss", "epoch"))
        write_json(clone / workspace.METRICS / f"{adapter}.json", {"val_log_loss": round(score, 6)})
    # DVC fails on a file that is only in git's index, as results of the trial before are.
    git("add", "--update", cwd=clone)
    # A training that diverged has only its settings to save.
    record(clone, name, ["split"] if diverged else stages)
    return score, epoch


def study_digest(adapter: str, base: Params, seed: int, space: Space, clone: Path) -> str:
    """4 hexadecimal digits of all that a score depends on besides a trial's settings. Each digest has its own study."""
    used = base.model_dump(include={"data", "split", "model", "template", "train"}) | {
        "adapter": base.adapters[adapter].model_dump(),
        "space": repr(space),
        "seed": seed,
        "code": [digest(clone / path) for path in training_code()],
    }
    return hashlib.sha256(json.dumps(used).encode()).hexdigest()[:4]


if __name__ == "__main__":
    run_stage(main)
