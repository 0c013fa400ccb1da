"""The training loop: what it optimises, which epoch it keeps, and that it can be interrupted."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import set_seed

from peftqa.config.params import TrainSettings
from peftqa.errors import UserError
from peftqa.model.adapters import KVPrefix, add_adapter
from peftqa.training.train import collate, run_seed, train_adapter, training_arguments, validation_metrics
from peftqa.training.trainer import last_complete_checkpoint
from tests.conftest import ROOT
from tests.tiny import tiny_t5, tiny_tokenizer

LABEL_TOKEN_IDS = [3, 4]  # of yes and no


def settings(**changes) -> TrainSettings:
    values = {
        "epochs": 4,
        "batch_size": 4,
        "batches": "similar_length",
        "optimizer": "adamw",
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "patience": None,
        "seeds": [1],
    }
    return TrainSettings.model_validate(values | changes)


def examples(count: int, seed: int) -> list[dict]:
    """The answer is yes where token 10 comes in the prompt, no where token 11 does."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        noise = rng.integers(20, 60, size=rng.integers(3, 12)).tolist()
        rows.append({"input_ids": [10 + i % 2, *noise, 1], "labels": [LABEL_TOKEN_IDS[i % 2], 1]})
    return rows


def train(
    checkpoints,
    learning_rate: float = 0.05,
    on_epoch=lambda: None,
    reparametrization=8,
    own_schedule=None,
    callbacks=(),
    **changes,
):
    """Train a prefix; returns the epochs' records and the trained tensors."""
    set_seed(1)
    adapter = KVPrefix(
        method="kv_prefix",
        learning_rate=learning_rate,
        num_virtual_tokens=3,
        init="random",
        reparametrization=reparametrization,
        schedule=own_schedule,
    )
    model = add_adapter(tiny_t5(vocab_size=192, dropout_rate=0.0).requires_grad_(False), adapter, tiny_tokenizer())
    records = train_adapter(
        model,
        adapter,
        examples(24, 0),
        examples(12, 1),
        label_token_ids=LABEL_TOKEN_IDS,
        settings=settings(**changes),
        seed=1,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        callbacks=callbacks,
    )
    return records, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_training_lowers_both_losses_and_reports_every_epoch(tmp_path):
    calls = []
    records, _ = train(tmp_path, on_epoch=lambda: calls.append(1))
    assert len(calls) == 4
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert [record["step"] for record in records] == [6, 12, 18, 24]
    assert records[-1]["loss"] < records[0]["loss"]
    assert min(r["val_loss"] for r in records[1:]) < records[0]["val_loss"]
    numbers = {"epoch", "step", "loss", "val_loss", "val_log_loss", "val_accuracy", "val_macro_f1"}
    assert set(records[0]) == numbers | {"val_confidence"}


@pytest.mark.slow
def test_the_weights_kept_are_those_of_the_epoch_with_the_lowest_validation_log_loss(tmp_path):
    # So high a rate that later epochs are worse than the first.
    records, kept = train(tmp_path / "long", learning_rate=2.0, epochs=4)
    best = min(records, key=lambda record: record["val_log_loss"])["epoch"]
    assert best < 4, "this test needs a run whose last epoch is not its best"
    _, alone = train(tmp_path / "short", learning_rate=2.0, epochs=best)
    assert all(torch.equal(kept[name], alone[name]) for name in kept)


@pytest.mark.slow
def test_patience_ends_training_after_so_many_epochs_without_a_better_one(tmp_path):
    records, _ = train(tmp_path, learning_rate=2.0, epochs=8, patience=1)
    losses = [record["val_log_loss"] for record in records]
    assert len(records) < 8
    best = losses.index(min(losses))
    assert best == len(losses) - 2


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2])
def test_patience_outlives_a_kill(tmp_path, killed_after):
    """After the first epoch without a better one, of which two are allowed, and after the last, before the end."""
    settings = {"learning_rate": 2.0, "epochs": 8, "patience": 2}
    whole, expected = train(tmp_path / "whole", **settings)
    stop = len(whole) - 2 + killed_after
    assert 3 <= len(whole) < 8, "this test needs a run that patience ends"
    code = DIE + CHILD.replace("epochs=10", ", ".join(f"{key}={value}" for key, value in settings.items()))
    code = code.replace("learning_rate=", f"callbacks=[Die({stop})], learning_rate=")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], env=environment)
    assert result.returncode == -signal.SIGKILL
    resumed, weights = train(tmp_path / "killed", **settings)
    assert resumed == whole
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


