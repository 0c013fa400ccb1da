"""The small study that several tests of this folder run."""

import pytest
from ruamel.yaml import YAML

from tests.clone import Clone
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def study_clone(new_clone):
    """Makes a clone that is set to a small study on the embedded data, its stages before `train` done."""
    small = {
        "adapters": {"prefix": YAML(typ="safe").load(ROOT / "params.yaml")["adapters"]["prefix"]},
        "evaluate.untrained": {"base": {"few_shot": 0}},
        "evaluate.variants": ["majority", "base", "prefix"],
        "split.protocol": "cross_validation",
        "split.folds": [0, 1],
        "train.epochs": 10,
        "train.seeds": [42, 43],
    }

    def make(name: str, **changes: object) -> Clone:
        clone = new_clone(name, **small | changes)
        clone("dvc", "repro", "split", "fetch_model")
        return clone

    return make
