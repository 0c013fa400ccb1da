"""Training one adapter on a frozen backbone with transformers' Trainer, resumable and repeatable to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import log_loss
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from peftqa import params
from peftqa.encoder_outputs import compute_encoder_outputs, encoder_is_constant
from peftqa.errors import UserError
from peftqa.metrics import label_metrics, predict
from peftqa.scoring import label_probabilities_from_logits, pad_batch

SAMPLING = {"similar_length": "group_by_length", "random": "random"}
OPTIMIZERS = {"adamw": "adamw_torch", "adafactor": "adafactor"}
IGNORED = -100  # a target position that the loss does not count
WEIGHTS = "trainable.safetensors"


def train_adapter(
    model: torch.nn.Module,
    train: Sequence[dict],
    val: Sequence[dict],
    labels: Sequence[str],
    words: Sequence[int],
    settings: params.Train,
    learning_rate: float,
    seed: int,
    checkpoints: Path,
    on_epoch: Callable[[dict], None],
    title: str = "training",
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict]:
    """Train what `model` has that requires a gradient; leave it with the weights of its best epoch.

    train, val: examples {"input_ids": prompt, "labels": answer}, token ids of any length. The loss is the mean cross
    entropy of the answer's tokens. Best is the epoch with the lowest validation log loss over the label `words`.
    checkpoints: a folder for this run alone. Complete checkpoints in it are resumed from, to the same weights that an
    uninterrupted run ends with; the caller deletes it when the result is safe.
    on_epoch is called once an epoch with its record, epochs before a resume included. Further callbacks are Trainer's.
    Where the adapter leaves the encoder as it is, its outputs are computed once, into a file beside `checkpoints`.

    Returns one record an epoch: epoch, step, loss, val_loss, val_log_loss, val_accuracy, val_macro_f1.
    Raises UserError where the loss stops being a number.
    """
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=learning_rate,
        optim=OPTIMIZERS[settings.optimizer],
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        # Batches of similar length come in random order too: next to no padding.
        train_sampling_strategy=SAMPLING[settings.batches],
        seed=seed,
        logging_strategy="epoch",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,  # the last, and the best where that is another
        load_best_model_at_end=True,
        metric_for_best_model="log_loss",
        greater_is_better=False,
        logging_nan_inf_filter=False,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,  # EpochReport draws one bar instead of two
        report_to=[],
        # T5 averages its own loss; Trainer would take it for a sum and multiply it by the number of processes.
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
        use_cpu=not torch.cuda.is_available(),  # said outright, or several processes on CPUs do not find each other
    )
    if settings.encode_once and encoder_is_constant(model):
        train, val = (
            with_encoder_outputs(model, examples, settings.batch_size, checkpoints.with_name(f"encoded-{name}"), title)
            for name, examples in (("train", train), ("val", val))
        )
    report = EpochReport(on_epoch, title, learning_rate)
    trainer = AdapterTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=sorted(val, key=lambda example: len(example["input_ids"])),
        data_collator=lambda examples: collate(examples, model.config.pad_token_id),
        # Seq2SeqLMOutput also holds the encoder's states; of the logits only the label words' are kept.
        preprocess_logits_for_metrics=lambda outputs, _: label_probabilities_from_logits(outputs[0][:, 0], words),
        compute_metrics=lambda prediction: validation_metrics(prediction, labels, words),
        callbacks=[report, *callbacks] + ([EarlyStoppingCallback(settings.patience)] if settings.patience else []),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    return epoch_records(trainer.state.log_history)


def with_encoder_outputs(
    model: torch.nn.Module, examples: Sequence[dict], batch_size: int, path: Path, title: str
) -> list[dict]:
    """The examples, each with a function "encoder_output" that reads what the frozen encoder makes of its prompt."""
    prompts = [example["input_ids"] for example in examples]
    outputs = compute_encoder_outputs(model, prompts, batch_size, path, f"{title}, encoding")
    return [example | {"encoder_output": partial(outputs.__getitem__, row)} for row, example in enumerate(examples)]


def collate(examples: Sequence[dict], pad_id: int) -> dict[str, torch.Tensor | tuple]:
    """input_ids, attention_mask, labels: int64 (batch, longest), labels padded with IGNORED.

    And, where the examples have it, encoder_outputs: a tuple of one tensor (batch, longest, d_model), zeros as padding.
    """
    batch = pad_batch([example["input_ids"] for example in examples], pad_id)
    answers = pad_batch([example["labels"] for example in examples], IGNORED)
    if "encoder_output" in examples[0]:
        states = [example["encoder_output"]() for example in examples]
        batch["encoder_outputs"] = (pad_sequence(states, batch_first=True),)
    return batch | {"labels": answers["input_ids"]}


def validation_metrics(prediction, labels: Sequence[str], words: Sequence[int]) -> dict[str, float]:
    """log_loss, accuracy and macro_f1 of Trainer's EvalPrediction: probabilities (n, labels), answers (n, tokens).

    log_loss is not a number where a probability is none.
    """
    probabilities = np.asarray(prediction.predictions, dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    position = {word: index for index, word in enumerate(words)}
    codes = [position[word] for word in np.asarray(prediction.label_ids)[:, 0]]
    finite = np.isfinite(probabilities).all()
    scores = label_metrics(predict(probabilities, labels), [labels[code] for code in codes], labels)
    return {
        "log_loss": float(log_loss(codes, probabilities, labels=range(len(labels)))) if finite else math.nan,
        "accuracy": scores["accuracy"],
        "macro_f1": scores["macro_f1"],
    }


def epoch_records(log_history: Sequence[dict]) -> list[dict]:
    """One record an epoch out of Trainer's log, which has an entry for training and one for validation."""
    losses = {entry["step"]: entry["loss"] for entry in log_history if "loss" in entry}
    return [
        {
            "epoch": round(entry["epoch"]),
            "step": entry["step"],
            "loss": losses[entry["step"]],
            **{f"val_{name}": entry[f"eval_{name}"] for name in ("loss", "log_loss", "accuracy", "macro_f1")},
        }
        for entry in log_history
        if "eval_loss" in entry
    ]


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in `folder` that was written to its end, or None.

    Trainer writes its state last, so a checkpoint whose state is missing or cut short is one that was being written
    when the process was killed.
    """

    def complete(checkpoint: Path) -> bool:
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            return False
        return True

    found = [checkpoint for checkpoint in folder.glob("checkpoint-*") if complete(checkpoint)]
    return str(max(found, key=lambda checkpoint: int(checkpoint.name.split("-")[1]))) if found else None


class AdapterTrainer(Trainer):
    """Trainer whose checkpoints hold the trained tensors under their own names.

    PEFT's adapter format is made for use, not for resuming: a reparametrized prefix is saved as what it computes, and
    the network that computes it would be lost.
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
    """A progress bar over all steps in a terminal; one line an epoch everywhere; a stop where the loss is no number."""

    def __init__(self, on_epoch: Callable[[dict], None], title: str, learning_rate: float) -> None:
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
        if not all(math.isfinite(value) for value in record.values()):
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
