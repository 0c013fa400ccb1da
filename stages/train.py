"""Train one adapter on one fold with one seed, on the frozen backbone: python -m stages.train prompt-0-42

With `train.processes` above 1 it starts itself that many times (stages/processes.py); the first process writes.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from accelerate import PartialState
from dvclive import Live
from peft import PeftModel
from torch import distributed
from transformers import PreTrainedTokenizerBase, set_seed

from peftqa.config.params import Params, read_params
from peftqa.data.records import read_table
from peftqa.fetch.digest import digest, folder_digest
from peftqa.model.adapters import add_adapter, save_adapter
from peftqa.model.backbone import choose_device, load_backbone, load_tokenizer, memory_explained, peak_memory_mb
from peftqa.model.prompts import encode_examples, first_token_ids
from peftqa.model.task import BaseModelReference, Task, Training, describe_training, weights_digest, write_task
from peftqa.training.train import run_seed, train_adapter
from peftqa.training.trainer import best_epoch
from stages import workspace
from stages.processes import start_processes


@memory_explained()
def main() -> None:
    params = read_params(workspace.PARAMS)
    name, fold, seed = workspace.find_run(workspace.stage_key(), params, params.adapters)
    if params.train.processes > 1 and "LOCAL_RANK" not in os.environ:  # which torchrun sets in those that it starts
        return start_processes(params.train.processes, params.model.threads)
    # From here on this process knows the others, and which GPU is its own.
    main_process = PartialState(cpu=choose_device().type == "cpu").is_main_process
    checkpoints = workspace.CHECKPOINTS / f"{name}-{fold}-{seed}-{run_digest(name, fold, params)}"
    seconds = stopwatch(checkpoints / "seconds.json")

    tokenizer = load_tokenizer(workspace.BASE_MODEL)
    train, val = (
        encode_examples(tokenizer, read_table(workspace.fold_table(fold, split)), params.template, params.data.labels)
        for split in ("train", "val")
    )
    backbone = load_backbone(workspace.BASE_MODEL, params.model)
    set_seed(run_seed(name, fold, seed))
    model = add_adapter(backbone, params.adapters[name], tokenizer)
    write_curves = curve_writer(checkpoints / "curves") if main_process else None

    def on_epoch(metrics: dict) -> None:
        write_curves(metrics)
        seconds()

    epochs = train_adapter(
        model,
        params.adapters[name],
        train,
        val,
        label_token_ids=first_token_ids(tokenizer, params.data.labels),
        settings=params.train,
        seed=run_seed(name, fold, seed),
        checkpoints=checkpoints,
        on_epoch=on_epoch if main_process else None,
        title=f"{name}, fold {fold}, seed {seed}",
    )
    if main_process:
        runtime = {
            "seconds": seconds(),
            "examples": len(train),
            "epochs": len(epochs),
            "peak_memory_mb": peak_memory_mb(),
        }
        save_run(model, tokenizer, name, (fold, seed), epochs, checkpoints / "curves", runtime, params)
        shutil.rmtree(checkpoints, ignore_errors=True)
    if distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        os._exit(0)  # all is written, and gloo's way of shutting down now and then waits for ever


def stopwatch(file: Path) -> Callable[[], float]:
    """A function that returns the seconds since now, and those of an earlier start that was cut off; `file` keeps them.

    What was cut off after its last epoch is not counted: that part is done again.
    """
    began = time.perf_counter()
    earlier = workspace.read_json(file)["seconds"] if file.exists() else 0.0

    def seconds() -> float:
        total = earlier + time.perf_counter() - began
        workspace.write_json(file, {"seconds": total})
        return total

    return seconds


def save_run(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    run: tuple[int, int],
    epochs: list[dict],
    curves: Path,
    runtime: dict,
    params: Params,
) -> None:
    """Write what a finished training leaves: its curves, the adapter with its task, and what it took."""
    with workspace.atomic_write(workspace.run_path(workspace.TRAINING_CURVES, name, run)) as partial:
        shutil.copytree(curves, partial)
    training = describe_training(tokenizer, read_table(workspace.fold_table(run[0], "train")), params.data.name)
    with workspace.atomic_write(workspace.run_path(workspace.ADAPTERS, name, run)) as partial:
        save_adapter(model, partial, params.model.name, params.model.revision)
        write_task(partial, task(partial, epochs, training, params))
    workspace.write_json(workspace.run_path(workspace.RUNTIME / "train", name, run, ".json"), runtime)


def task(adapter: Path, epochs: list[dict], training: Training, params: Params) -> Task:
    """How the adapter must be asked, and how sure it was on validation in the epoch that was kept."""
    name, revision, dtype = params.model.name, params.model.revision, params.model.dtype
    return Task(
        weights=weights_digest(adapter),
        base_model=BaseModelReference(
            name=name, revision=revision, digest=folder_digest(workspace.BASE_MODEL), dtype=dtype
        ),
        labels=params.data.labels,
        template=params.template,
        confidence=[round(value, 6) for value in best_epoch(epochs)["val_confidence"]],
        training=training,
    )


def curve_writer(folder: Path) -> Callable[[dict], None]:
    """A function that adds an epoch's metrics to DVCLive's curves in `folder`.

    Beside the curves, metrics.json has the last epoch's numbers and, under "best", the validation figures of the epoch
    whose weights are kept (`workspace.training_summary` reads them).
    """
    live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
    epochs = []

    def write(metrics: dict) -> None:
        epochs.append(metrics)
        best = best_epoch(epochs)
        live.summary["best"] = {key: best[key] for key in best if key == "epoch" or key.startswith("val_")}
        live.step = metrics["step"]
        live.log_metric("epoch", metrics["epoch"])
        live.log_metric("train/loss", metrics["loss"])
        for name in ("loss", "log_loss", "accuracy", "macro_f1"):
            live.log_metric(f"val/{name}", metrics[f"val_{name}"])
        live.make_summary()

    return write


def run_digest(name: str, fold: int, params: Params) -> str:
    """A hash of what the trained weights depend on: settings, tables, frozen model, code, and the libraries' versions.

    It names the run's checkpoints, so that none is resumed after a change.
    """
    settings = {
        "labels": params.data.labels,
        "model": params.model.model_dump(),
        "template": params.template.model_dump(),
        "adapter": params.adapters[name].model_dump(),
        "train": params.train.model_dump(exclude={"seeds"}),
        "data": [digest(workspace.fold_table(fold, split)) for split in ("train", "val")],
        "base": folder_digest(workspace.BASE_MODEL),
        "code": [digest(path) for path in workspace.training_code()],
        "libraries": [version(name) for name in ("torch", "transformers", "peft")],
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


if __name__ == "__main__":
    workspace.run_stage(main)
