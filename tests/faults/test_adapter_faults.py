"""Damaged adapters and checkpoints, through DVC: refused in one sentence, and back with the same bytes."""

import json
import os
import signal
import time

import pytest

from tests.clone import SHORT, Clone
from tests.conftest import ROOT
from tests.faults.test_models import cut, sentence
from tests.tiny import save_tiny_checkpoint

pytestmark = pytest.mark.drill

ADAPTER, WEIGHTS = "models/adapters/prefix/fold-0/seed-42", "adapter_model.safetensors"
PREDICTIONS = "predictions/prefix/fold-0/seed-42.csv"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in which one adapter has been trained, asked and evaluated."""
    model = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-t5"), ROOT / "embedded/pico-t5")
    clone = Clone(tmp_path_factory.mktemp("adapters") / "clone")
    clone.set(SHORT | {"model.name": str(model), "train.epochs": 4})
    clone("dvc", "repro", "evaluate@prefix")
    clone.commit("One adapter")
    return clone


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(file):
    """Change one byte."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def forget_digest(file):
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "weights"}))


BROKEN_ADAPTERS = {
    "marked as LoRA": (
        lambda f: edit_config(f, peft_type="LORA", r=2, target_modules=["q", "v"]),
        "peft_type 'LORA' cannot be used here; these can: KV_PREFIX",
    ),
    "one byte changed": (lambda f: flip(f / WEIGHTS), f"{WEIGHTS} is damaged: its sha256 is not the one"),
    "of an earlier version": (lambda f: forget_digest(f / "task.json"), "(weights: missing key); train the"),
    "without a configuration": (
        lambda f: (f / "adapter_config.json").unlink(),
        "No such file or directory",
    ),
}


@pytest.fixture
def recovers(clone):
    """After the test, one command gives every byte back."""
    before = clone.bytes()
    yield
    clone("dvc", "repro", "evaluate@prefix")
    assert clone.bytes() == before


@pytest.mark.parametrize("fault", BROKEN_ADAPTERS)
def test_a_damaged_adapter_is_not_asked_and_the_trained_one_comes_back(clone, recovers, fault):
    make, reason = BROKEN_ADAPTERS[fault]
    make(clone.folder / ADAPTER)
    message = sentence(clone("dvc", "repro", "--single-item", "predict@prefix-0-42", ok=False))
    assert reason in message and ADAPTER in message
    assert not (clone.folder / PREDICTIONS).exists()


@pytest.mark.parametrize("damaged", ["trainable.safetensors", "trainer_state.json"])
def test_a_killed_training_whose_last_checkpoint_is_damaged_ends_with_the_same_bytes(clone, damaged):
    before = clone.bytes()
    train = ("dvc", "repro", "--force", "--single-item", "train@prefix-0-42")  # or DVC would take it from its cache
    process = clone.start(*train)
    deadline, found = time.monotonic() + 300, []
    while not found and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        found = list((clone.folder / ".checkpoints").glob("*/checkpoint-*/trainer_state.json"))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for checkpoint in (clone.folder / ".checkpoints").glob("*/checkpoint-*"):
        if (checkpoint / damaged).exists():
            cut(checkpoint / damaged)
    printed = clone(*train)
    (line,) = [line for line in printed.splitlines() if "incomplete or damaged" in line] or [printed]
    assert line.startswith("prefix, fold 0, seed 42: checkpoint-") and line.endswith("or from the beginning")
    assert "Traceback" not in printed and clone.bytes() == before
