"""Nothing is unpickled, because loading a pickle can run any code. Weights are safetensors, and all else is text."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Python reports it before a pickle names any code. torch's reader with weights_only is not Python's.
WATCHED = """
import os, sys
def refuse(event, arguments):
    if event == "pickle.find_class":
        os.write(2, f"unpickled {arguments}".encode())
        os._exit(3)
from pathlib import Path
import torch
from peftqa.config.adapters import KVPrefix
from peftqa.model.adapters import add_adapter, load_adapter, save_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer
from peftqa.model.scoring import label_probabilities
from peftqa.training.trainer import last_complete_checkpoint
from tests.tiny import save_tiny_checkpoint
from tests.unit.test_backbone import settings
from tests.unit.test_training import train
folder = Path(sys.argv[1])
sys.addaudithook(refuse)
train(folder / "checkpoints", epochs=1)
assert last_complete_checkpoint(folder / "checkpoints")
train(folder / "checkpoints", epochs=2)
base = save_tiny_checkpoint(folder / "base")
tokenizer = load_tokenizer(base)
adapter = KVPrefix(
    method="kv_prefix", num_virtual_tokens=2, init="random", init_scale=0.02, target=["encoder"], learning_rate=1.0
)
model = add_adapter(load_backbone(base, settings()), adapter, tokenizer, ["yes", "no"])
save_adapter(model, folder / "adapter", "x", None)
model = load_adapter(load_backbone(base, settings()), folder / "adapter")
label_probabilities(model, [[5, 6, 1]], [3, 4], 1)
print("trained, resumed, saved, loaded, asked", flush=True)
torch.save(Path("x"), folder / "pickle")
torch.load(folder / "pickle", weights_only=False)
"""


@pytest.mark.slow
def test_training_resuming_loading_and_asking_unpickle_nothing(tmp_path):
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "trained, resumed, saved, loaded, asked", result.stderr
    # The last line of the script does unpickle, and is noticed.
    assert result.returncode == 3 and "unpickled ('pathlib" in result.stderr, result.stderr
