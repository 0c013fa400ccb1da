"""Tables of predictions: columns split, seed, id, label, prediction, then `p_LABEL` for each label in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from peftqa.errors import UserError
from peftqa.metrics import predict


class SplitPredictions(NamedTuple):
    """One variant's predictions on one split, the same questions in the same order for every seed."""

    ids: list[str]  # n PMIDs
    truth: list[str]  # n labels
    seeds: list[int]  # S
    probabilities: np.ndarray  # float64, (S, n, L)

    @property
    def averaged(self) -> np.ndarray:
        """Probabilities averaged over the seeds, (n, L)."""
        return self.probabilities.mean(axis=0)


def prediction_table(
    split: str, seed: int, ids: Sequence[str], truth: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]
) -> pd.DataFrame:
    """The rows of one split and seed; `probabilities` float64 of shape (n, L), columns in the order of `labels`."""
    table = pd.DataFrame({"split": split, "seed": seed, "id": list(ids), "label": list(truth)})
    table["prediction"] = predict(probabilities, labels)
    for column, label in enumerate(labels):
        table[f"p_{label}"] = probabilities[:, column]
    return table


def read_predictions(path: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Read a table as `prediction_table` made it, floats to the last bit.

    Raises UserError where the file is missing, or was written for other labels than `labels` in this order.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro evaluate@{path.stem}`.") from None
    if list(table.columns) != ["split", "seed", "id", "label", "prediction", *(f"p_{label}" for label in labels)]:
        raise UserError(
            f"{path} was not written for the labels {', '.join(labels)} (columns: {', '.join(table.columns)}); "
            f"run `dvc repro evaluate@{path.stem}`."
        )
    return table


def on_split(table: pd.DataFrame, split: str) -> SplitPredictions:
    """The predictions on "val" or "test", by seed. Raises ValueError where two seeds differ in questions or labels."""
    rows = table[table["split"] == split]
    columns = [column for column in table.columns if column.startswith("p_")]
    seeds = sorted(int(seed) for seed in rows["seed"].unique())
    parts = [rows[rows["seed"] == seed] for seed in seeds]
    if not parts:
        raise ValueError(f"no predictions on split {split!r}")
    ids, truth = list(parts[0]["id"]), list(parts[0]["label"])
    if any(list(part["id"]) != ids or list(part["label"]) != truth for part in parts):
        raise ValueError(f"seeds differ in the questions or labels of split {split!r}")
    return SplitPredictions(ids, truth, seeds, np.stack([part[columns].to_numpy(np.float64) for part in parts]))


def leaderboard(table: pd.DataFrame) -> dict[str, str]:
    """PubMedQA's submission format: PMID to the label of the seed-averaged probability, test rows only."""
    test = on_split(table, "test")
    labels = [column.removeprefix("p_") for column in table.columns if column.startswith("p_")]
    return dict(zip(test.ids, predict(test.averaged, labels).tolist(), strict=True))
