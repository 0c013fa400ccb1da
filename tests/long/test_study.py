"""The study at full width: ten folds, two seeds and both adapters, on the embedded data and a tiny model."""

import json

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.clone import Clone, ran
from tests.conftest import ROOT

FOLDS, SEEDS, ADAPTERS = list(range(10)), [1, 2], ("prompt", "prefix")


@pytest.fixture(scope="module")
def study(study_clone) -> Clone:
    adapters = YAML(typ="safe").load(ROOT / "params.yaml")["adapters"]
    clone = study_clone(
        "study",
        **{
            "adapters": adapters,
            "evaluate.variants": ["majority", "tfidf", "base", *ADAPTERS],
            "split.folds": FOLDS,
            "train.epochs": 1,
            "train.seeds": SEEDS,
        },
    )
    clone("python", "-m", "experiments.runs", "--jobs", "2")
    clone("dvc", "repro")
    return clone


def test_every_record_is_a_test_question_once_per_seed(study):
    records = set(pd.read_csv(study.folder / "data/clean/pubmedqa.csv", dtype=str)["id"])
    assert len(records) == 890
    for variant, seeds in {"base": [0], "majority": [0], "tfidf": [0], "prompt": SEEDS, "prefix": SEEDS}.items():
        for seed in seeds:
            asked = pd.concat(
                pd.read_csv(study.folder / f"predictions/{variant}/fold-{fold}/seed-{seed}.csv", dtype={"id": str})
                for fold in FOLDS
            ).query("split == 'test'")["id"]
            assert asked.is_unique and set(asked) == records
        assert json.loads((study.folder / f"metrics/{variant}.json").read_text())["n"] == 890


def test_a_third_seed_is_twenty_more_runs_and_nothing_else(study):
    study.set({"train.seeds": [*SEEDS, 3]})
    shown = study("dvc", "repro")
    more = {f"{stage}@{adapter}-{fold}-3" for stage in ("train", "predict") for adapter in ADAPTERS for fold in FOLDS}
    after = {"evaluate", "compare", "select", "report", "publish"}
    assert set(ran(shown)) >= more and {stage.partition("@")[0] for stage in set(ran(shown)) - more} <= after
