"""Tables of predictions: columns split, fold, seed, id, label, prediction, then `p_LABEL` for each label in order.

A run (one fold, one seed) writes one table. `replicates` puts the runs of a variant together: a replicate is a set of
runs that answers every test question once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from peftqa.data.files import read_csv
from peftqa.errors import UserError


class Replicates(NamedTuple):
    """A variant's predictions on one split, the same questions in the same order for every replicate."""

    ids: list[str]  # n PMIDs
    truth: list[str]  # n labels
    folds: np.ndarray  # int64 (n,), the fold in which a question was asked; 0 if every fold asks all of them
    names: list[str]  # R names: the seed, or under the official protocol "fold F, seed S"
    probabilities: np.ndarray  # float64 (R, n, L)


def predict(probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The n predicted labels: the most probable; in a tie, the first of them. probabilities: float64 (n, L)."""
    return np.asarray(labels)[probabilities.argmax(axis=1)]


def prediction_table(
    split: str, fold: int, seed: int, questions: pd.DataFrame, probabilities: np.ndarray, labels: Sequence[str]
) -> pd.DataFrame:
    """The rows of one run on one split.

    questions: columns id and label, n rows; probabilities: float64 (n, L), columns in the order of `labels`.
    """
    asked = {"id": questions["id"].tolist(), "label": questions["label"].tolist()}
    columns = {"split": split, "fold": fold, "seed": seed, **asked, "prediction": predict(probabilities, labels)}
    return pd.DataFrame(columns | {f"p_{label}": probabilities[:, column] for column, label in enumerate(labels)})


def read_predictions(paths: Iterable[Path], labels: Sequence[str]) -> pd.DataFrame:
    """The tables of a variant's runs, one after another, floats to the last bit.

    Raises UserError if a file is missing or damaged, or was written for other labels or another order of them.
    """
    columns = ["split", "fold", "seed", "id", "label", "prediction", *(f"p_{label}" for label in labels)]
    tables = []
    for path in paths:
        table = read_csv(path, {"id": str})
        if list(table.columns) != columns:
            raise UserError(
                f"{path} was not written for the labels {', '.join(labels)} (columns: {', '.join(table.columns)}); "
                "run `dvc repro`."
            )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def same_test_questions(protocol: str) -> bool:
    """Whether every fold of a split.protocol tests on the same questions: each run is then a replicate."""
    return protocol == "official"


def replicates(table: pd.DataFrame, split: str, same_questions: bool) -> Replicates:
    """The predictions on "val" or "test", by replicate.

    same_questions: whether every fold asks the same questions; then each run is a replicate. Otherwise all folds of a
    seed make one replicate, their questions in a row. Raises UserError if two replicates differ in questions or labels,
    or in their order.
    """
    rows = table[table["split"] == split]
    if not len(rows):
        raise UserError(f"no predictions on split {split!r}; run `dvc repro`.")
    columns = [column for column in table.columns if column.startswith("p_")]
    names, parts = [], []
    for key, part in rows.groupby(["fold", "seed"] if same_questions else ["seed"]):
        names.append(f"fold {key[0]}, seed {key[1]}" if same_questions else str(key[0]))
        parts.append(part.sort_values("fold", kind="stable"))
    ids, truth = parts[0]["id"].tolist(), parts[0]["label"].tolist()
    if any(part["id"].tolist() != ids or part["label"].tolist() != truth for part in parts):
        raise UserError(
            f"runs differ in the questions or labels of split {split!r}, or in their order; run `dvc repro`."
        )
    folds = np.zeros(len(ids), dtype=np.int64) if same_questions else parts[0]["fold"].to_numpy(np.int64)
    return Replicates(ids, truth, folds, names, np.stack([part[columns].to_numpy(np.float64) for part in parts]))


def leaderboard(test: Replicates, labels: Sequence[str]) -> dict[str, str]:
    """PubMedQA's submission format, PMID to label: the answers of the first replicate."""
    return dict(zip(test.ids, predict(test.probabilities[0], labels).tolist(), strict=True))
