"""Files of the pipeline: read with an error that says what to do, and written whole or not at all. Imports no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftqa.errors import UserError, one_line

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["id", "question", "context", "label"]
REMAKE = "delete the file and run `dvc repro` to have it made anew."


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of COLUMNS, all of them text. Raises UserError where it is missing, damaged or another table."""
    table = read_csv(path, str)
    if list(table.columns) != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(table.columns)} instead of {', '.join(COLUMNS)}")
    return table


def read_csv(path: Path, dtype: type | dict[str, type] | None = None, separator: str = ",") -> pd.DataFrame:
    """A table that a stage wrote. Text stays what it is: "NA" or "null" is no missing value.

    Raises UserError if the file is missing or is not such a table.
    """
    import pandas as pd  # what only downloads does without

    try:
        table = pd.read_csv(path, dtype=dtype, sep=separator, keep_default_na=False, encoding="utf-8")
        if not isinstance(table.index, pd.RangeIndex):  # pandas makes surplus values row names
            raise ValueError("it has rows with more values than columns")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except ValueError as error:  # pandas' parser errors and wrong encodings are kinds of it
        raise UserError(f"{path} is damaged ({one_line(error)}); {REMAKE}") from None
    return table


def read_json(path: Path) -> dict:
    """The JSON object in a file. Raises UserError where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); {REMAKE}") from None


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
