"""The demonstration's training on answers that belong to other questions: what is learned then is a leak."""

import shutil
import sys

import numpy as np
import pandas as pd

from tests.clone import Clone
from tests.conftest import ROOT

MODEL, MAJORITY = ROOT / "embedded/pico-t5", 55 / 89


def test_with_shuffled_training_labels_nothing_is_learned(tmp_path):
    clone = Clone(tmp_path / "clone")
    clone("make", "demo", "SETUP=")
    demo, work = clone.folder / "experiments/demo", tmp_path / "shuffled"
    shutil.copytree(demo / "data/split", work / "data/split")
    (work / "models").mkdir()
    (work / "models/base").symlink_to(MODEL)
    shutil.copy(demo / "params.yaml", work)
    path = work / "data/split/fold-0/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["label"] = np.random.default_rng(0).permutation(table["label"])
    table.to_csv(path, index=False)
    for adapter in ("prompt", "prefix"):
        for stage in ("train", "predict"):
            command = [sys.executable, "-m", f"stages.{stage}", f"{adapter}-0-42"]
            clone("env", "-C", str(work), f"PYTHONPATH={ROOT}", *command)
        answers = pd.read_csv(work / f"predictions/{adapter}/fold-0/seed-42.csv").query("split == 'test'")
        assert (answers["label"] == answers["prediction"]).mean() <= MAJORITY + 0.10
