"""Answers to the questions of a CSV file, which is checked before anything is computed.

OUT has a row for each row of IN, in the same order. It is written at the end, all or nothing, and over no other file.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from peftqa.ask.answer import Answerer
from peftqa.errors import UserError

MAX_BYTES = 500_000_000  # of a file that is read whole
NAMES = {"question": ("question",), "abstract": ("abstract", "context")}  # the latter is that of data/split/
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "the character |", ":": "colons"}
FORMATS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "an Excel workbook or another ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
}


class Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]  # each as long as columns
    question: int  # positions in columns
    abstract: int


def added_columns(labels: Sequence[str]) -> list[str]:
    return ["answer", *(f"p_{label}" for label in labels), "sure", "cut", "error"]


def answer_rows(answerer: Answerer, table: Table) -> list[list[object]]:
    """The values of `added_columns` for each row: answer, probabilities, sure and cut, or else the error alone."""
    prompts, errors = {}, {}
    for number, row in enumerate(table.rows):
        try:
            prompts[number] = answerer.encode(row[table.question], row[table.abstract])
        except UserError as error:
            errors[number] = str(error)
    answers = dict(zip(prompts, answerer.answer(list(prompts.values())) if prompts else [], strict=True))
    added = []
    for number in range(len(table.rows)):
        if number in errors:
            added.append([""] * (len(answerer.task.labels) + 3) + [errors[number]])
            continue
        answer = answers[number]
        sure = "" if answer.sure is None else str(answer.sure).lower()
        added.append([answer.label, *answer.probabilities.values(), sure, len(prompts[number].cut), ""])
    return added


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_table(source: Path, added: Sequence[str]) -> Table:
    """A CSV file with one column question and one column abstract (or context), and none of those that are added.

    Names are compared without case and outer spaces. Raises UserError if the file is not well-formed or has no rows.
    """
    csv.field_size_limit(MAX_BYTES)
    text = decode(read_file(source, MAX_BYTES), source, "CSV UTF-8")
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    if not all(find_columns(split_line(first))):
        for separator, name in SEPARATORS.items():
            if all(find_columns(split_line(first, separator))):
                raise UserError(f"{source}: it seems to be separated by {name}; save it with commas.")
    columns, *rows = [*read_rows(text, source)] or [[]]
    question, abstract = find_columns(columns)
    if len(question) != 1 or len(abstract) != 1:
        raise UserError(
            f"{source} must have one column question and one column abstract (or context), named in its first line; its "
            f"columns are: {', '.join(columns)[:200] or 'none'}."
        )
    if taken := [name for name in columns if normal(name) in added]:
        raise UserError(f"{source} has a column {taken[0]} already; rename it.")
    if not rows:
        raise UserError(f"{source} has no rows below its first line.")
    return Table(columns, rows, question[0], abstract[0])


def normal(name: str) -> str:
    return name.strip().casefold()


def split_line(line: str, separator: str = ",") -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def find_columns(columns: Sequence[str]) -> list[list[int]]:
    """Positions of the columns that may be the question, and of those that may be the abstract."""
    return [[at for at, name in enumerate(columns) if normal(name) in names] for names in NAMES.values()]


def read_rows(text: str, source: Path) -> Iterator[list[str]]:
    """The rows of a CSV file but empty lines, the first one among them. Raises UserError unless all are equally long."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin, width = 1, None
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise UserError(f"{source}: line {begin} has {len(row)} cells, and the first line has {width}.")
            if row:
                yield row
            begin = reader.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):
            problem = "opens a quote that is never closed"
        elif reader.line_num > begin:
            problem = f"opens a quote that is never closed: the next one, in line {reader.line_num}, is inside a cell"
        else:
            problem = 'has a quote inside a quoted cell; write it twice ("")'
        raise UserError(f"{source}: line {begin} {problem}.") from None


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file or of a pipe. Raises UserError if it is something else, or longer than `limit`."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device"
        raise UserError(f"{path} is {kind}; name a file, or /dev/stdin for a pipe.")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path} is longer than {limit:,} bytes; split it.")
    return content


def decode(content: bytes, source: Path | str, wanted: str = "UTF-8") -> str:
    """The text in a file. Raises UserError, which says what it seems to be, if it is not UTF-8 or has a NUL byte.

    wanted: what to save it as.
    """
    seems = next((name for start, name in FORMATS.items() if content.startswith(start)), "")
    if seems or content[:1000].count(0) > len(content[:1000]) / 4:
        raise UserError(f"{source}: it seems to be {seems or 'UTF-16'}; save it as {wanted}.")
    try:
        text, bad = content.decode("utf-8-sig"), content.find(0)
        if bad < 0:
            return text
        problem = "has a NUL byte, so that the file is damaged or not a text"
    except UnicodeDecodeError as error:
        bad = error.start
        others = content.translate(None, bytes(range(128)))
        letters = len(others) < len(content) / 5 and not set(others) & {0x81, 0x8D, 0x8F, 0x90, 0x9D}
        is_1252 = letters and content.decode("utf-8", "ignore").isascii()
        problem = f"is not UTF-8; it seems to be {'Windows-1252' if is_1252 else 'in another encoding, or damaged'}"
    raise UserError(f"{source}: line {len(content[: bad + 1].splitlines())} {problem}: save it as {wanted}.")


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def check_target(target: Path) -> None:
    """Raise UserError if `target` exists, or if no file can be made beside it."""
    try:
        target.lstat()
    except FileNotFoundError:
        pass
    else:
        raise UserError(f"{target} exists already; delete it, or name another file.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise UserError(f"no file can be made in the folder {target.parent} ({error.strerror}).") from None


def write_rows(target: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, all or nothing. Raises UserError if `target` exists by now."""
    partial = target.parent / f".{secrets.token_hex(8)}.partial"
    try:
        with partial.open("x", encoding="utf-8", newline="") as file:
            # For the writer a line ends in \r\n, so that it puts quotes around a cell with either of the two.
            unix = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
            csv.writer(unix).writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, target)  # unlike a rename it replaces nothing
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            check_target(target)  # a disk that has no links, such as a memory stick
            partial.rename(target)
    except FileExistsError:
        raise UserError(f"{target} was made by another program meanwhile; name another file.") from None
    except OSError as error:
        error.filename = str(target)
        raise
    finally:
        partial.unlink(missing_ok=True)
