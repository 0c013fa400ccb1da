"""Answers to the questions of a CSV file, which is checked before anything is computed.

OUT has a row for each row of IN, in the same order. It is written at the end, whole, and never replaces a file.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from peftqa.ask.answer import Answerer
from peftqa.data.text import decode, read_file, read_rows
from peftqa.errors import UserError

MAX_BYTES = 500_000_000  # of a file that is read whole
NAMES = {"question": ("question",), "abstract": ("abstract", "context")}  # the latter is that of data/split/
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "the character |", ":": "colons"}


def added_columns(labels: Sequence[str]) -> list[str]:
    return ["answer", *(f"p_{label}" for label in labels), "sure", "cut", "error"]


def answer_rows(answerer: Answerer, questions: Sequence[tuple[str, str]]) -> list[list[object]]:
    """The values of `added_columns` for each question and abstract: the answer with details, or the error alone."""
    prompts, added = {}, []
    for number, texts in enumerate(questions):
        try:
            prompts[number] = answerer.encode(*texts)
            added.append([])
        except UserError as error:
            added.append([""] * (len(answerer.task.labels) + 3) + [str(error)])
    for number, answer in zip(prompts, answerer.answer(list(prompts.values())), strict=True):
        sure = "" if answer.sure is None else str(answer.sure).lower()
        added[number] = [answer.label, *answer.probabilities.values(), sure, len(prompts[number].cut), ""]
    return added


def read_questions(source: Path, added: Sequence[str]) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """The columns and the rows of a CSV file, and question and abstract of each row.

    It must have one column question, one column abstract (or context), and none of those that are added; names are
    compared without case and outer spaces. Raises UserError for other columns, malformed CSV or a file without rows.
    """
    csv.field_size_limit(MAX_BYTES)
    text = decode(read_file(source, MAX_BYTES), source, "CSV UTF-8")
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    found = {sign: all(find_columns(next(csv.reader([first], delimiter=sign), []))) for sign in (",", *SEPARATORS)}
    if not found[","] and any(found.values()):
        other = next(name for sign, name in SEPARATORS.items() if found[sign])
        raise UserError(f"{source}: it seems to be separated by {other}; save it with commas.")
    columns, *rows = [*read_rows(text, source)] or [[]]
    question, abstract = find_columns(columns)
    if len(question) != 1 or len(abstract) != 1:
        raise UserError(
            f"{source} must name one column question and one column abstract (or context) in its first line; its "
            f"columns are: {', '.join(columns)[:200] or 'none'}."
        )
    if taken := [name for name in columns if name.strip().casefold() in added]:
        raise UserError(f"{source} has a column {taken[0].strip()} already; rename it.")
    if not rows:
        raise UserError(f"{source} has only its first line; add rows with questions.")
    return columns, rows, [(row[question[0]], row[abstract[0]]) for row in rows]


def find_columns(columns: Sequence[str]) -> list[list[int]]:
    """Positions of the columns that may be the question, and of those that may be the abstract."""
    return [[at for at, name in enumerate(columns) if name.strip().casefold() in names] for names in NAMES.values()]


def check_target(target: Path) -> None:
    """Raise UserError if `target` exists, and OSError if no file can be made beside it."""
    with contextlib.suppress(FileNotFoundError):
        target.lstat()  # a link that leads nowhere exists too
        raise UserError(f"{target} exists already; delete it, or name another file.")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target.parent)) from None


def write_rows(target: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, all or nothing. Raises UserError if `target` exists by now."""
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("x", encoding="utf-8", newline="") as file:
            # csv quotes a cell that has a character of its line end, so that is \r\n here.
            unix = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
            csv.writer(unix).writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, target)  # unlike a rename it replaces nothing
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):  # of a disk without links, such as a memory stick
                raise
            check_target(target)
            partial.rename(target)
    except FileExistsError:
        raise UserError(f"{target} was made by another program meanwhile; name another file.") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        partial.unlink(missing_ok=True)
