"""The training loop: what it optimises, which epoch it keeps, and that it can be interrupted."""

import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from pydantic import TypeAdapter
from torch import nn
from transformers import set_seed

from peftqa.config.params import AnyAdapter, TrainSettings
from peftqa.errors import UserError
from peftqa.model.adapters import add_adapter
from peftqa.training.train import collate, run_seed, train_adapter, training_arguments, validation_metrics
from tests.conftest import ROOT
from tests.tiny import tiny_t5, tiny_tokenizer

LABEL_TOKEN_IDS = [3, 4]  # of yes and no
SETTINGS = {"epochs": 4, "batch_size": 4, "batches": "similar_length", "optimizer": "adamw", "schedule": "constant"}
SETTINGS |= {"warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0, "patience": None, "seeds": [1]}
PREFIX = {"method": "kv_prefix", "num_virtual_tokens": 3, "init": "random", "init_scale": 0.02, "learning_rate": 0.05}
PREFIX |= {"target": ["encoder", "decoder", "cross"], "reparametrization": 8}


def examples(count: int, seed: int) -> list[dict]:
    """The answer is yes if token 10 is in the prompt, and no if token 11 is."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        noise = rng.integers(20, 60, size=rng.integers(3, 12)).tolist()
        rows.append({"input_ids": [10 + i % 2, *noise, 1], "labels": [LABEL_TOKEN_IDS[i % 2], 1]})
    return rows


def train(checkpoints, adapter=PREFIX, on_epoch=lambda: None, callbacks=(), **changes):
    """Train an adapter with changed settings; returns the epochs' metrics and the trained tensors."""
    set_seed(1)
    adapter = TypeAdapter(AnyAdapter).validate_python(adapter)
    backbone = tiny_t5(vocab_size=192, dropout_rate=0.0).requires_grad_(False)
    model = add_adapter(backbone, adapter, tiny_tokenizer(), ["yes", "no"])
    model.register_parameter("unused", nn.Parameter(torch.ones(5)))  # it gets no gradient
    epochs = train_adapter(
        model,
        adapter,
        examples(24, 0),
        examples(12, 1),
        label_token_ids=LABEL_TOKEN_IDS,
        settings=TrainSettings(**SETTINGS | changes),
        seed=1,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        callbacks=callbacks,
    )
    return epochs, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_training_lowers_both_losses_and_reports_every_epoch(tmp_path):
    calls = []
    epochs, _ = train(tmp_path, on_epoch=lambda: calls.append(1))
    assert len(calls) == 4
    assert [(epoch["epoch"], epoch["step"]) for epoch in epochs] == [(1, 6), (2, 12), (3, 18), (4, 24)]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert min(epoch["val_loss"] for epoch in epochs[1:]) < epochs[0]["val_loss"]


WIDTH, TOKENS, ATTENTIONS = 32, 3, 6
TRAINED = {
    # An embedding and a network of three layers, of which the embeddings that it makes are saved.
    "P_TUNING": ({"num_virtual_tokens": TOKENS}, TOKENS * WIDTH + 3 * (WIDTH * WIDTH + WIDTH)),
    # Two vectors for each query and value projection (3 heads of 8). Its frozen random matrices are saved too.
    "VERA": ({"r": 4}, 2 * ATTENTIONS * (4 + 24)),
    # In the first step one of the two matrices gets a gradient of zero.
    "LORA": ({"r": 2}, 2 * ATTENTIONS * 2 * (WIDTH + 24)),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_the_parameters_counted_are_those_that_got_a_gradient(tmp_path, kind):
    config, count = TRAINED[kind]
    adapter = {"method": "peft", "config": {"peft_type": kind} | config, "learning_rate": 0.01}
    epochs, tensors = train(tmp_path, adapter, epochs=2)
    assert [epoch["trainable_params"] for epoch in epochs] == [count, count]
    assert sum(tensor.numel() for tensor in tensors.values()) == count + 5


@pytest.mark.slow
def test_the_weights_kept_are_those_of_the_epoch_with_the_lowest_validation_log_loss(tmp_path):
    fast = PREFIX | {"learning_rate": 2.0}  # so high a rate that later epochs are worse than the first
    epochs, kept = train(tmp_path / "long", fast)
    best = min(epochs, key=lambda epoch: epoch["val_log_loss"])["epoch"]
    assert best < 4, "this test needs a run whose last epoch is not its best"
    _, alone = train(tmp_path / "short", fast, epochs=best)
    assert all(torch.equal(kept[name], alone[name]) for name in kept)


# A training in a process of its own, which is killed after an epoch.
KILLED = """
import json, os, pathlib, signal, sys
from transformers import TrainerCallback
from tests.unit.test_training import train

class Die(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        if round(state.epoch) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

train(pathlib.Path(sys.argv[1]), callbacks=[Die()], **json.loads(sys.argv[3]))
"""


def assert_resumes(folder, whole, expected, killed_after: int, **settings):
    """A training that is killed and goes on ends with the metrics and tensors of a whole one."""
    command = [sys.executable, "-c", KILLED, str(folder), str(killed_after), json.dumps(settings)]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == -signal.SIGKILL
    # A checkpoint that was being written when the process died must not be taken for a complete one.
    (folder / "checkpoint-99999").mkdir()
    (folder / "checkpoint-99999" / "trainer_state.json").write_text('{"epoch": ')
    resumed, tensors = train(folder, **settings)
    assert resumed == whole
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2])
def test_patience_outlives_a_kill(tmp_path, killed_after):
    """After the first epoch without a better one, of which two are allowed, and after the last, before the end."""
    settings = {"adapter": PREFIX | {"learning_rate": 2.0}, "epochs": 8, "patience": 2}
    whole, expected = train(tmp_path / "whole", **settings)
    assert 3 <= len(whole) < 8, "this test needs a run that patience ends"
    losses = [epoch["val_log_loss"] for epoch in whole]
    assert losses.index(min(losses)) == len(losses) - 3
    assert_resumes(tmp_path / "killed", whole, expected, len(whole) - 2 + killed_after, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter",
    [
        PREFIX,
        PREFIX | {"reparametrization": None},
        {"method": "peft", "config": {"peft_type": "P_TUNING", "num_virtual_tokens": 3}, "learning_rate": 0.01},
    ],
)
def test_a_killed_training_ends_with_the_weights_and_counts_of_one_that_was_not(tmp_path, adapter):
    whole, expected = train(tmp_path / "whole", adapter)
    assert_resumes(tmp_path / "killed", whole, expected, 2, adapter=adapter)


