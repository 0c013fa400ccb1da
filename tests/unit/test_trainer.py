"""Trainer's log and checkpoints, as they are read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from peftqa.training.trainer import (
    TRAINED_WEIGHTS,
    VALIDATION,
    last_complete_checkpoint,
    patience_is_over,
)


def save_checkpoint(folder, step, best):
    """The files that Trainer goes on from."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"prompt": torch.ones(2, 3)}, checkpoint / TRAINED_WEIGHTS)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": torch.arange(100)}, checkpoint / name)
    evaluated = {f"eval_{name}": 0.5 for name in VALIDATION}
    when = {"epoch": step / 6, "step": step}
    log = [{"loss": 1.0, "trainable_params": 6} | when, evaluated | when]
    state = {"epoch": step / 6, "log_history": log, "best_model_checkpoint": str(folder / f"checkpoint-{best}")}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return checkpoint


@pytest.fixture
def checkpoints(tmp_path):
    """The best checkpoint, of step 6, and the last, of step 12."""
    save_checkpoint(tmp_path, 6, best=6)
    return save_checkpoint(tmp_path, 12, best=6).parent


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_last_of_whole_checkpoints_is_taken_and_nothing_is_said(checkpoints, capsys):
    (checkpoints / "seconds.json").write_bytes(b"")
    assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-12")
    assert last_complete_checkpoint(checkpoints / "none") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "name", [TRAINED_WEIGHTS, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("how", ["missing", "cut", "overwritten"])
def test_a_checkpoint_that_does_not_open_is_passed_over_for_the_one_before_in_one_line(checkpoints, capsys, name, how):
    file = checkpoints / "checkpoint-12" / name
    if how == "missing":
        file.unlink()
    elif how == "overwritten":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        cut(file)
    assert last_complete_checkpoint(checkpoints, "run") == str(checkpoints / "checkpoint-6")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("run: checkpoint-12 is incomplete or damaged (")


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),  # as low is not better
        ([0.5, 0.6, 0.4], 2, False),
        ([0.5, 0.6, 0.7], 2, True),
        ([0.5, 0.6, 0.7], 3, False),
        ([0.5, 0.6, 0.7], None, False),
    ],
)
def test_patience_counts_the_epochs_since_the_best_one(losses, patience, over):
    epochs = [{"epoch": epoch, "val_log_loss": loss} for epoch, loss in enumerate(losses, 1)]
    assert patience_is_over(epochs, patience) is over


def test_without_the_weights_of_the_best_epoch_training_begins_again(checkpoints):
    cut(checkpoints / "checkpoint-6" / TRAINED_WEIGHTS)
    assert last_complete_checkpoint(checkpoints) is None
    shutil.rmtree(checkpoints / "checkpoint-6")
    assert last_complete_checkpoint(checkpoints) is None


@pytest.mark.parametrize("state", ["[]", '{"log_history": [], "best_model_checkpoint": null}'])
def test_a_state_without_an_epoch_is_damaged(checkpoints, state):
    (checkpoints / "checkpoint-12/trainer_state.json").write_text(state)
    assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-6")


def test_a_checkpoint_that_was_being_written_is_not_taken(checkpoints):
    (checkpoints / "checkpoint-100").mkdir()
    (checkpoints / "checkpoint-100" / "trainer_state.json").write_text('{"epoch": ')
    (checkpoints / "checkpoint-24").mkdir()
    assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-12")