DIE = """
import os, signal
from transformers import TrainerCallback

class Die(TrainerCallback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_save(self, args, state, control, **kwargs):
        if round(state.epoch) == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_two_runs_give_the_same_bits(tmp_path):
    first, second = train(tmp_path / "1"), train(tmp_path / "2")
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


CHILD = """
import pathlib, sys
from tests.unit.test_training import train
train(pathlib.Path(sys.argv[1]), epochs=10)
"""


@pytest.mark.slow
@pytest.mark.parametrize("reparametrization", [None, 8])
def test_a_run_killed_in_the_middle_ends_with_the_weights_of_one_that_was_not(tmp_path, reparametrization):
    code = CHILD.replace("epochs=10", f"epochs=10, reparametrization={reparametrization}")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=environment)
    deadline = time.monotonic() + 120
    while last_complete_checkpoint(tmp_path / "killed") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = last_complete_checkpoint(tmp_path / "killed")
    assert reached is not None
    # A checkpoint that was being written when the process died must not be taken for a whole one.
    (tmp_path / "killed" / "checkpoint-99999").mkdir()
    (tmp_path / "killed" / "checkpoint-99999" / "trainer_state.json").write_text('{"epoch": ')
    kept = {"reparametrization": reparametrization, "epochs": 10}
    resumed, weights = train(tmp_path / "killed", **kept)
    whole, expected = train(tmp_path / "whole", **kept)
    assert resumed == whole
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_adapters_own_schedule_takes_the_place_of_the_general_one(tmp_path):
    linear, _ = train(tmp_path / "a", epochs=2, schedule="linear")
    own, _ = train(tmp_path / "b", epochs=2, own_schedule="linear")
    constant, _ = train(tmp_path / "c", epochs=2)
    assert own == linear != constant


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_training_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"epoch 1 with learning rate 1e\+30; lower"):
        # The decay makes every weight infinite in the first step, and a difference of two such is no number.
        train(tmp_path, learning_rate=1e30, weight_decay=1e30)


def test_a_constant_schedule_warms_up_too(tmp_path):
    unmoved, _ = train(tmp_path / "a", epochs=1, warmup_steps=10**9)
    moved, _ = train(tmp_path / "b", epochs=1)
    start, _ = train(tmp_path / "c", epochs=1, learning_rate=1e-12)
    assert unmoved[0]["val_loss"] == pytest.approx(start[0]["val_loss"], abs=1e-6)
    assert moved[0]["val_loss"] != pytest.approx(start[0]["val_loss"], abs=1e-3)


def test_padding_of_answers_is_not_counted():
    batch = collate([{"input_ids": [5, 6], "labels": [3, 9, 1]}, {"input_ids": [7], "labels": [4, 1]}], pad_id=0)
    assert batch["labels"].tolist() == [[3, 9, 1], [4, 1, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_validation_metrics_by_hand():
    metrics = validation_metrics(np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([[3, 1], [4, 1]]), LABEL_TOKEN_IDS)
    assert metrics["accuracy"] == 0.5
    assert math.isclose(metrics["log_loss"], -(math.log(0.8) + math.log(0.4)) / 2)
    assert math.isclose(metrics["macro_f1"], (2 / 3 + 0) / 2)


def test_validation_metrics_of_probabilities_that_are_no_numbers_say_so():
    probabilities = np.array([[0.8, 0.2], [np.nan, np.nan]])
    metrics = validation_metrics(probabilities, np.array([[3, 1], [4, 1]]), LABEL_TOKEN_IDS)
    assert math.isnan(metrics["log_loss"])


def test_no_two_runs_of_an_experiment_share_their_random_numbers():
    names = ["prompt", "prefix", "prefix_2", "pre", "fix", "p", "lora", "ia3", "Prompt"]
    runs = [(name, fold, seed) for name in names for fold in range(10) for seed in [*range(40), 2**31, 2**32 - 1]]
    seeds = [run_seed(*run) for run in runs]
    assert len(set(seeds)) == len(runs)
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_a_run_has_the_same_random_numbers_wherever_it_runs():
    assert run_seed("prompt", 0, 42) == run_seed("prompt", 0, 42) == 3689507427


def test_a_run_uses_one_gpu_of_several(tmp_path, monkeypatch):
    """Trainer would use all of them, each with a whole batch."""
    for name, value in {"is_available": True, "device_count": 3, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    adapter = KVPrefix(method="kv_prefix", learning_rate=0.1, num_virtual_tokens=1, init="random")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        arguments = training_arguments(settings(batch_size=8), adapter, 1, tmp_path)
        assert arguments.device.type == "cuda" and arguments.n_gpu == 1
        assert (arguments.train_batch_size, arguments.eval_batch_size) == (8, 8)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
