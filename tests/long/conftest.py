"""Slurm for the tests of this folder, started once; each of them runs its jobs on both nodes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.clone import Clone
from tests.conftest import ROOT
from tests.long.slurm import PACKAGES, Slurm, missing_commands


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    if missing := missing_commands():
        pytest.skip(f"needs Slurm (Debian packages {PACKAGES}): no {', '.join(missing)}")
    # Not pytest's own folder: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with Slurm(folder) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


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
