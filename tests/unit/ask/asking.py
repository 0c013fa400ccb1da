"""An adapter of random weights beside a tiny model, as the pipeline leaves both, and how a process asks it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter

from peftqa.config.params import AnyAdapter, Template
from peftqa.data.digest import folder_digest
from peftqa.model.adapters import add_adapter, save_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer
from peftqa.model.task import SHARES, BaseModelReference, Task, describe_training, weights_digest, write_task
from tests.conftest import ROOT
from tests.tiny import WORDS, save_tiny_checkpoint
from tests.unit.test_backbone import settings

PREFIX = {"method": "kv_prefix", "num_virtual_tokens": 3, "init": "random", "init_scale": 2.0, "learning_rate": 0.1}
PREFIX["target"] = ["encoder", "decoder", "cross"]
# Every word is in two questions, so that none is rare.
TRAINED_ON = pd.DataFrame({"question": ["is", " ".join(WORDS)], "context": ["a", " ".join(WORDS * 10)]})
QUESTION, ABSTRACT = "does treatment reduce risk", "methods patients in group a results the risk was lower"


def make_adapter(root: Path, name: str = "org/tiny", revision: str | None = "0" * 40, side: str = "left") -> Path:
    """models/base and models/adapters/prefix/fold-0/seed-42 below `root`; returns the latter."""
    base, folder = save_tiny_checkpoint(root / "models/base"), root / "models/adapters/prefix/fold-0/seed-42"
    tokenizer, backbone = load_tokenizer(base), load_backbone(base, settings(dtype="float32", fast=False))
    torch.manual_seed(0)
    model = add_adapter(backbone, TypeAdapter(AnyAdapter).validate_python(PREFIX), tokenizer, ["yes", "no"])
    save_adapter(model, folder, name, revision)
    template = Template(
        text="question: {question} abstract: {context} {instruction}",
        instruction="answer with {labels}",
        max_tokens=40,
        truncation_side=side,
    )
    files = BaseModelReference(name=name, revision=revision, digest=folder_digest(base), dtype="float32")
    confidence = np.linspace(0.5, 1, len(SHARES)).tolist()
    training = describe_training(tokenizer, TRAINED_ON, "synthetic questions")
    how = {"trainable_params": 10, "template": template, "confidence": confidence, "training": training}
    write_task(folder, Task(weights=weights_digest(folder), base_model=files, labels=["yes", "no"], **how))
    return folder


def peftqa(*arguments: str | Path, folder: Path, **options) -> subprocess.CompletedProcess:
    """Run `python -m peftqa ARGUMENTS...` in a folder, without the network."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | options.pop("environment", {})
    command = [sys.executable, "-m", "peftqa", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, **options)
