"""The checks of a fetched model before anything is computed with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftqa.errors import UserError
from peftqa.model.checkpoint import check_checkpoint
from tests.tiny import save_tiny_checkpoint

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage; its configuration says what that of FLAN-T5 says of the output layer."""
    shutil.copytree(saved, tmp_path / "model")
    write_config(tmp_path / "model", tie_word_embeddings=False)
    return tmp_path / "model"


def write_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_tensors(folder, drop=(), **changes):
    tensors = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name not in drop}
    save_file(tensors | changes, folder / "model.safetensors", metadata={"format": "pt"})


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def test_published_forms_of_a_checkpoint_pass(folder):
    check_checkpoint(folder, "x")
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    write_tensors(folder, **{f"{stack}.embed_tokens.weight": shared.clone() for stack in ("encoder", "decoder")})
    check_checkpoint(folder, "x")
    write_tensors(folder, drop=["shared.weight"])
    check_checkpoint(folder, "x")
    write_tensors(folder, drop=["lm_head.weight"])
    write_config(folder, tie_word_embeddings=True)
    check_checkpoint(folder, "x")


EMBEDDINGS = ("shared.weight", "lm_head.weight")
DAMAGE = {
    "missing output layer": (lambda f: write_tensors(f, drop=["lm_head.weight"]), "missing: lm_head.weight"),
    "missing embeddings": (lambda f: write_tensors(f, drop=["shared.weight"]), "missing: shared.weight"),
    "output layer of wrong shape": (
        lambda f: write_tensors(f, **{"lm_head.weight": torch.zeros(192, 31)}),
        "of wrong shape: lm_head.weight [192, 31] instead of [192, 32]",
    ),
    "embeddings of wrong shape": (
        lambda f: write_tensors(f, **{"shared.weight": torch.zeros(32)}),
        "of wrong shape: shared.weight [32] instead of [192, 32]",
    ),
    "whole numbers": (lambda f: write_tensors(f, **{Q: torch.zeros(24, 32, dtype=torch.int8)}), f"{Q} is of type I8"),
    "truncated": (lambda f: cut(f / "model.safetensors", -100), "model.safetensors is damaged or not a safetensors"),
    "a pickle": (lambda f: torch.save({}, f / "model.safetensors"), "model.safetensors is damaged or not a safetensor"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing, and so is an index"),
    "empty config": (lambda f: (f / "config.json").write_text("{}"), "config.json names no model type"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is not the configuration of a model"),
    "BART": (lambda f: write_config(f, model_type="bart"), "config.json names the model type 'bart'"),
    "a size that is a word": (lambda f: write_config(f, d_model="wide"), "d_model is 'wide'; it must be a whole"),
    "broken tokenizer": (lambda f: cut(f / "tokenizer.json", 100), "tokenizer.json is not a tokenizer"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is not a tokenizer"),
    "another tokenizer": (
        lambda f: (write_config(f, vocab_size=64), write_tensors(f, **{n: torch.zeros(64, 32) for n in EMBEDDINGS})),
        "but config.json says vocab_size 64; the tokenizer is another model's",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_loading_would_not_notice_is_refused_in_one_sentence(folder, damage):
    make, reason = DAMAGE[damage]
    make(folder)
    with pytest.raises(UserError) as error:
        check_checkpoint(folder, "models/base")
    message = str(error.value)
    assert reason in message and message.startswith("models/base: ") and "\n" not in message


def test_parts_are_read_through_their_index(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + row % 2}-of-00002.safetensors" for row, name in enumerate(tensors)}
    for part in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == part}, folder / part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    check_checkpoint(folder, "x")
    index.write_text("{}")
    with pytest.raises(UserError, match="is missing, and so is an index of its parts"):
        check_checkpoint(folder, "x")
