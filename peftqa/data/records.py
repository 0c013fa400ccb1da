"""PubMedQA's records: read and checked, made a table, and cleaned. Imports no torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from peftqa.config.errors import explain
from peftqa.config.settings import Label
from peftqa.data.files import COLUMNS
from peftqa.errors import UserError

SHOWN_PROBLEMS = 10


class Record(BaseModel):
    """What is read of an expert-labelled record, under its upstream keys (PubMedQA, Jin et al. 2019, arXiv 1909.06146).

    Every key must be there. null is a missing value. If `clean` needs the value, it drops the record. LONG_ANSWER is
    the abstract's conclusion. It gives the answer away and must never reach the model.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    QUESTION: str | None
    CONTEXTS: list[str] | None
    reasoning_required_pred: Label | None
    reasoning_free_pred: Label | None
    final_decision: Label | None
    LONG_ANSWER: str | None


def read_records(path: Path) -> dict[str, Record]:
    """The records in a file, by PMID, in the order of the file.

    Raises UserError with PMIDs and fields for records that do not fit, and for a file that is missing, is not a JSON
    object, is empty, or has one PMID twice.
    """
    return _read(path, Record)


def read_test_ids(path: Path, known_ids: Collection[str]) -> list[str]:
    """PMIDs of PubMedQA's official test set, the keys of test_ground_truth.json.

    Raises UserError if one of them is not among `known_ids`, the PMIDs of the records.
    """
    test_ids = list(_read(path, object))
    unknown = [pmid for pmid in test_ids if pmid not in known_ids]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(test_ids)} test ids are not among the {len(known_ids)} records, such as "
            f"{unknown[0]}; both files must be of the same version"
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

    def words(texts: Iterable[str]) -> str:
        return " ".join(["", *re.findall(r"\w+", " ".join(texts).casefold()), ""])

    conclusions = {pmid: words([records[pmid].LONG_ANSWER or ""]) for pmid in ids}
    return [
        pmid
        for pmid, text in conclusions.items()
        if len(text.split()) > 2 and text in words(records[pmid].CONTEXTS or [])
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
            f"data.labels: no usable record has the label {', '.join(absent)}; of {report['records']} records "
            f"{report['dropped_missing_value']} lack a value, {report['dropped_other_label']} have another label, "
            f"{report['dropped_duplicate']} repeat an earlier one"
        )
    return kept, report


def single_spaced(text: str) -> str:
    """The text with one space for every run of white space, and none at its ends."""
    return " ".join(text.split())


def _read(path: Path, kind: type) -> dict:
    """A file's JSON object, its values of the given type. A repeated key is refused; Python would keep one value."""

    def distinct(pairs: list[tuple[str, object]]) -> dict:
        repeated = Counter(key for key, _ in pairs) - Counter(dict(pairs).keys())
        if repeated:
            raise UserError(f"{path}: {', '.join(repeated)} is there twice; remove one")
        return dict(pairs)

    try:
        content = path.read_bytes()
        values = TypeAdapter(dict[str, kind]).validate_json(content)
        json.loads(content, object_pairs_hook=distinct)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the stage that downloads it first") from None
    except ValidationError as error:
        problems = explain(error)
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise UserError(f"{path} does not have PubMedQA's form: {'; '.join(problems[:SHOWN_PROBLEMS])}{more}") from None
    if not values:
        raise UserError(f"{path} does not have a record")
    return values
