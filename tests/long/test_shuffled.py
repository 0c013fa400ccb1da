"""The demonstration's training on answers that belong to other questions: what is learned then is a leak."""

import sys

import numpy as np
import pandas as pd

from tests.clone import Clone

MAJORITY = 55 / 89


def test_with_shuffled_training_labels_nothing_is_learned(tmp_path):
    clone = Clone(tmp_path / "clone")
    clone("make", "demo", "SETUP=")
    demo = clone.folder / "experiments/demo"
    path = demo / "data/split/fold-0/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["label"] = np.random.default_rng(0).permutation(table["label"])
    path.unlink()  # DVC's cache may share its bytes
    table.to_csv(path, index=False)
    for adapter in ("prompt", "prefix"):
        for stage in ("train", "predict"):
            clone("env", "-C", str(demo), sys.executable, "-m", f"stages.{stage}", f"{adapter}-0-42")
        answers = pd.read_csv(demo / f"predictions/{adapter}/fold-0/seed-42.csv").query("split == 'test'")
        assert (answers["label"] == answers["prediction"]).mean() <= MAJORITY + 0.10
