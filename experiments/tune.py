"""Search an adapter's settings on validation alone: python -m experiments.tune prefix --trials 20

tuning.yaml says what is searched. Each trial trains the adapter once a fold and seed named there, in a clone of this
repository (experiments/tune-ADAPTER/), and becomes a DVC experiment; nothing predicts, and nothing reads a test
question. The study is a journal of Optuna's in that folder. Killed, a search goes on when it is started again, a trial
cut short at its last epoch; started twice, on one machine or on several that share the folder, both work on one study.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Annotated

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from pydantic import Field, ValidationError, field_validator, model_validator

from experiments import trials
from experiments.__main__ import FOLDER, prepare, read_overrides, record, write_params
from experiments.runs import REPRO, duration, environment, run_python
from experiments.table import short
from peftqa.config.params import METHOD_BY_NAME, Params, Seed, read_params, read_yaml
from peftqa.config.settings import Positive, Settings
from peftqa.errors import UserError
from peftqa.fetch.digest import digest
from stages import workspace
from stages.runs import runs_of, training_code
from stages.summary import training_summary

SEARCH = Path("tuning.yaml")
# What peftqa/training/trainer.py prints if a training has diverged, which is a result like any other.
DIVERGED = "the loss is no longer a number"
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
            raise ValueError("low must be less than high, and with log more than 0")
        return self

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


Space = dict[str, Annotated[list[Choice], Field(min_length=2)] | Range]


class Search(Settings):
    trials: Positive
    seed: Seed
    folds: list[int] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    spaces: dict[str, Space]

    @field_validator("spaces")
    @classmethod
    def _settings_exist(cls, spaces: dict[str, Space]) -> dict[str, Space]:
        for method, space in spaces.items():
            if method not in METHOD_BY_NAME:
                raise ValueError(f"no method {method!r}; there are: {', '.join(METHOD_BY_NAME)}")
            unknown = space.keys() - METHOD_BY_NAME[method].model_fields.keys()
            if unknown:
                raise ValueError(f"{method} has no setting {min(unknown)!r}")
        return spaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="a key under adapters in params.yaml")
    parser.add_argument("--trials", type=int, help=f"how many in all, those of earlier calls too (default: {SEARCH}'s)")
    parser.add_argument("--experiment", help=f"a file of {FOLDER}/ whose parameters are searched from")
    options = parser.parse_args()
    search = read_search()
    wanted = search.trials if options.trials is None else options.trials
    if wanted < 1:
        raise UserError(f"--trials is {wanted}; it must be 1 or more.")
    overrides = read_overrides(options.experiment) if options.experiment else {}
    overrides |= {"split.folds": search.folds, "train.seeds": search.seeds}
    folder = FOLDER / "-".join(filter(None, [options.experiment, "tune", options.adapter]))
    with claim_clone(folder) as (number, clone):
        prepare(clone, overrides)
        if "data.source" in overrides:
            os.environ.pop("PUBMEDQA_SOURCE", None)  # it would lead to other data than the experiment's
        searcher = Searcher(options.adapter, search, folder, clone, number)
        run_python(*REPRO[1:], "--quiet", "split", "fetch_model", folder=clone)
        searcher.work(wanted)
        trials.report(searcher.study, searcher.space, searcher.base, options.adapter, options.experiment, folder)


def read_search() -> Search:
    """tuning.yaml, checked. Raises UserError."""
    try:
        return Search.model_validate(read_yaml(SEARCH))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UserError(f"{SEARCH}: {'; '.join(faults)}") from None


@contextlib.contextmanager
def claim_clone(folder: Path) -> Iterator[tuple[int, Path]]:
    """The first number that no other process works under, and the clone of that number; held until the end.

    The file system frees a killed process's lock, on whatever machine it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        lock = worker_lock(folder, number)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield number, folder / f"worker-{number}"
        finally:
            lock.release()
        return


def worker_lock(folder: Path, number: int) -> FileLock:
    return FileLock(folder / f"worker-{number}.lock")


