"""Where files lie in the repository, and how a stage starts, reads and writes. Stages run in the repository's root."""

from __future__ import annotations

import csv
import ctypes
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftqa.config.params import Params, read_yaml
from peftqa.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PR_SET_PDEATHSIG = 1  # prctl's option (<linux/prctl.h>): the signal to receive when the parent ends

PARAMS = Path("params.yaml")
RAW_RECORDS = Path("data/raw/ori_pqal.json")
RAW_TEST_IDS = Path("data/raw/test_ground_truth.json")
CLEAN_TABLE = Path("data/clean/pubmedqa.csv")
CLEAN_COUNTS = Path("data/clean/counts.json")
SPLIT = Path("data/split")
BASE_MODEL = Path("models/base")
ADAPTERS = Path("models/adapters")
CHECKPOINTS = Path(".checkpoints")
METRICS = Path("metrics")
PREDICTIONS = Path("predictions")
EVALUATION = Path("evaluation")
COMPARISON = Path("comparison")
TRAINING_CURVES = Path("plots/training")
REPORT = Path("report")
RUNTIME = Path("runtime")
RELEASE = Path("release")


def fold_table(fold: int, split: str) -> Path:
    """The table of "train", "val" or "test" in a fold."""
    return SPLIT / f"fold-{fold}" / f"{split}.csv"


def run_path(folder: Path, name: str, run: tuple[int, int], suffix: str = "") -> Path:
    """The file or folder of one run below `folder`. name: the adapter or variant; run: its fold and seed."""
    return folder / name / f"fold-{run[0]}" / f"seed-{run[1]}{suffix}"


def run_paths(folder: Path, names: Iterable[str], params: Params, suffix: str = "") -> list[Path]:
    """The files or folders of every run of some variants below `folder`."""
    return [run_path(folder, name, run, suffix) for name in names for run in params.runs(name)]


def training_code() -> list[Path]:
    """The code of this repository that training depends on, as dvc.yaml says."""
    deps = read_yaml(Path("dvc.yaml"))["stages"]["train"]["deps"]
    return [Path(dep) for dep in deps if Path(dep).parts[0] in ("peftqa", "stages")]


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage, which ends as stages/__init__.py says."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peftqa").setLevel(logging.INFO)
    if "DVC_STAGE" in os.environ:
        end_with_parent()
    main()


def end_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it ends, even if that one is killed.

    A stage that outlives a killed DVC would write the same files as the next `dvc repro`, at the same time.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stage_key() -> str:
    """The part of this stage's name after the @: `prompt-0-42` in `train@prompt-0-42`.

    From the command line where a person runs the stage, else from DVC, which puts the name into DVC_STAGE. So the
    commands in dvc.yaml hold no parameter, and no value of params.yaml ever reaches a shell.
    """
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        return sys.argv[1]
    _, at, key = os.environ.get("DVC_STAGE", "").partition("@")
    if len(sys.argv) > 1 or not at:
        module = Path(sys.argv[0]).stem
        raise UserError(f"say which run, as `dvc stage list` has it after {module}@: python -m stages.{module} NAME")
    return key


def find_run(key: str, params: Params, variants: Iterable[str]) -> tuple[str, int, int]:
    """Variant, fold and seed of `prompt-0-42`, or `base-0` without training. Raises UserError unless params.yaml has
    such a run of one of the variants."""
    known = params.named_runs(variants)
    if key not in known:
        raise UserError(
            f"no run {key!r} in {PARAMS}: a run is ADAPTER-FOLD-SEED, or VARIANT-FOLD where nothing is trained, with "
            f"one of {', '.join(variants)}, a fold of split.folds {params.split.folds} and a seed of train.seeds "
            f"{params.train.seeds}."
        )
    return known[key]


def check_inside(setting: str, path: str) -> None:
    """Raise UserError where a relative `path` leads out of the repository.

    An experiment runs in another folder, where the same path would mean another file.
    """
    if not Path(path).is_absolute() and not Path(path).resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"{setting}: {path!r} leads out of the repository, and experiments run in a folder of their own, where it "
            "leads elsewhere; give an absolute path, or one inside the repository"
        )


def epochs_table(name: str, run: tuple[int, int], root: Path = Path()) -> Path:
    """The table of a run's epochs: epoch, step, loss, val_loss, val_log_loss, val_accuracy, val_macro_f1."""
    return root / run_path(TRAINING_CURVES, name, run) / "epochs.csv"


def training_summary(name: str, run: tuple[int, int], root: Path = Path()) -> dict:
    """Summary of a finished training: its last `epoch`, and under `best` the figures of the epoch that was kept.

    A search compares settings by these, and `publish` chooses which run of an adapter to release. Raises UserError if
    the table of epochs is missing or damaged.
    """
    path = epochs_table(name, run, root)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            epochs = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        best = min(epochs, key=lambda epoch: epoch["val_log_loss"])
        return {"epoch": int(epochs[-1]["epoch"]), "best": best | {"epoch": int(best["epoch"])}}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro` to have it made anew.") from None


def read_json(path: Path) -> dict:
    """The JSON object in a file. Raises UserError where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro` to have it made anew.") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to; it is renamed to `path` when the block ends without an error.

    So what a failed or killed write leaves never looks finished.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    remove(partial)  # of a process that was killed
    try:
        yield partial
        if path.is_dir():  # a rename replaces a file, but no folder that holds files
            remove(path)
        partial.replace(path)
    except Exception as error:
        # An error of write() carries no file name: the system knows the file by a number.
        if not getattr(error, "filename", None):
            error.filename = str(path)
        raise
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, floats as they are, creating the folder where it is missing."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index, creating the folder where it is missing."""
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)


def remove_stale(folder: Path, expected: Iterable[Path]) -> None:
    """Delete the files below `folder` that are none of `expected` and in none of them.

    DVC leaves the files of a dropped seed, fold or adapter lying. A stage that depends on the whole folder would hash
    them, and its entry in dvc.lock would then differ from that of a clone in which they never were. DVC's cache keeps
    them: listing the seed again brings them back.
    """
    expected = set(expected)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that hold them
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif not expected & {path, *path.parents}:
            path.unlink()
