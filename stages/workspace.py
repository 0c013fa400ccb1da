"""Where files lie in the repository, and how a stage starts, reads and writes. Stages run in the repository's root."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftqa import program
from peftqa.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

end_with_parent = program.end_with_parent  # for what starts DVC

PARAMS = Path("params.yaml")
RAW_RECORDS = Path("data/raw/ori_pqal.json")
RAW_TEST_IDS = Path("data/raw/test_ground_truth.json")
CLEAN_TABLE = Path("data/clean/pubmedqa.csv")
CLEAN_COUNTS = Path("data/clean/counts.json")
CHECKPOINTS = Path(".checkpoints")
METRICS = Path("metrics")
EVALUATION = Path("evaluation")
COMPARISON = Path("comparison")
REPORT = Path("report")
RELEASE = Path("release")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage, which ends as peftqa/program.py says; what the library logs is printed."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peftqa").setLevel(logging.INFO)
    program.run(main)


def check_inside(setting: str, path: str) -> None:
    """Raise UserError where a relative `path` leads out of the repository.

    An experiment runs in another folder, where the same path would mean another file.
    """
    if not Path(path).is_absolute() and not Path(path).resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"{setting}: {path!r} leads out of the repository, and experiments run in a folder of their own, where it "
            "leads elsewhere; give an absolute path, or one inside the repository"
        )


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
