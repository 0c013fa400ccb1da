"""transformers' Trainer as this project uses it: what a checkpoint holds, and what is reported after each epoch.

`AdapterTrainer` leans on these private methods of Trainer (transformers 5.23): `_save`, `_load_from_checkpoint` and
`_load_best_model`. A release that renames one fails the resuming tests in tests/unit/test_training.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from peftqa.checkpoint import tensor_shapes
from peftqa.errors import UserError, one_line

WEIGHTS = "trainable.safetensors"
VALIDATION = ("loss", "log_loss", "accuracy", "macro_f1", "confidence")


class AdapterTrainer(Trainer):
    """Trainer whose checkpoints hold the trained tensors under their own names.

    Training cannot resume from PEFT's format: of a reparametrized prefix it has the keys and values, and not the MLP
    that computes them.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._trained().items()}
            save_file(tensors, Path(output_dir, WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint, WEIGHTS))
        with torch.no_grad():
            for name, tensor in self._trained().items():
                tensor.copy_(saved[name])

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}


class EpochReport(TrainerCallback):
    """On the first process, a progress bar (in a terminal) and a line per epoch. Stops at a NaN or infinity."""

    def __init__(self, on_epoch: Callable[[dict], None] | None, title: str, learning_rate: float) -> None:
        self.on_epoch = on_epoch
        self.title = title
        self.learning_rate = learning_rate
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if not state.is_world_process_zero:
            return
        records = epoch_records(state.log_history)
        if records:
            print(f"{self.title}: resumed after epoch {records[-1]['epoch']}", flush=True)
        for record in records:
            self.on_epoch(record)
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", disable=None)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        record = epoch_records(state.log_history)[-1]
        if not np.isfinite(np.hstack(list(record.values()))).all():
            raise UserError(
                f"{self.title}: the loss is no longer a number in epoch {record['epoch']} with learning rate "
                f"{self.learning_rate:g}; lower the adapter's learning_rate in params.yaml."
            )
        if state.is_world_process_zero:
            self.on_epoch(record)
            with tqdm.external_write_mode():
                print(
                    f"{self.title} epoch {record['epoch']}/{args.num_train_epochs}: loss {record['loss']:.4f}, "
                    f"validation loss {record['val_loss']:.4f}, label log loss {record['val_log_loss']:.4f}, "
                    f"accuracy {record['val_accuracy']:.3f}, macro-F1 {record['val_macro_f1']:.3f}",
                    flush=True,
                )

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.close()


def epoch_records(log_history: Sequence[dict]) -> list[dict]:
    """One record an epoch out of Trainer's log, which has an entry for training and one for validation."""
    losses = {entry["step"]: entry["loss"] for entry in log_history if "loss" in entry}
    return [
        {
            "epoch": round(entry["epoch"]),
            "step": entry["step"],
            "loss": losses[entry["step"]],
            **{f"val_{name}": entry[f"eval_{name}"] for name in VALIDATION},
        }
        for entry in log_history
        if "eval_loss" in entry
    ]


def last_complete_checkpoint(folder: Path, report: Callable[[str], None] = lambda line: None) -> str | None:
    """The newest checkpoint in `folder` that training can go on from, or None; newer ones are named to `report`."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    damaged, usable = [], None
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            check_whole(checkpoint)
            usable = checkpoint
            break
        except (KeyError, OSError, TypeError, UserError, ValueError, BadZipFile) as error:
            damaged.append(f"{checkpoint.name} is incomplete or damaged ({one_line(error)})")
    if damaged:
        report(f"{', '.join(damaged)}; going on from {usable.name if usable else 'the beginning'}")
    return str(usable) if usable else None


def check_whole(checkpoint: Path) -> None:
    """Raise an error where one of the files that Trainer goes on from is missing or cannot be read to its end.

    Trainer writes its state last, so a checkpoint without one was being written when the process was killed; a full
    disk, or a machine that lost power, leaves others. What is missing, Trainer would do without, in silence.
    """
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    best = checkpoint.with_name(Path(state["best_model_checkpoint"]).name)  # its weights are those kept in the end
    for folder in (checkpoint, best):
        tensor_shapes(folder / WEIGHTS)
    for pattern in (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth"):
        files = list(checkpoint.glob(pattern))
        if not files:
            raise FileNotFoundError(f"{pattern} is missing")
        for file in files:  # torch's format is a zip archive
            with ZipFile(file) as archive:
                if archive.testzip():
                    raise BadZipFile(f"{file.name} is damaged")
