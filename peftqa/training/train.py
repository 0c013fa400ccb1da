"""Train one adapter on a frozen backbone with transformers' Trainer, resumably and repeatably to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from peftqa.config.adapters import AdapterSettings
from peftqa.model.scoring import label_probabilities_from_logits, pad_batch
from peftqa.model.task import confidence_quantiles
from peftqa.training.trainer import (
    AdapterTrainer,
    EpochReport,
    epoch_metrics,
    last_complete_checkpoint,
    patience_is_over,
)

if TYPE_CHECKING:
    from peft import PeftModel

    from peftqa.config.params import TrainSettings

# The words of params.yaml in transformers' terms. Its "constant" would ignore warm-up.
NAMES = {"similar_length": "group_by_length", "constant": "constant_with_warmup", "adamw": "adamw_torch"}
IGNORE_INDEX = -100  # a target position that the loss does not count


def run_seed(adapter: str, fold: int, seed: int) -> int:
    """The seed of one run's random numbers, below 2**32. Each run has its own.

    If all folds used the same random numbers, their results would be correlated, and tests over folds would be wrong.
    """
    return int(np.random.SeedSequence([seed, fold, *adapter.encode()]).generate_state(1)[0])


def train_adapter(
    model: PeftModel,
    adapter: AdapterSettings,
    train: Sequence[dict],
    val: Sequence[dict],
    *,
    label_token_ids: Sequence[int],
    settings: TrainSettings,
    seed: int,
    checkpoints: Path,
    on_epoch: Callable[[], None] = lambda: None,
    title: str = "training",
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict]:
    """Train the parameters of `model` that require a gradient, and leave it with the weights of its best epoch.

    train, val: examples {"input_ids": prompt, "labels": answer}, token ids of any length. The loss is the mean cross
    entropy of the answer's tokens. The best epoch has the lowest validation log loss over the labels.
    label_token_ids: the first token id of each label.
    checkpoints: this run's own folder. Training resumes from its newest complete checkpoint and ends with the same
    weights as an uninterrupted run. The caller deletes the folder after saving the result.
    on_epoch: called after each epoch, except those trained before a resume.

    Returns each epoch's metrics (`epoch_metrics`), also from before a resume. Raises UserError if one is not finite.
    """
    trainer = AdapterTrainer(
        model=model,
        args=training_arguments(settings, adapter, seed, checkpoints),
        train_dataset=train,
        eval_dataset=sorted(val, key=lambda example: len(example["input_ids"])),
        data_collator=lambda examples: collate(examples, model.config.pad_token_id),
        # Trainer would keep all logits and the encoder's states. out[0]: logits (batch, positions, vocabulary);
        # position 0 predicts the label's first token.
        preprocess_logits_for_metrics=lambda out, _: label_probabilities_from_logits(out[0][:, 0], label_token_ids),
        compute_metrics=lambda found: validation_metrics(found.predictions, found.label_ids, label_token_ids),
        callbacks=[EpochReport(on_epoch, title, adapter.learning_rate, settings.patience), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)  # with disable_tqdm it prints every entry of the log

    checkpoint = last_complete_checkpoint(checkpoints, title)
    if checkpoint:
        epochs = epoch_metrics(TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).log_history)
        if patience_is_over(epochs, settings.patience):  # killed after its last epoch, so only load the best weights
            trainer.args.num_train_epochs = len(epochs)
    trainer.train(resume_from_checkpoint=checkpoint)
    return epoch_metrics(trainer.state.log_history)


def training_arguments(
    settings: TrainSettings, adapter: AdapterSettings, seed: int, checkpoints: Path
) -> TrainingArguments:
    """Trainer's arguments for a run. The numbers are params.yaml's; the rest keeps Trainer quiet and repeatable."""
    schedule = adapter.schedule or settings.schedule
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=adapter.learning_rate,
        optim=NAMES.get(settings.optimizer, settings.optimizer),
        lr_scheduler_type=NAMES.get(schedule, schedule),
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        train_sampling_strategy=NAMES.get(settings.batches, settings.batches),
        seed=seed,
        logging_strategy="epoch",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,  # the last checkpoint, and also the best if it is another one
        load_best_model_at_end=True,
        metric_for_best_model="log_loss",
        logging_nan_inf_filter=False,  # EpochReport must see a NaN
        # Trainer cannot read these names off the signature of PEFT's forward.
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,  # EpochReport draws one bar instead of two
        use_cpu=not torch.cuda.is_available(),
    )
    # One GPU. Trainer would put a copy of the model on each GPU that it sees and give each of them a whole batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def collate(examples: Sequence[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask, labels: int64 (batch, longest), labels padded with IGNORE_INDEX."""
    batch = pad_batch([example["input_ids"] for example in examples], pad_id)
    answers = [torch.as_tensor(example["labels"]) for example in examples]
    return batch | {"labels": pad_sequence(answers, batch_first=True, padding_value=IGNORE_INDEX)}


def validation_metrics(
    probabilities: np.ndarray, answers: np.ndarray, label_token_ids: Sequence[int]
) -> dict[str, float | list[float]]:
    """log_loss, accuracy, macro_f1 and confidence of label probabilities (n, labels).

    answers: token ids of the right answers (n, tokens). log_loss is NaN if a probability is NaN.
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
        "confidence": confidence_quantiles(probabilities),
    }