def test_an_adapters_own_schedule_takes_the_place_of_the_general_one(tmp_path):
    linear, _ = train(tmp_path / "a", epochs=2, schedule="linear")
    own, _ = train(tmp_path / "b", PREFIX | {"schedule": "linear"}, epochs=2)
    constant, _ = train(tmp_path / "c", epochs=2)
    assert own == linear != constant


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_training_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"epoch 1 with learning rate 1e\+30; lower"):
        # The decay makes every weight infinite in the first step, and a difference of two such is not a number.
        train(tmp_path, PREFIX | {"learning_rate": 1e30}, weight_decay=1e30)


def test_a_constant_schedule_warms_up_too(tmp_path):
    unmoved, _ = train(tmp_path / "a", epochs=1, warmup_steps=10**7)
    moved, _ = train(tmp_path / "b", epochs=1)
    start, _ = train(tmp_path / "c", PREFIX | {"learning_rate": 1e-12}, epochs=1)
    assert unmoved[0]["val_loss"] == pytest.approx(start[0]["val_loss"], abs=1e-6)
    assert moved[0]["val_loss"] != pytest.approx(start[0]["val_loss"], abs=1e-3)


def test_padding_of_answers_is_not_counted():
    batch = collate([{"input_ids": [5, 6], "labels": [3, 9, 1]}, {"input_ids": [7], "labels": [4, 1]}], pad_id=0)
    assert batch["labels"].tolist() == [[3, 9, 1], [4, 1, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_validation_metrics_by_hand():
    answers = np.array([[3, 1], [4, 1]])
    metrics = validation_metrics(np.array([[0.8, 0.2], [0.6, 0.4]]), answers, LABEL_TOKEN_IDS)
    assert metrics["accuracy"] == 0.5
    assert math.isclose(metrics["log_loss"], -(math.log(0.8) + math.log(0.4)) / 2)
    assert math.isclose(metrics["macro_f1"], (2 / 3 + 0) / 2)
    diverged = np.array([[0.8, 0.2], [np.nan, np.nan]])
    assert math.isnan(validation_metrics(diverged, answers, LABEL_TOKEN_IDS)["log_loss"])


def test_runs_have_random_numbers_of_their_own_that_never_change():
    names = ["prompt", "prefix", "prefix_2", "pre", "fix", "p", "lora", "ia3", "Prompt"]
    runs = [(name, fold, seed) for name in names for fold in range(10) for seed in [*range(40), 2**31, 2**32 - 1]]
    seeds = [run_seed(*run) for run in runs]
    assert len(set(seeds)) == len(runs)
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    assert run_seed("prompt", 0, 42) == 3689507427


def test_a_run_uses_one_gpu_of_several(tmp_path, monkeypatch):
    """Trainer would use all of them, each with a whole batch."""
    for name, value in {"is_available": True, "device_count": 3, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        adapter = TypeAdapter(AnyAdapter).validate_python(PREFIX)
        arguments = training_arguments(TrainSettings(**SETTINGS | {"batch_size": 8}), adapter, 1, tmp_path)
        assert arguments.device.type == "cuda" and arguments.n_gpu == 1
        assert (arguments.train_batch_size, arguments.eval_batch_size) == (8, 8)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
