"""Training one adapter on a frozen backbone with transformers' Trainer, resumable and repeatable to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch.nn.utils.rnn import pad_sequence
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainingArguments

from peftqa.adapters import Adapter, encoder_is_constant
from peftqa.encoder_outputs import with_encoder_outputs
from peftqa.scoring import label_probabilities_from_logits, pad_batch
from peftqa.trainer import AdapterTrainer, EpochReport, epoch_records, last_complete_checkpoint

if TYPE_CHECKING:
    from peft import PeftModel

    from peftqa.params import Train

SAMPLING = {"similar_length": "group_by_length", "random": "random"}
OPTIMIZERS = {"adamw": "adamw_torch", "adafactor": "adafactor"}
IGNORED = -100  # a target position that the loss does not count


def run_seed(adapter: str, fold: int, seed: int) -> int:
    """The seed of one run's random numbers, below 2**32: no two runs of an experiment draw the same ones.

    Were a seed's numbers the same in every fold, its folds would share their luck, and tests over folds would take that
    luck for an effect of the method.
    """
    return int(np.random.SeedSequence([seed, fold, *adapter.encode()]).generate_state(1)[0])


def train_adapter(
    model: PeftModel,
    adapter: Adapter,
    train: Sequence[dict],
    val: Sequence[dict],
    *,
    label_token_ids: Sequence[int],
    settings: Train,
    seed: int,
    checkpoints: Path,
    on_epoch: Callable[[dict], None],
    title: str = "training",
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict]:
    """Train what `model` has that requires a gradient; leave it with the weights of its best epoch.

    train, val: examples {"input_ids": prompt, "labels": answer}, token ids of any length. The loss is the mean cross
    entropy of the answer's tokens. Best is the epoch with the lowest validation log loss over the labels, which
    `label_token_ids` stand for.
    checkpoints: a folder for this run alone. Complete checkpoints in it are resumed from, to the same weights that an
    uninterrupted run ends with; the caller deletes it when the result is safe.
    on_epoch is called once an epoch with its record, epochs before a resume included. Further callbacks are Trainer's.
    Where the adapter leaves the encoder as it is, its outputs are computed once, into files in `checkpoints`.

    Returns one record an epoch: epoch, step, loss, val_loss, val_log_loss, val_accuracy, val_macro_f1.
    Raises UserError where the loss stops being a number.
    """
    if settings.encode_once and encoder_is_constant(model, adapter):
        train, val = (
            with_encoder_outputs(model, examples, settings.batch_size, checkpoints / f"encoded-{name}", title)
            for name, examples in (("train", train), ("val", val))
        )
    trainer = AdapterTrainer(
        model=model,
        args=training_arguments(settings, adapter.learning_rate, seed, checkpoints),
        train_dataset=train,
        eval_dataset=sorted(val, key=lambda example: len(example["input_ids"])),
        data_collator=lambda examples: collate(examples, model.config.pad_token_id),
        # Trainer would keep every logit of every question, and the encoder's states: keep the labels' alone.
        preprocess_logits_for_metrics=lambda outputs, _: label_probabilities_from_logits(
            outputs[0][:, 0], label_token_ids
        ),
        compute_metrics=lambda prediction: validation_metrics(
            prediction.predictions, prediction.label_ids, label_token_ids
        ),
        callbacks=[
            EpochReport(on_epoch, title, adapter.learning_rate),
            *callbacks,
            *([EarlyStoppingCallback(settings.patience)] if settings.patience else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    return epoch_records(trainer.state.log_history)


def training_arguments(settings: Train, learning_rate: float, seed: int, checkpoints: Path) -> TrainingArguments:
    """Trainer's arguments for a run: the numbers are params.yaml's, the rest keeps Trainer quiet and repeatable."""
    return TrainingArguments(
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


def validation_metrics(
    probabilities: np.ndarray, answers: np.ndarray, label_token_ids: Sequence[int]
) -> dict[str, float]:
    """log_loss, accuracy and macro_f1 of probabilities (n, labels) for answers' token ids (n, tokens).

    log_loss is NaN where a probability is NaN: training has diverged, and EpochReport stops it.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = range(len(label_token_ids))
    y_true = [list(label_token_ids).index(token) for token in np.asarray(answers)[:, 0]]
    y_pred = probabilities.argmax(axis=1)
    finite = np.isfinite(probabilities).all()
    return {
        "log_loss": float(log_loss(y_true, probabilities, labels=labels)) if finite else math.nan,
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "macro_f1": float(f1_score(y_true, y_pred, labels=labels, average="macro", zero_division=0)),
    }
