"""Train one adapter on one fold with one seed, on the frozen backbone: python -m stages.train prompt-0-42"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, set_seed

from peftqa.config.params import Params, read_params
from peftqa.data.digest import digest, folder_digest
from peftqa.data.files import atomic_write, read_json, read_table, write_csv, write_json
from peftqa.model.adapters import add_adapter, save_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer, memory_explained, peak_memory_mb
from peftqa.model.prompts import encode_examples, first_token_ids
from peftqa.model.task import BaseModelReference, Task, Training, describe_training, weights_digest, write_task
from peftqa.training.train import run_seed, train_adapter
from peftqa.training.trainer import best_epoch
from stages import run_stage, runs


@memory_explained()
def main() -> None:
    params = read_params()
    name, fold, seed = runs.find_run(runs.stage_key(), params, params.adapters)
    checkpoints = runs.CHECKPOINTS / f"{name}-{fold}-{seed}-{run_digest(name, fold, params)}"
    seconds = stopwatch(checkpoints / "seconds.json")

    tokenizer = load_tokenizer(runs.BASE_MODEL)
    train, val = (
        encode_examples(tokenizer, read_table(runs.fold_table(fold, split)), params.template, params.data.labels)
        for split in ("train", "val")
    )
    backbone = load_backbone(runs.BASE_MODEL, params.model)
    set_seed(run_seed(name, fold, seed))
    model = add_adapter(backbone, params.adapters[name], tokenizer, params.data.labels)
    epochs = train_adapter(
        model,
        params.adapters[name],
        train,
        val,
        label_token_ids=first_token_ids(tokenizer, params.data.labels),
        settings=params.train,
        seed=run_seed(name, fold, seed),
        checkpoints=checkpoints,
        on_epoch=seconds,
        title=f"{name}, fold {fold}, seed {seed}",
    )
    runtime = {"seconds": seconds(), "examples": len(train), "epochs": len(epochs), "peak_memory_mb": peak_memory_mb()}
    save_run(model, tokenizer, name, (fold, seed), epochs, runtime, params)
    shutil.rmtree(checkpoints, ignore_errors=True)


def stopwatch(file: Path) -> Callable[[], float]:
    """A function that returns how many seconds this training has taken; `file` keeps them.

    If the training was killed and resumed, the seconds before are included, up to the last whole epoch. The part after
    that epoch is done again, so only its second attempt counts.
    """
    began = time.perf_counter()
    earlier = read_json(file)["seconds"] if file.exists() else 0.0

    def seconds() -> float:
        total = earlier + time.perf_counter() - began
        write_json(file, {"seconds": total})
        return total

    return seconds


def save_run(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    run: tuple[int, int],
    epochs: list[dict],
    runtime: dict,
    params: Params,
) -> None:
    """Write the results of a training: its table of epochs, the adapter with its task.json, and its time and memory."""
    write_csv(runs.epochs_table(name, run), pd.DataFrame(epochs).drop(columns=["trainable_params", "val_confidence"]))
    training = describe_training(tokenizer, read_table(runs.fold_table(run[0], "train")), params.data.name)
    with atomic_write(runs.run_path(runs.ADAPTERS, name, run)) as partial:
        save_adapter(model, partial, params.model.name, params.model.revision)
        write_task(partial, task(partial, epochs, training, params))
    write_json(runs.run_path(runs.RUNTIME / "train", name, run, ".json"), runtime)


def task(adapter: Path, epochs: list[dict], training: Training, params: Params) -> Task:
    """How the adapter must be asked, and how sure it was on validation in the epoch that was kept."""
    name, revision, dtype = params.model.name, params.model.revision, params.model.dtype
    return Task(
        weights=weights_digest(adapter),
        trainable_params=max(epoch["trainable_params"] for epoch in epochs),
        base_model=BaseModelReference(name=name, revision=revision, digest=folder_digest(runs.BASE_MODEL), dtype=dtype),
        labels=params.data.labels,
        template=params.template,
        confidence=[round(value, 6) for value in best_epoch(epochs)["val_confidence"]],
        training=training,
    )


def run_digest(name: str, fold: int, params: Params) -> str:
    """A hash of what the trained weights depend on: settings, tables, frozen model, code, and the libraries' versions.

    It is part of the name of the run's checkpoint folder, so that training does not resume from old checkpoints after a
    change.
    """
    settings = {
        "labels": params.data.labels,
        "model": params.model.model_dump(),
        "template": params.template.model_dump(),
        "adapter": params.adapters[name].model_dump(),
        "train": params.train.model_dump(exclude={"seeds"}),
        "data": [digest(runs.fold_table(fold, split)) for split in ("train", "val")],
        "base": folder_digest(runs.BASE_MODEL),
        "code": [digest(path) for path in runs.training_code()],
        "libraries": [version(name) for name in ("torch", "transformers", "peft")],
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


if __name__ == "__main__":
    run_stage(main)
