"""transformers' Trainer as this project uses it: the contents of a checkpoint, and the report after each epoch.

`AdapterTrainer` needs these private methods of Trainer (transformers 5.23): `_save`, `_load_from_checkpoint` and
`_load_best_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from peftqa.errors import UserError, one_line

TRAINED_WEIGHTS = "trainable.safetensors"
VALIDATION = ("loss", "log_loss", "accuracy", "macro_f1", "confidence")


class AdapterTrainer(Trainer):
    """Trainer whose checkpoints hold the trained tensors under their own names.

    Training cannot resume from PEFT's format, which lacks networks that only training needs, such as a prefix's MLP.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
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
    """Shows a progress bar (in a terminal) and a line per epoch, and counts the parameters that get a gradient.

    All elements of a tensor count if any has a nonzero gradient in at least one step of the epoch. Training ends at a
    NaN or infinity, and when patience is over. transformers' EarlyStoppingCallback is not used: it would count anew
    after a resume.
    """

    def __init__(self, on_epoch: Callable[[], None], title: str, learning_rate: float, patience: int | None) -> None:
        self.on_epoch, self.title, self.learning_rate, self.patience = on_epoch, title, learning_rate, patience
        self.trained: dict[str, int] = {}  # elements of each tensor that got a gradient in this epoch, by name

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if earlier := epoch_metrics(state.log_history):
            print(f"{self.title}: resumed after epoch {earlier[-1]['epoch']}", flush=True)
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", disable=None)

    def on_pre_optimizer_step(self, args, state, control, *, model, **kwargs) -> None:
        for name, tensor in model.named_parameters():
            if tensor.grad is not None and name not in self.trained and tensor.grad.any():
                self.trained[name] = tensor.numel()

    def on_log(self, args, state, control, **kwargs) -> None:
        if "loss" in state.log_history[-1]:
            state.log_history[-1]["trainable_params"] = sum(self.trained.values())
            self.trained = {}

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        epochs = epoch_metrics(state.log_history)
        last = epochs[-1]
        if not np.isfinite(np.hstack(list(last.values()))).all():
            raise UserError(
                f"{self.title}: the loss is no longer a number in epoch {last['epoch']} with learning rate "
                f"{self.learning_rate:g}; lower the adapter's learning_rate in params.yaml."
            )
        self.on_epoch()
        with tqdm.external_write_mode():
            print(
                f"{self.title} epoch {last['epoch']}/{args.num_train_epochs}: loss {last['loss']:.4f}, "
                f"validation loss {last['val_loss']:.4f}, label log loss {last['val_log_loss']:.4f}, "
                f"accuracy {last['val_accuracy']:.3f}, macro-F1 {last['val_macro_f1']:.3f}",
                flush=True,
            )
        control.should_training_stop |= patience_is_over(epochs, self.patience)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.bar.close()


def epoch_metrics(log_history: Sequence[dict]) -> list[dict]:
    """Each epoch's metrics from Trainer's log, which has one entry for training and one for validation."""
    training = {entry["step"]: entry for entry in log_history if "loss" in entry}
    return [
        {
            "epoch": round(entry["epoch"]),
            "step": entry["step"],
            **{name: training[entry["step"]][name] for name in ("loss", "trainable_params")},
            **{f"val_{name}": entry[f"eval_{name}"] for name in VALIDATION},
        }
        for entry in log_history
        if "eval_loss" in entry
    ]


def best_epoch(epochs: Sequence[dict]) -> dict:
    """The metrics of the epoch whose weights are kept: the first with the lowest validation log loss."""
    return min(epochs, key=lambda metrics: metrics["val_log_loss"])


def patience_is_over(epochs: Sequence[dict], patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs ago or more."""
    return patience is not None and epochs[-1]["epoch"] - best_epoch(epochs)["epoch"] >= patience


def last_complete_checkpoint(folder: Path, title: str = "training") -> str | None:
    """The newest checkpoint in `folder` that training can go on from, or None. It prints the ones that it skipped."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            check_complete(checkpoint)
            return str(checkpoint)
        except Exception as error:  # each library has errors of its own for a file that is cut off
            problem = f"{checkpoint.name} is incomplete or damaged ({one_line(error)})"
            print(f"{title}: {problem}; going on from an earlier one or from the beginning", flush=True)
    return None


def check_complete(checkpoint: Path) -> None:
    """Raise an error, of any kind, if a file that Trainer goes on from is missing or cannot be read to its end.

    A kill, a full disk or a power failure can leave such damage. If a file is missing, Trainer trains without it and is
    silent.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    epoch_metrics(state.log_history)[-1]  # an IndexError if there are zero epochs
    best = checkpoint.with_name(Path(state.best_model_checkpoint).name)  # its weights are kept in the end
    for folder in (checkpoint, best):
        load_file(folder / TRAINED_WEIGHTS)
    for name in (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state.pth"):
        with ZipFile(checkpoint / name) as archive:  # torch's format is a zip archive
            if archive.testzip():
                raise BadZipFile(f"{name} is damaged")
