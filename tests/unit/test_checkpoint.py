"""What of a fetched model is looked at before anything is computed with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from peftqa.errors import UserError
from peftqa.model.checkpoint import UNREAD, check_checkpoint, differences, expected_shapes, read_config
from tests.tiny import SHAPE, save_tiny_checkpoint

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"
BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (T5Config, T5ForConditionalGeneration),
        (MT5Config, MT5ForConditionalGeneration),
        (UMT5Config, UMT5ForConditionalGeneration),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"feed_forward_proj": "relu", "num_decoder_layers": 3}])
def test_expected_tensors_are_those_that_transformers_makes(tmp_path, config, model, changes):
    settings = config(**SHAPE | changes)
    settings.save_pretrained(tmp_path)
    with torch.device("meta"):
        tensors = model(settings).state_dict()
    expected = expected_shapes(read_config(tmp_path / "config.json"))
    assert differences(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, UNREAD) == ""


def test_what_a_configuration_leaves_out_has_transformers_default(tmp_path):
    sizes = {key: SHAPE[key] for key in ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers")}
    for config in (T5Config, MT5Config):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type} | sizes))
        read, default = read_config(tmp_path / "config.json"), config(**sizes)
        for key in ("num_decoder_layers", "feed_forward_proj", "relative_attention_num_buckets"):
            assert read[key] == getattr(default, key)


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
    copies = {f"{stack}.embed_tokens.weight": shared.clone() for stack in ("encoder", "decoder")}
    write_tensors(folder, **copies, **{BIAS: torch.zeros(8, 3)})
    check_checkpoint(folder, "x")
    write_tensors(folder, drop=["shared.weight"])
    check_checkpoint(folder, "x")
    write_tensors(folder, drop=["lm_head.weight"])
    write_config(folder, tie_word_embeddings=True)
    check_checkpoint(folder, "x")


DAMAGE = {
    "missing tensor": (lambda f: write_tensors(f, drop=[Q]), f"missing: {Q}"),
    "missing output layer": (lambda f: write_tensors(f, drop=["lm_head.weight"]), "missing: lm_head.weight"),
    "missing embeddings": (lambda f: write_tensors(f, drop=["shared.weight"]), "missing: shared.weight"),
    "extra tensor": (lambda f: write_tensors(f, **{"encoder.x": torch.zeros(2)}), "not of this model: encoder.x"),
    "wrong shape": (
        lambda f: write_tensors(f, **{Q: torch.zeros(24, 31)}),
        f"of wrong shape: {Q} [24, 31] for [24, 32]",
    ),
    "another depth": (lambda f: write_config(f, num_layers=3), "missing: encoder.block.2.layer.0.SelfAttention.k"),
    "whole numbers": (lambda f: write_tensors(f, **{Q: torch.zeros(24, 32, dtype=torch.int8)}), f"{Q} is of type I8"),
    "truncated": (lambda f: cut(f / "model.safetensors", -100), "model.safetensors is damaged or no safetensors file"),
    "a header alone": (
        lambda f: cut(f / "model.safetensors", 8),
        "model.safetensors is damaged or no safetensors file",
    ),
    "a pickle": (lambda f: torch.save({}, f / "model.safetensors"), "model.safetensors is damaged or no safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "there is neither model.safetensors nor an index"),
    "empty config": (lambda f: (f / "config.json").write_text("{}"), "config.json names no model type"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is no configuration of a model"),
    "BART": (lambda f: write_config(f, model_type="bart"), "config.json names the model type 'bart'"),
    "decoder alone": (lambda f: write_config(f, model_type="llama"), "encoder-decoder of the types t5, mt5, umt5"),
    "encoder alone": (lambda f: write_config(f, model_type="bert"), "encoder-decoder of the types t5, mt5, umt5"),
    "a size that is none": (lambda f: write_config(f, d_model="wide"), "d_model is 'wide'; it must be a whole number"),
    "broken tokenizer": (lambda f: cut(f / "tokenizer.json", 100), "tokenizer.json is no tokenizer"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is no tokenizer"),
    "another tokenizer": (
        lambda f: (write_config(f, vocab_size=64), write_tensors(f, **{n: torch.zeros(64, 32) for n in EMBEDDINGS})),
        "but config.json says vocab_size 64; the tokenizer is another model's",
    ),
}
EMBEDDINGS = ("shared.weight", "lm_head.weight")


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_would_be_made_up_or_fail_later_is_refused_in_one_sentence(folder, damage):
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
    other = set(places.values()) - {places[Q]}
    index.write_text(json.dumps({"weight_map": places | {Q: other.pop()}}))
    with pytest.raises(UserError, match=f"missing: {Q}"):
        check_checkpoint(folder, "x")
    index.write_text("{}")
    with pytest.raises(UserError, match=r"neither .* nor an index"):
        check_checkpoint(folder, "x")
