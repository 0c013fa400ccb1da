"""A clean table divided into training, validation and test questions. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd

from peftqa.errors import UserError

N_FOLDS = 10  # as PubMedQA's authors use


def split_random(table: pd.DataFrame, train: float, val: float, test: float, seed: int) -> dict[str, pd.DataFrame]:
    """Stratified parts `train`, `val`, `test` of the given fractions, each in the table's row order.

    First val and test together are held out, then divided in the same way. Raises UserError if a part would not have
    every label.
    """
    from sklearn.model_selection import train_test_split  # here, because importing it takes time

    def hold_out(rows: pd.DataFrame, share: float) -> list[pd.DataFrame]:
        # scikit-learn rounds up; without `round`, 0.1 + 0.2 of 1,000 rows would be 301.
        held_out = math.ceil(round(share * len(rows), 6))
        return train_test_split(rows, test_size=held_out, stratify=rows["label"], random_state=seed)

    try:
        train_rows, held_out = hold_out(table, val + test)
        # Rows have kept the order in which they were drawn. If they were sorted first, val and test would be others.
        parts = [train_rows, *hold_out(held_out, test / (val + test))]
    except ValueError:  # too few rows of a label to draw from
        parts = [table[:0]]
    if any(set(part["label"]) != set(table["label"]) for part in parts):
        raise _refusal(table, f"train {train:g}, val {val:g} and test {test:g}", "change the fractions")
    return {name: part.sort_index() for name, part in zip(("train", "val", "test"), parts, strict=True)}


def split_cross_validation(table: pd.DataFrame, seed: int) -> list[dict[str, pd.DataFrame]]:
    """Ten folds over ten stratified parts: fold F tests on part F, validates on the next one, trains on the rest.

    So every row is a test row once. Raises UserError if a part would not have every label.
    """
    parts = _stratified_parts(table, seed)
    held_out = [(parts[fold], parts[(fold + 1) % N_FOLDS]) for fold in range(N_FOLDS)]
    return [{"train": table.drop(val.index.union(test.index)), "val": val, "test": test} for test, val in held_out]


def split_official(table: pd.DataFrame, test_ids: Collection[str], seed: int) -> list[dict[str, pd.DataFrame]]:
    """PubMedQA's own protocol: ten folds that all test on the official test records that `clean` kept.

    The other records are ten stratified parts: fold F validates on part F and trains on the rest. Raises UserError if a
    part would not have every label.
    """
    official = table["id"].isin(set(test_ids))
    test, rest = table[official], table[~official]
    for rows, place in ((test, "in"), (rest, "outside")):
        if absent := ", ".join(sorted(set(table["label"]) - set(rows["label"]))):
            raise UserError(f"split.protocol: no record {place} the official test set has the label {absent}")
    return [{"train": rest.drop(val.index), "val": val, "test": test} for val in _stratified_parts(rest, seed)]


def _stratified_parts(table: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """N_FOLDS parts of nearly one size, each with the labels in proportion and in the table's row order."""
    from sklearn.model_selection import StratifiedKFold

    if table["label"].value_counts().min() < N_FOLDS:
        raise _refusal(table, f"{N_FOLDS} parts", "use split.protocol random")
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(table, table["label"])
    return [table.iloc[rows] for _, rows in folds]


def _refusal(table: pd.DataFrame, parts: str, remedy: str) -> UserError:
    counts = ", ".join(f"{label} {count}" for label, count in table["label"].value_counts().items())
    return UserError(
        f"split: {len(table)} rows ({counts}) cannot be divided into {parts} with every label in each; {remedy}, or "
        "use more records"
    )
