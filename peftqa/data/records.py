"""PubMedQA's records: read and checked, made a table, and cleaned. Imports no torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from peftqa.config.errors import explain
from peftqa.config.settings import Label
from peftqa.data.characters import encodable, single_spaced
from peftqa.data.files import COLUMNS
from peftqa.errors import UserError, one_line

SHOWN_RECORDS = 10
Text = Annotated[str, AfterValidator(encodable)]


class Record(BaseModel):
    """One expert-labelled record under its upstream keys (PubMedQA, Jin et al. 2019, arXiv 1909.06146).

    Every key must be there. null is a missing value; if the project uses the field, `clean` drops the record.
    LONG_ANSWER is the abstract's conclusion. It gives the answer away and must never reach the model.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    QUESTION: Text | None
    CONTEXTS: list[Text] | None
    LABELS: list[str] | None
    MESHES: list[str] | None
    YEAR: str | None
    reasoning_required_pred: Label | None
    reasoning_free_pred: Label | None
    final_decision: Label | None
    LONG_ANSWER: str | None


def read_records(path: Path) -> dict[str, Record]:
    """The records in a file, by PMID, in the order of the file.

    Raises UserError if the file is missing, is not a JSON object, is empty, or has one PMID twice. Records that do
    not fit raise it too, with PMIDs and fields.
    """
    records, problems = {}, {}
    for pmid, values in _read_object(path).items():
        try:
            records[encodable(pmid)] = Record.model_validate(values)
        except ValidationError as error:
            problems[pmid] = ", ".join(explain(error))
        except ValueError as error:
            problems[pmid.encode(errors="backslashreplace").decode()] = str(error)
    if problems:
        shown = some([f"{pmid} ({problem})" for pmid, problem in problems.items()], "; ")
        total = len(problems) + len(records)
        raise UserError(f"{path}: {len(problems)} of {total} records do not have PubMedQA's form: {shown}")
    return records


def read_test_ids(path: Path, known_ids: Collection[str]) -> list[str]:
    """PMIDs of PubMedQA's official test set, the keys of test_ground_truth.json.

    Raises UserError if one of them is not among `known_ids`, the PMIDs of the records.
    """
    test_ids = list(_read_object(path))
    unknown = [pmid for pmid in test_ids if pmid not in known_ids]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(test_ids)} test ids are not among the {len(known_ids)} records: "
            f"{some(unknown)}; both files must be of the same version"
        )
    return test_ids


def to_table(records: dict[str, Record]) -> pd.DataFrame:
    """Columns id (PMID), question, context (CONTEXTS joined by a space), label; a missing value is null."""
    rows = [
        (pmid, record.QUESTION, " ".join(record.CONTEXTS or []), record.final_decision)
        for pmid, record in records.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def with_conclusion(records: dict[str, Record], ids: Iterable[str]) -> list[str]:
    """Those of the PMIDs whose CONTEXTS repeat LONG_ANSWER, which gives the answer away.

    Case, punctuation and white space do not matter. A conclusion of one or two words is not looked for.
    """

    def words(text: str) -> str:
        return " ".join(["", *re.findall(r"\w+", text.casefold()), ""])

    conclusions = {pmid: words(records[pmid].LONG_ANSWER or "") for pmid in ids}
    return [
        pmid
        for pmid, text in conclusions.items()
        if len(text.split()) > 2 and text in words(" ".join(records[pmid].CONTEXTS or []))
    ]


def clean(table: pd.DataFrame, labels: Sequence[str]) -> tuple[pd.DataFrame, dict]:
    """Normalise white space, then drop missing values, other labels and repeated (question, context) pairs.

    Returns the rows that are left, in their order, and how many were dropped for each reason. Of equal pairs the first
    stays. Raises UserError if one of `labels` is left without a row.
    """
    table = table[COLUMNS].fillna("").map(single_spaced)
    missing = (table == "").any(axis=1)
    other_label = ~missing & ~table["label"].isin(labels)
    kept = table[~missing & ~other_label]
    repeated = kept.duplicated(["question", "context"])
    kept = kept[~repeated].reset_index(drop=True)
    report = {
        "records": len(table),
        "dropped_missing_value": int(missing.sum()),
        "dropped_other_label": int(other_label.sum()),
        "dropped_duplicate": int(repeated.sum()),
        "rows": len(kept),
        "labels": {label: int((kept["label"] == label).sum()) for label in labels},
    }
    absent = [label for label, count in report["labels"].items() if count == 0]
    if absent:
        raise UserError(
            f"data.labels: no usable record has the label {some(absent)}; of {report['records']} records "
            f"{report['dropped_missing_value']} lack a value, {report['dropped_other_label']} have another label, "
            f"{report['dropped_duplicate']} repeat an earlier one"
        )
    return kept, report


def _read_object(path: Path) -> dict:
    """A file's JSON object; UserError if it is empty or repeats a key, whose last value Python would keep."""

    def distinct(pairs: list[tuple[str, object]]) -> dict:
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if repeated:
            raise UserError(f"{path}: {some(repeated)} is there twice; remove one")
        return dict(pairs)

    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=distinct)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage that downloads it first") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object keyed by PMID, not a {type(values).__name__}")
    if not values:
        raise UserError(f"{path} does not have a record")
    return values


def some(names: Sequence[str], separator: str = ", ") -> str:
    """At most ten of the names, then how many more there are."""
    rest = len(names) - SHOWN_RECORDS
    return separator.join(names[:SHOWN_RECORDS]) + (f" and {rest} more" if rest > 0 else "")
