"""The questions of a CSV file: checked before anything is computed, and answered in a new file, all or nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from peftqa.ask.answer import Answerer
from peftqa.data.files import atomic_write
from peftqa.data.text import decode
from peftqa.errors import UserError

MAX_BYTES = 500_000_000  # of a file that is read whole
NAMES = (("question",), ("abstract", "context"))  # the last one is that of data/split/


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
    with source.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{source} is longer than {MAX_BYTES:,} bytes; split it.")
    lines = read_rows(decode(content, source), source)
    columns = next(lines, [])
    names = [name.strip().casefold() for name in columns]
    question, abstract = ([at for at, name in enumerate(names) if name in wanted] for wanted in NAMES)
    if len(question) != 1 or len(abstract) != 1:
        raise UserError(
            f"{source} must be separated by commas and name one column question and one column abstract (or context) "
            f"in its first line; its columns are: {', '.join(columns)[:200] or 'none'}."
        )
    if taken := [name for name in names if name in added]:
        raise UserError(f"{source} has a column {taken[0]} already; rename it.")
    rows = list(lines)
    if not rows:
        raise UserError(f"{source} has no rows below its first line.")
    return columns, rows, [(row[question[0]], row[abstract[0]]) for row in rows]


def read_rows(text: str, source: Path) -> Iterator[list[str]]:
    """The rows of a CSV file, its first one too, without empty lines. Raises UserError if two differ in length."""
    csv.field_size_limit(MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin, width = 1, None
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise UserError(f"{source}: line {begin} and the first line differ in cells: {len(row)}, not {width}.")
            if row:
                yield row
            begin = reader.line_num + 1
    except csv.Error:
        raise UserError(
            f"{source}: the row that begins in line {begin} is not CSV with commas: it opens a quote that is never "
            'closed, or has one inside a quoted cell, which must be written twice ("").'
        ) from None


def check_target(target: Path) -> None:
    """Raise UserError if `target` exists, and OSError if it cannot be made."""
    try:
        target.open("x").close()
    except FileExistsError:
        raise UserError(f"{target} exists already; delete it, or name another file.") from None
    target.unlink()


def write_rows(target: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file, all or nothing. Raises UserError if `target` exists by now."""
    with atomic_write(target) as partial:
        with partial.open("w", encoding="utf-8", newline="") as file:
            # Quotes around every text, because a text may have a line end of any kind.
            csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
        check_target(target)
