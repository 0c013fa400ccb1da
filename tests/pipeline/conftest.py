"""What the pipeline tests share: the tiny model, and a clone in which everything has run."""

from pathlib import Path

import pytest

from tests.clone import SHORT, Clone
from tests.conftest import ROOT
from tests.tiny import save_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A checkpoint with two tiny layers and the embedded model's tokenizer."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-t5"), ROOT / "embedded/pico-t5")


@pytest.fixture(scope="session")
def new_clone(tmp_path_factory, tiny_model):
    """Makes a clone that is set to the tiny model and a short run."""

    def make(name: str, **changes: object) -> Clone:
        clone = Clone(tmp_path_factory.mktemp(name) / "clone")
        clone.set(SHORT | {"model.name": str(tiny_model)} | changes)
        return clone

    return make


@pytest.fixture(scope="session")
def finished(new_clone) -> Clone:
    """A clone in which the whole pipeline has run, by the command that the README gives, and that is committed."""
    clone = new_clone("finished")
    clone.output = clone("dvc", "repro")
    clone.commit("First run")
    return clone
