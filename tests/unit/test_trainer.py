"""What is read out of Trainer's log and its checkpoints."""

from peftqa.trainer import epoch_records, last_complete_checkpoint


def test_epoch_records_join_training_and_validation():
    log = [
        {"loss": 1.5, "epoch": 1.0, "step": 6, "grad_norm": 1.0},
        {"eval_loss": 1.4, "eval_log_loss": 0.6, "eval_accuracy": 0.5, "eval_macro_f1": 0.4, "epoch": 1.0, "step": 6},
        {"train_runtime": 3.0, "epoch": 1.0, "step": 6},
    ]
    assert epoch_records(log) == [
        {
            "epoch": 1,
            "step": 6,
            "loss": 1.5,
            "val_loss": 1.4,
            "val_log_loss": 0.6,
            "val_accuracy": 0.5,
            "val_macro_f1": 0.4,
        }
    ]


def test_the_newest_checkpoint_whose_state_is_whole_is_taken(tmp_path):
    assert last_complete_checkpoint(tmp_path / "none") is None
    states = {6: '{"epoch": 1}', 12: '{"epoch": 2}', 100: '{"epoch": ', 24: ""}
    for step, state in states.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-200").mkdir()
    (tmp_path / "encoded-train").write_bytes(b"")
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
