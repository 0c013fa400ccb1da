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

from peftqa.errors import UserError, one_line
from peftqa.model.checkpoint import tensor_shapes

TRAINED_WEIGHTS = "trainable.safetensors"
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
            save_file(tensors, Path(output_dir, TRAINED_WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint, TRAINED_WEIGHTS))
        with torch.no_grad():
            for name, tensor in self._trained().items():
                tensor.copy_(saved[name])

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}


class EpochReport(TrainerCallback):
    """On the first process, a progress bar (in a terminal) and a line per epoch.

    Ends training at a NaN or infinity, and when patience is over (not by transformers' EarlyStoppingCallback, whose
    count begins anew in a resumed training).
    """

    def __init__(
        self, on_epoch: Callable[[dict], None] | None, title: str, learning_rate: float, patience: int | None
    ) -> None:
        self.on_epoch = on_epoch
        self.title = title
        self.learning_rate = learning_rate
        self.patience = patience
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if not state.is_world_process_zero:
            return
        earlier = epoch_metrics(state.log_history)
        if earlier:
            print(f"{self.title}: resumed after epoch {earlier[-1]['epoch']}", flush=True)
        for metrics in earlier:
            self.on_epoch(metrics)
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", disable=None)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        epochs = epoch_metrics(state.log_history)
        last = epochs[-1]
        if not np.isfinite(np.hstack(list(last.values()))).all():
            raise UserError(
                f"{self.title}: the loss is no longer a number in epoch {last['epoch']} with learning rate "
                f"{self.learning_rate:g}; lower the adapter's learning_rate in params.yaml."
            )
        if state.is_world_process_zero:
            self.on_epoch(last)
            with tqdm.external_write_mode():
                print(
                    f"{self.title} epoch {last['epoch']}/{args.num_train_epochs}: loss {last['loss']:.4f}, "
                    f"validation loss {last['val_loss']:.4f}, label log loss {last['val_log_loss']:.4f}, "
                    f"accuracy {last['val_accuracy']:.3f}, macro-F1 {last['val_macro_f1']:.3f}",
                    flush=True,
                )
        control.should_training_stop |= patience_is_over(epochs, self.patience)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self.bar is not None:
            self.bar.close()


def epoch_metrics(log_history: Sequence[dict]) -> list[dict]:
    """Each epoch's metrics out of Trainer's log, which has an entry for training and one for validation."""
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


def best_epoch(epochs: Sequence[dict]) -> dict:
    """The metrics of the epoch whose weights are kept: the first of lowest validation log loss."""
    return min(epochs, key=lambda metrics: metrics["val_log_loss"])


def patience_is_over(epochs: Sequence[dict], patience: int | None) -> bool:
    """Whether the last `patience` epochs have all been no better than one before."""
    return patience is not None and epochs[-1]["epoch"] - best_epoch(epochs)["epoch"] >= patience


def last_complete_checkpoint(
    folder: Path, report: Callable[[str], None] = lambda line: None, processes: int = 1
) -> str | None:
    """The newest checkpoint in `folder` that training can go on from, or None; newer ones are named to `report`.

    processes: how many train together; each keeps the state of its random numbers.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    damaged, usable = [], None
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            check_whole(checkpoint, processes)
            usable = checkpoint
            break
        except (KeyError, OSError, TypeError, UserError, ValueError, BadZipFile) as error:
            damaged.append(f"{checkpoint.name} is incomplete or damaged ({one_line(error)})")
    if damaged:
        report(f"{', '.join(damaged)}; going on from {usable.name if usable else 'the beginning'}")
    return str(usable) if usable else None


def check_whole(checkpoint: Path, processes: int) -> None:
    """Raise an error where one of the files that Trainer goes on from is missing or cannot be read to its end.

    The error is a KeyError, OSError, TypeError, UserError, ValueError or BadZipFile.

    Trainer writes its state last, so a checkpoint without one was being written when the process was killed; a full
    disk, or a machine that lost power, leaves others. What is missing, Trainer would do without, in silence.
    """
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    best = checkpoint.with_name(Path(state["best_model_checkpoint"]).name)  # its weights are those kept in the end
    for folder in (checkpoint, best):
        tensor_shapes(folder / TRAINED_WEIGHTS)
    random = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes > 1 else ["rng_state.pth"]
    for name in (OPTIMIZER_NAME, SCHEDULER_NAME, *random):
        with ZipFile(checkpoint / name) as archive:  # torch's format is a zip archive
            if archive.testzip():
                raise BadZipFile(f"{name} is damaged")
