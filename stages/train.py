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
from pathlib import Path

import pandas as pd
import pooch
from accelerate import PartialState
from dvclive import Live
from torch import distributed
from transformers import set_seed

from peftqa.adapters import add_adapter, save_adapter
from peftqa.backbone import choose_device, load_backbone, load_tokenizer, memory_explained, peak_memory_mb
from peftqa.fetch.digest import folder_digest
from peftqa.params import Params, read_params
from peftqa.prompts import encode_examples, first_token_ids
from peftqa.records import read_table
from peftqa.task import BaseModelFiles, Task, write_task
from peftqa.training import run_seed, train_adapter
from stages import workspace
from stages.processes import start_processes


@memory_explained()
def main() -> None:
    params = read_params(workspace.PARAMS)
    name, fold, seed = workspace.find_run(workspace.stage_key(), params, params.adapters)
    adapter, run = params.adapters[name], (fold, seed)
    if params.train.processes > 1 and "LOCAL_RANK" not in os.environ:
        return start_processes(params.train.processes, params.model.threads)
    # From here on this process knows the others, and which GPU is its own.
    main_process = PartialState(cpu=choose_device().type == "cpu").is_main_process
    began = time.perf_counter()

    tokenizer = load_tokenizer(workspace.BASE_MODEL)
    train, val = (read_table(workspace.fold_table(fold, split)) for split in ("train", "val"))
    examples = encode_examples(tokenizer, pd.concat([train, val]), params.template, params.data.labels)
    examples = {"train": examples[: len(train)], "val": examples[len(train) :]}
    backbone = load_backbone(workspace.BASE_MODEL, params.model)
    set_seed(run_seed(name, fold, seed))
    model = add_adapter(backbone, adapter, tokenizer)

    checkpoints = workspace.CHECKPOINTS / f"{name}-{fold}-{seed}-{run_digest(name, fold, params)}"
    records = train_adapter(
        model,
        adapter,
        examples["train"],
        examples["val"],
        label_token_ids=first_token_ids(tokenizer, params.data.labels),
        settings=params.train,
        seed=run_seed(name, fold, seed),
        checkpoints=checkpoints,
        on_epoch=curve_writer(checkpoints / "curves") if main_process else None,
        title=f"{name}, fold {fold}, seed {seed}",
    )
    if main_process:
        with workspace.written(workspace.of_run(workspace.TRAINING_CURVES, name, run)) as partial:
            shutil.copytree(checkpoints / "curves", partial)
        with workspace.written(workspace.of_run(workspace.ADAPTERS, name, run)) as partial:
            save_adapter(model, partial, params.model.name, params.model.revision)
            write_task(partial, task(records, params))
        runtime = {
            "seconds": time.perf_counter() - began,
            "examples": len(examples["train"]),
            "epochs": len(records),
            "peak_memory_mb": peak_memory_mb(),
        }
        workspace.write_json(workspace.of_run(workspace.RUNTIME / "train", name, run, ".json"), runtime)
        shutil.rmtree(checkpoints, ignore_errors=True)
    if distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        os._exit(0)  # all is written, and gloo's way of shutting down now and then waits for ever


def task(records: list[dict], params: Params) -> Task:
    """How the adapter must be asked, and how sure it was on validation in the epoch that was kept."""
    kept = min(records, key=lambda record: record["val_log_loss"])
    name, revision, dtype = params.model.name, params.model.revision, params.model.dtype
    base = BaseModelFiles(name=name, revision=revision, digest=folder_digest(workspace.BASE_MODEL), dtype=dtype)
    confidence = [round(value, 6) for value in kept["val_confidence"]]
    return Task(base_model=base, labels=params.data.labels, template=params.template, confidence=confidence)


def curve_writer(folder: Path) -> Callable[[dict], None]:
    """A function that adds an epoch's record to DVCLive's curves in `folder`.

    Beside the curves, metrics.json has the last epoch's numbers and, under "best", the validation figures of the epoch
    whose weights are kept: the first of lowest log loss (`workspace.training_summary` reads them).
    """
    live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
    records = []

    def write(record: dict) -> None:
        records.append(record)
        best = min(records, key=lambda epoch: epoch["val_log_loss"])
        live.summary["best"] = {key: best[key] for key in best if key == "epoch" or key.startswith("val_")}
        live.step = record["step"]
        live.log_metric("epoch", record["epoch"])
        live.log_metric("train/loss", record["loss"])
        for name in ("loss", "log_loss", "accuracy", "macro_f1"):
            live.log_metric(f"val/{name}", record[f"val_{name}"])
        live.make_summary()

    return write


def run_digest(name: str, fold: int, params: Params) -> str:
    """A hash of all that the trained weights depend on. It names the run's checkpoints: none is resumed after a change.

    Call it after the model is loaded: it hashes the modules imported by then, and loading imports the fast path.
    """
    settings = {
        "labels": params.data.labels,
        "model": params.model.model_dump(),
        "template": params.template.model_dump(),
        "adapter": params.adapters[name].model_dump(),
        "train": params.train.model_dump(exclude={"seeds"}),
        "data": [pooch.file_hash(workspace.fold_table(fold, split)) for split in ("train", "val")],
        "base": folder_digest(workspace.BASE_MODEL),
        "code": [pooch.file_hash(path) for path in imported_code()],
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def imported_code() -> list[Path]:
    """The modules of peftqa that this process has imported, this script, and the C++ source of the fast path.

    params.py is left out: the settings that it checks are hashed themselves.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith("peftqa.")]
    files = {Path(module.__file__) for module in modules if module.__file__} | {Path(__file__)}
    files |= {source for file in files for source in file.parent.glob("*.cpp") if file.parent.name == "fast"}
    return sorted(file for file in files if file.name != "params.py")


if __name__ == "__main__":
    workspace.run(main)
