"""Answers to the questions of a CSV file, in memory that does not grow with it; a killed run goes on where it was.

While it runs, the answers so far are in OUT.partial, and OUT.progress says how much of both files is done: it is
replaced after every chunk of rows, once that chunk's answers are on the disk. What a killed process wrote beyond is cut
off and computed again.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pooch
from tqdm import tqdm

from peftqa.ask.answer import Answer, Answerer
from peftqa.errors import UserError

CHUNK = 256  # rows
MAX_FIELD = 1_000_000  # characters: where a quote is never closed, the rest of the file is one field
ABSTRACT = ("abstract", "context")  # names of its column; the second is that of data/split/


class Row(NamedTuple):
    line: int  # of the file, from 1
    fields: list[str]
    problem: str | None = None  # why it is no row


class Summary(NamedTuple):
    answered: int
    left_out: list[str]  # the first few, in words
    left_out_count: int
    left_out_path: Path


def answer_csv(source: Path, target: Path, load: Callable[[], Answerer], settings: dict[str, object]) -> Summary:
    """Answer each row of `source`, which has columns question and abstract (or context), in `target`.

    Its columns stay, with answer, p_LABEL for each label, sure (with an adapter), and tokens_cut behind them, in the
    order of the rows. Rows that cannot be answered are left out, and listed with line and reason in
    TARGET.left-out.csv. `load` is called once the files are known to be in order. settings: what the answers depend on;
    a run that was interrupted goes on only with the same. Raises UserError where files do not fit.
    """
    csv.field_size_limit(MAX_FIELD)
    partial, progress = (target.with_name(target.name + suffix) for suffix in (".partial", ".progress"))
    left_out_path = target.with_name(target.stem + ".left-out.csv")
    if target.exists():
        raise UserError(f"{target} is there already; delete it, or name another file.")
    with open_source(source) as file:
        columns = next(read_rows(file), Row(0, [])).fields
        question, abstract = find_columns(columns, source)
        total = sum(1 for _ in read_rows(file))
    key = settings | {"input": pooch.file_hash(source)}
    read_progress(progress, key)  # what does not fit is refused before a model is loaded
    answerer = load()
    header = added_columns(answerer)
    check_free(columns, header, source)
    try:
        with partial.open("ab") as answers, left_out_path.open("ab") as left_out:
            lock(answers, target)
            done = resume(progress, key, answers, left_out)
            if not done["rows"]:
                append(answers, [[*columns, *header]])
                append(left_out, [["line", "reason"]])
            with open_source(source) as file, tqdm(total=total, initial=done["rows"], unit="row", disable=None) as bar:
                rows = islice(read_rows(file), 1 + done["rows"], None)
                while chunk := list(islice(rows, CHUNK)):
                    good, bad = answer_rows(answerer, chunk, len(columns), question, abstract)
                    append(answers, good)
                    append(left_out, bad)
                    done["rows"] += len(chunk)
                    done["left_out"] += len(bad)
                    done["first"] += [f"line {line}: {reason}" for line, reason in bad][: 3 - len(done["first"])]
                    save_progress(progress, key, done, answers, left_out)
                    bar.update(len(chunk))
            partial.replace(target)
    except OSError as error:
        raise UserError(f"{error.filename or target} cannot be written: {error.strerror}.") from None
    progress.unlink(missing_ok=True)
    if not done["left_out"]:
        left_out_path.unlink()
    return Summary(done["rows"] - done["left_out"], done["first"], done["left_out"], left_out_path)


def answer_rows(
    answerer: Answerer, rows: Sequence[Row], width: int, question: int, abstract: int
) -> tuple[list[list], list[list]]:
    """The rows with their answers, and line and reason of those that have none."""
    prompts, asked, bad = [], [], []
    for row in rows:
        try:
            if row.problem:
                raise UserError(row.problem)
            if len(row.fields) != width:
                raise UserError(f"it has {len(row.fields)} fields, and the first line has {width}")
            prompts.append(answerer.encode(row.fields[question], row.fields[abstract]))
            asked.append(row.fields)
        except UserError as error:
            bad.append([row.line, str(error)])
    answers = answerer.answer(prompts) if prompts else []
    good = [
        [*fields, *added_values(answer, len(prompt.cut))]
        for fields, answer, prompt in zip(asked, answers, prompts, strict=True)
    ]
    return good, bad


def added_columns(answerer: Answerer) -> list[str]:
    sure = [] if answerer.threshold is None else ["sure"]
    return ["answer", *(f"p_{label}" for label in answerer.task.labels), *sure, "tokens_cut"]


def added_values(answer: Answer, cut: int) -> list[object]:
    sure = [] if answer.sure is None else [str(answer.sure).lower()]
    return [answer.label, *answer.probabilities.values(), *sure, cut]


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def open_source(path: Path) -> io.TextIOWrapper:
    """The file as text; bytes that are no UTF-8 stay what they are, and are found where they matter."""
    try:
        return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def read_rows(file: io.TextIOWrapper) -> Iterator[Row]:
    """The rows of a CSV file but empty lines, the first one among them; what is no row has a problem instead."""
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, [], f"it is no row of a CSV file ({error})")
        else:
            if fields:
                yield Row(line, fields)


def find_columns(columns: Sequence[str], source: Path) -> tuple[int, int]:
    """Positions of question and abstract. Raises UserError unless there is one of each."""
    names = [name for name in ABSTRACT if name in columns]
    if columns.count("question") != 1 or sum(columns.count(name) for name in ABSTRACT) != 1:
        shown = ", ".join(columns)[:200] or "none"
        raise UserError(
            f"{source} must have one column question and one column abstract (or context), separated by commas, in its "
            f"first line; its columns are: {shown}."
        )
    return columns.index("question"), columns.index(names[0])


def check_free(columns: Sequence[str], added: Sequence[str], source: Path) -> None:
    taken = [name for name in added if name in columns]
    if taken:
        raise UserError(f"{source} has a column {taken[0]} already; rename it.")


# ---------------------------------------------------------------------------------------------------------------------
# Writing, and going on


def append(file: BinaryIO, rows: Sequence[Sequence]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def lock(file: BinaryIO, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is writing {target}; wait for it, or end it.") from None


def nothing_done() -> dict:
    return {"rows": 0, "left_out": 0, "first": [], "bytes": [0, 0]}


def read_progress(progress: Path, key: dict) -> dict:
    """What an interrupted run has done. Raises UserError where it answered another file, or in another way."""
    try:
        saved = json.loads(progress.read_bytes())
        before, done = dict(saved["key"]), saved["done"]
    except FileNotFoundError:
        return nothing_done()
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{progress} is damaged; delete it to begin anew.") from None
    if before != key:
        changed = " and ".join(name for name in key if before.get(name) != key[name])
        raise UserError(f"{progress} is of a run with another {changed}; delete it to begin anew, or go on as before.")
    return done


def resume(progress: Path, key: dict, answers: BinaryIO, left_out: BinaryIO) -> dict:
    """`read_progress`, with both files cut off behind it; nothing is done where one of them is gone."""
    done = read_progress(progress, key)
    sizes = [os.fstat(file.fileno()).st_size for file in (answers, left_out)]
    if any(size < kept for size, kept in zip(sizes, done["bytes"], strict=True)):
        done = nothing_done()
    for file, kept in zip((answers, left_out), done["bytes"], strict=True):
        file.truncate(kept)
    return done


def save_progress(progress: Path, key: dict, done: dict, *files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    done["bytes"] = [os.fstat(file.fileno()).st_size for file in files]
    unfinished = progress.with_name(progress.name + ".new")
    unfinished.write_text(json.dumps({"key": key, "done": done}), encoding="utf-8")
    unfinished.replace(progress)
