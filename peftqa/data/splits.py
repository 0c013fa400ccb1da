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
    refusal = (
        f"split: {len(table)} rows ({_counts(table)}) cannot be divided into train {train:g}, val {val:g} and test "
        f"{test:g} with every label in each part; change the fractions, or use more records"
    )
    train_rows, held_out = _stratify(table, val + test, seed, refusal)
    # Rows have kept the order in which they were drawn: if they were sorted first, val and test would be other rows.
    val_rows, test_rows = _stratify(held_out, test / (val + test), seed, refusal)
    return {"train": train_rows.sort_index(), "val": val_rows.sort_index(), "test": test_rows.sort_index()}


def split_cross_validation(table: pd.DataFrame, seed: int) -> list[dict[str, pd.DataFrame]]:
    """Ten folds over ten stratified parts: fold F tests on part F, validates on the next one, trains on the rest.

    So every row is a test row once. Raises UserError if a part would not have every label.
    """
    parts = _stratified_parts(table, seed)
    held_out = [(parts[fold], parts[(fold + 1) % N_FOLDS]) for fold in range(N_FOLDS)]
    return [{"train": table.drop(val.index.union(test.index)), "val": val, "test": test} for test, val in held_out]


def split_official(table: pd.DataFrame, test_ids: Collection[str], seed: int) -> list[dict[str, pd.DataFrame]]:
    """PubMedQA's own protocol: ten folds that all test on the official test records, as far as `clean` left them.

    The other records are ten stratified parts: fold F validates on part F and trains on the rest. Raises UserError if a
    part would not have every label.
    """
    official = table["id"].isin(set(test_ids))
    test, rest = table[official], table[~official]
    for rows, place in ((test, "in"), (rest, "outside")):
        if absent := ", ".join(sorted(set(table["label"]) - set(rows["label"]))):
            raise UserError(f"split.protocol: no record {place} the official test set has the label {absent}")
    return [{"train": rest.drop(val.index), "val": val, "test": test} for val in _stratified_parts(rest, seed)]


def _stratify(table: pd.DataFrame, share: float, seed: int, refusal: str) -> list[pd.DataFrame]:
    """Hold `share` of the rows out; both parts are in the order drawn and have every label, else UserError."""
    from sklearn.model_selection import train_test_split  # here, because importing it takes time

    # scikit-learn rounds up; without the inner round 0.1 + 0.2 of 1,000 rows would be 301.
    held_out = math.ceil(round(share * len(table), 6))
    try:
        parts = train_test_split(table, test_size=held_out, stratify=table["label"], random_state=seed)
    except ValueError:
        raise UserError(refusal) from None
    if any(set(part["label"]) != set(table["label"]) for part in parts):
        raise UserError(refusal)
    return parts


def _stratified_parts(table: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """N_FOLDS parts of nearly one size, each with the labels in proportion and in the table's row order."""
    from sklearn.model_selection import StratifiedKFold

    fewest = table["label"].value_counts().min()
    if fewest < N_FOLDS:
        raise UserError(
            f"split: {len(table)} rows ({_counts(table)}) cannot be divided into {N_FOLDS} parts with every label in "
            "each; use split.protocol random, or more records"
        )
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(table, table["label"])
    return [table.iloc[rows] for _, rows in folds]


def _counts(table: pd.DataFrame) -> str:
    return ", ".join(f"{label} {count}" for label, count in table["label"].value_counts().items())
