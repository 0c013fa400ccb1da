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


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of COLUMNS, all of them text. Raises UserError if it is missing, damaged or another table."""
    table = read_csv(path, str)
    if list(table.columns) != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(table.columns)} instead of {', '.join(COLUMNS)}")
    return table


def read_csv(path: Path, dtype: type | dict[str, type] | None = None) -> pd.DataFrame:
    """A table that a stage wrote; text such as "NA" stays text. Raises UserError if it is missing or damaged."""
    import pandas as pd  # here, because the stage `download` does not need it

    with reading(path):
        table = pd.read_csv(path, dtype=dtype, keep_default_na=False, encoding="utf-8")
        if not isinstance(table.index, pd.RangeIndex):  # surplus values become row names
            raise ValueError("it has rows with more values than columns")
        return table


def read_json(path: Path) -> dict:
    """The JSON object in a file. Raises UserError if it is missing or damaged."""
    with reading(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises UserError if the block finds that an output of the pipeline is missing or damaged."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except (KeyError, TypeError, ValueError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise UserError(
            f"{path} is damaged ({one_line(error)}); delete it and run `dvc repro` to make it again."
        ) from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which is renamed to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    remove(partial)  # of a process that was killed
    try:
        yield partial
        if path.is_dir():  # a rename replaces a file, but not a folder with files
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
    """Delete a file, or a folder with all that is in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, floats as they are. The folder is created if it is missing."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index. The folder is created if it is missing."""
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)
