"""Train one adapter of params.yaml on the frozen backbone, once for every seed in `train.seeds`.

Usage: python -m stages.train prompt
On several GPUs: torchrun --nproc-per-node 2 -m stages.train prompt
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from dvclive import Live
from transformers import set_seed

from peftqa.adapters import add_adapter, save_adapter
from peftqa.backbone import choose_device, load_backbone, load_tokenizer, peak_memory_mb
from peftqa.digest import folder_digest
from peftqa.errors import UserError
from peftqa.params import Params, read_params
from peftqa.records import read_table
from peftqa.template import encode_answers, encode_prompts, label_words
from peftqa.training import train_adapter
from stages import workspace

CODE = Path("peftqa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="a key of `adapters` in params.yaml")
    name = parser.parse_args().adapter
    params = read_params(workspace.PARAMS)
    if name not in params.adapters:
        raise UserError(f"no adapter {name!r} in {workspace.PARAMS}; there are: {', '.join(params.adapters)}.")

    tokenizer = load_tokenizer(workspace.BASE_MODEL)
    words = label_words(tokenizer, params.data.labels)
    tables = {split: read_table(workspace.SPLIT_FOLDER / f"{split}.csv") for split in ("train", "val")}
    examples = {split: encode_examples(tokenizer, table, params) for split, table in tables.items()}
    checkpoints = workspace.CHECKPOINTS / f"{name}-{run_digest(name, params)}"
    main_process = PartialState(cpu=choose_device().type == "cpu").is_main_process
    runtime = {"examples": len(examples["train"]), "seeds": {}}

    for seed in params.train.seeds:
        began = time.perf_counter()
        set_seed(seed)
        backbone = load_backbone(workspace.BASE_MODEL, params.model)
        model = add_adapter(backbone, params.adapters[name], tokenizer)
        records = train_adapter(
            model,
            examples["train"],
            examples["val"],
            labels=params.data.labels,
            words=words,
            settings=params.train,
            learning_rate=params.adapters[name].learning_rate,
            seed=seed,
            checkpoints=checkpoints / f"seed-{seed}",
            on_epoch=curve_writer(workspace.PLOTS / "training" / name / f"seed-{seed}") if main_process else None,
            title=f"{name}, seed {seed}",
        )
        if main_process:
            folder = workspace.ADAPTERS / name / f"seed-{seed}"
            save_adapter(model, folder, params.model.name, params.model.revision)
            runtime["seeds"][seed] = {"seconds": time.perf_counter() - began, "epochs": len(records)}

    if main_process:
        runtime["peak_memory_mb"] = peak_memory_mb()
        workspace.write_json(workspace.RUNTIME / f"train-{name}.json", runtime)
        shutil.rmtree(checkpoints, ignore_errors=True)


def encode_examples(tokenizer, table: pd.DataFrame, params: Params) -> list[dict]:
    """Each row as the token ids of its prompt and its answer."""
    prompts = encode_prompts(tokenizer, table, params.template, params.data.labels)
    answers = encode_answers(tokenizer, table["label"])
    return [{"input_ids": prompt, "labels": answer} for prompt, answer in zip(prompts, answers, strict=True)]


def curve_writer(folder: Path) -> Callable[[dict], None]:
    """A function that adds an epoch's record to DVCLive's curves in `folder`."""
    live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)

    def write(record: dict) -> None:
        live.step = record["step"]
        live.log_metric("epoch", record["epoch"])
        live.log_metric("train/loss", record["loss"])
        for name in ("loss", "log_loss", "accuracy", "macro_f1"):
            live.log_metric(f"val/{name}", record[f"val_{name}"])
        live.make_summary()

    return write


def run_digest(name: str, params: Params) -> str:
    """What the trained weights depend on, in 16 hexadecimal digits: no checkpoint of another run is ever resumed."""
    settings = {
        "labels": params.data.labels,
        "model": params.model.model_dump(),
        "template": params.template.model_dump(),
        "adapter": params.adapters[name].model_dump(),
        "train": params.train.model_dump(exclude={"seeds"}),
        "split": folder_digest(workspace.SPLIT_FOLDER),
        "base": folder_digest(workspace.BASE_MODEL),
        "code": [path.read_text(encoding="utf-8") for kind in ("*.py", "*.cpp") for path in sorted(CODE.glob(kind))],
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


if __name__ == "__main__":
    workspace.run(main)
