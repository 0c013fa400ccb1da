"""Damaged and unfit models, through DVC: refused in one sentence when fetched, and back with the same bytes."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from tests.clone import SHORT, Clone, ran
from tests.conftest import ROOT
from tests.tiny import save_tiny_checkpoint

pytestmark = pytest.mark.drill

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("whole"), ROOT / "embedded/pico-t5")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, whole):
    """A clone that has fetched a copy of the model and split the data."""
    clone = Clone(tmp_path_factory.mktemp("models") / "clone")
    clone.model = clone.folder.with_name("model")
    shutil.copytree(whole, clone.model)
    clone.set(SHORT | {"model.name": str(clone.model)})
    clone("dvc", "repro", "fetch_model", "split")
    clone.commit("Fetched")
    return clone


def write_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_tensors(folder, drop=None, **changes):
    tensors = load_file(folder / WEIGHTS) | changes
    tensors.pop(drop, None)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def weights_as_pickle(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


FAULTS = {
    "weights as a pickle": (weights_as_pickle, "lacks model.safetensors;"),
    "a broken tokenizer": (lambda f: cut(f / "tokenizer.json"), "broken JSON file"),
}


# With --force, because DVC knows a model by its name and revision and does not look at the folder.
FETCH = ("dvc", "repro", "--force", "--single-item", "fetch_model")


def sentence(printed):
    """The error that a command ended with, without DVC's own lines."""
    assert "Traceback" not in printed, printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_cannot_be_used_is_refused_when_fetched_and_the_right_one_comes_back(clone, whole, fault):
    before = clone.bytes()
    make, reason = FAULTS[fault]
    make(clone.model)
    try:
        message = sentence(clone(*FETCH, ok=False))
        assert reason in message and str(clone.model) in message
        assert not list(clone.folder.glob("models/*")), "nothing half-fetched stays under the final name"
    finally:
        shutil.rmtree(clone.model)
        shutil.copytree(whole, clone.model)
    clone(*FETCH)
    assert clone.bytes() == before
    assert clone("git", "status", "--porcelain") == ""


# Faults that are found when the model is loaded.
LOADED = {
    "no output layer": (
        lambda f: (write_tensors(f, drop="lm_head.weight"), write_config(f, tie_word_embeddings=False)),
        "missing: lm_head.weight or shared.weight",
    ),
    "whole numbers": (lambda f: write_tensors(f, **{Q: torch.zeros(24, 32, dtype=torch.int8)}), f"{Q} is of type I8"),
    "truncated weights": (lambda f: cut(f / WEIGHTS), "model.safetensors is damaged or not a safetensors file"),
    "an empty configuration": (lambda f: (f / "config.json").write_text("{}"), "but vocab_size in config.json is 0"),
    "BART": (lambda f: write_config(f, model_type="bart"), "the model type in config.json is 'bart', not one of t5,"),
    "an empty tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "the tokenizer cannot be used"),
    "a missing tensor": (lambda f: write_tensors(f, drop=Q), f"(missing: {Q})"),
    "a tensor of wrong shape": (lambda f: write_tensors(f, **{Q: torch.zeros(3, 3)}), f"of wrong shape: {Q} [3, 3]"),
    "NaN": (
        lambda f: write_tensors(f, **{Q: torch.full((24, 32), torch.nan)}),
        f"{Q} has NaN or infinite numbers",
    ),
}


@pytest.mark.parametrize("fault", LOADED)
def test_a_model_that_does_not_fit_is_refused_by_the_first_stage_that_computes_with_it(clone, whole, fault):
    before, lock = clone.bytes(), (clone.folder / "dvc.lock").read_bytes()
    make, reason = LOADED[fault]
    make(clone.model)
    clone(*FETCH)
    try:
        message = sentence(clone("dvc", "repro", "predict_untrained@base-0", ok=False))
        assert "models/base: " in message and reason in message
        assert "learning" not in message and not list(clone.folder.glob("predictions/base/*/*"))
    finally:
        shutil.rmtree(clone.model)
        shutil.copytree(whole, clone.model)
    clone(*FETCH)
    assert clone.bytes() == before and (clone.folder / "dvc.lock").read_bytes() == lock


def test_files_beside_the_fetched_model_do_not_change_answers(clone):
    """In its folder, and in one stage alone: a plain `dvc repro` would fetch the model anew."""
    predict = ("python", "-m", "stages.predict", "base-0")
    clone("dvc", "repro", "predict_untrained@base-0")
    before, base = clone.bytes(), clone.folder / "models/base"
    backbone = AutoModelForSeq2SeqLM.from_pretrained(base)
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=99, target_modules=["q"], init_lora_weights=False)
    get_peft_model(backbone, config).save_pretrained(base)
    (base / ".DS_Store").write_bytes(b"\0")
    clone(*predict)
    added = clone.bytes()
    assert {path: added[path] for path in before} == before and len(added) > len(before)
    clone("dvc", "checkout", "--force", "models/base")
    assert clone.bytes() == before


def test_a_fetched_model_that_is_damaged_afterwards_is_fetched_anew(clone):
    before = clone.bytes()
    cut(clone.folder / "models/base" / WEIGHTS)
    message = sentence(clone("python", "-m", "stages.predict", "base-0", ok=False))
    assert "models/base: the model cannot be loaded: model.safetensors is damaged" in message
    assert "fetch_model" not in ran(clone("dvc", "repro", "fetch_model")), "DVC's cache has it"
    assert clone.bytes() == before