class Searcher:
    """One adapter's search, as one process works on it."""

    def __init__(self, adapter: str, search: Search, folder: Path, clone: Path, number: int) -> None:
        self.adapter, self.seed, self.folder, self.clone, self.number = adapter, search.seed, folder, clone, number
        # As it was when the search began: what is edited meanwhile belongs to another study.
        self.text = (clone / "params.yaml").read_text(encoding="utf-8")
        self.base = read_params(clone / "params.yaml")
        if adapter not in self.base.adapters:
            raise UserError(
                f"no adapter {adapter!r} in {workspace.PARAMS}; there are: {', '.join(self.base.adapters)}."
            )
        method = self.base.adapters[adapter].method
        if method not in search.spaces:
            raise UserError(f"{SEARCH} has no space for the method {method}; it has: {', '.join(search.spaces)}.")
        self.space = search.spaces[method]
        self.stages = [f"train@{adapter}-{fold}-{seed}" for fold, seed in runs_of(adapter, self.base)]
        self.lock = FileLock(folder / "study.lock")
        self.name = f"{adapter}-{study_digest(adapter, self.base, search, self.space)}"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        with self.lock:
            storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
            self.study = optuna.create_study(storage=storage, study_name=self.name, load_if_exists=True)

    def work(self, wanted: int) -> None:
        """Run trials until there are `wanted`, or other processes are at the last of them."""
        seconds: list[float] = []
        while (trial := self.next_trial(wanted)) is not None:
            began = time.monotonic()
            settings = {setting: suggest(trial, setting, choices) for setting, choices in self.space.items()}
            score, epoch = self.run(trial.number, settings)
            with self.lock:
                trial.set_user_attr("epoch", epoch)
                self.study.tell(trial.number, score)
            seconds.append(time.monotonic() - began)
            left = wanted - len(trials.finished(self.study))
            rest = f"{left} left, about {duration(mean(seconds) * left)}" if left > 0 else "none left"
            shown = ", ".join(f"{key} {short(value)}" for key, value in settings.items())
            print(
                f"{self.name}-{trial.number}: {trials.described(score, epoch)} with {shown}; "
                f"lowest {self.study.best_value:.4f} (trial {self.study.best_trial.number}); {rest}",
                flush=True,
            )

    def next_trial(self, wanted: int) -> Trial | None:
        """One that a killed process has left, else a new one; None where there are enough.

        A process marks its trials with its number, which it holds a lock on: a running trial whose lock is free has
        nobody. Its settings are kept, so it is run to its end and not a second time.
        """
        with self.lock:
            existing = self.study.get_trials(deepcopy=False)
            for other in existing:
                if other.state == TrialState.RUNNING and self.is_free(other.user_attrs.get("worker", self.number)):
                    trial = Trial(self.study, other._trial_id)
                    break
            else:
                if len(existing) >= wanted and not any(t.state == TrialState.WAITING for t in existing):
                    return None
                if not existing:
                    self.enqueue_base()
                # A sampler's random numbers begin anew with every process: seeded alike, all would propose the same.
                number = sum(t.state != TrialState.WAITING for t in existing)
                self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + number, constant_liar=True)
                trial = self.study.ask()
            trial.set_user_attr("worker", self.number)
            for setting, choices in self.space.items():
                suggest(trial, setting, choices)
        return trial

    def is_free(self, number: int) -> bool:
        if number == self.number:
            return True  # this process is between two trials
        lock = worker_lock(self.folder, number)
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False

    def enqueue_base(self) -> None:
        """Let the first trial be what params.yaml has, where that lies in the space."""
        given = self.base.adapters[self.adapter].model_dump()
        given["schedule"] = given["schedule"] or self.base.train.schedule
        settings = {setting: given[setting] for setting in self.space}
        if all(settings[setting] in choices for setting, choices in self.space.items()):
            self.study.enqueue_trial(settings, skip_if_exists=True)

    def run(self, number: int, settings: dict[str, Choice]) -> tuple[float, float | None]:
        """Train with these settings, and record the trial for DVC; returns its score and its best epoch.

        Both are means over runs: of the validation log loss at the best epoch, infinite where a run diverged, and of
        that epoch.
        """
        path = self.clone / "params.yaml"
        write_params(path, {f"adapters.{self.adapter}.{key}": value for key, value in settings.items()}, self.text)
        result = subprocess.run(
            [*REPRO, "--single-item", *self.stages],
            cwd=self.clone,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=workspace.end_with_parent,
        )
        diverged = result.returncode != 0 and DIVERGED in result.stdout
        if result.returncode and not diverged:
            raise UserError(f"trial {number} failed; what it printed:\n{result.stdout}")
        # The numbers of this commit belong to its own settings. A trial has one, and no test question has a part in it.
        for file in (self.clone / workspace.METRICS).glob("*"):
            file.unlink()
        runs = [] if diverged else runs_of(self.adapter, self.base)
        best = [training_summary(self.adapter, run, self.clone)["best"] for run in runs]
        score, epoch = float("inf"), None
        if best:
            score, epoch = (mean(figures[key] for figures in best) for key in ("val_log_loss", "epoch"))
            row = {"val_log_loss": round(score, 6)}
            workspace.write_json(self.clone / workspace.METRICS / f"{self.adapter}.json", row)
        # Of a training that diverged there is nothing to save but its settings.
        record(self.clone, f"{self.name}-{number}", self.stages if best else ["split"])
        return score, epoch


def suggest(trial: Trial, setting: str, choices: list[Choice] | Range) -> Choice:
    """What the trial has for a setting; asked again, it answers the same."""
    if isinstance(choices, list):
        return trial.suggest_categorical(setting, choices)
    kind = trial.suggest_int if isinstance(choices.low, int) else trial.suggest_float
    return kind(setting, choices.low, choices.high, log=choices.log)


def study_digest(adapter: str, base: Params, search: Search, space: Space) -> str:
    """What a score depends on besides a trial's settings, in 4 hexadecimal digits: scores of others never mix.

    The parameters that training reads, the space, and the code that dvc.yaml names for the stage `train`.
    """
    used = base.model_dump(include={"data", "split", "model", "template", "train"}) | {
        "adapter": base.adapters[adapter].model_dump(),
        "space": {setting: repr(choices) for setting, choices in space.items()},
        "seed": search.seed,
        "code": [digest(path) for path in training_code()],
    }
    return hashlib.sha256(json.dumps(used).encode()).hexdigest()[:4]


if __name__ == "__main__":
    workspace.run_stage(main)
