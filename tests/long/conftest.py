"""Slurm for the tests of this folder, started once; each of them runs its jobs on both nodes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.clone import SHORT, Clone
from tests.conftest import ROOT
from tests.long.slurm import PACKAGES, Slurm, missing_commands
from tests.tiny import save_tiny_checkpoint


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
def study_clone(tmp_path_factory):
    """Makes a clone that is set to a small study on the embedded data, its stages before `train` done."""
    model = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-t5"), ROOT / "embedded/pico-t5")
    prefix = YAML(typ="safe").load(ROOT / "params.yaml")["adapters"]["prefix"]

    def make(name: str, **changes: object) -> Clone:
        clone = Clone(tmp_path_factory.mktemp(name) / "clone")
        small = {
            "adapters": {"prefix": prefix},
            "evaluate.untrained": {"base": {"few_shot": 0}},
            "evaluate.variants": ["majority", "base", "prefix"],
            "model.name": str(model),
            "split.protocol": "cross_validation",
            "split.folds": [0, 1],
            "train.epochs": 10,
            "train.seeds": [42, 43],
        }
        clone.set(SHORT | small | changes)
        clone("dvc", "repro", "split", "fetch_model")
        return clone

    return make
