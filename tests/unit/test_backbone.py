"""The frozen backbone: its own weights, its own output layer, nothing that a file could smuggle in."""

import math
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from peftqa.config.params import ModelSettings
from peftqa.errors import UserError
from peftqa.model.backbone import choose_dtype, load_backbone, load_tokenizer, memory_explained
from tests.conftest import ROOT
from tests.tiny import save_tiny_checkpoint


def settings(**changes) -> ModelSettings:
    values = {
        "name": "x",
        "revision": None,
        "dtype": "float32",
        "fast": True,
        "attention": "auto",
        "dropout": 0.0,
        "threads": 2,
    }
    return ModelSettings.model_validate(values | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_the_checkpoints_own_output_layer_is_used(folder):
    saved = load_file(folder / "model.safetensors")
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])
    model = load_backbone(folder, settings())
    assert torch.equal(model.lm_head.weight, saved["lm_head.weight"])
    assert torch.equal(model.get_input_embeddings().weight, saved["shared.weight"])
    ids = torch.tensor([[3, 4, 5, 1]])
    output = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]]), output_hidden_states=True)
    states = output.decoder_hidden_states[-1]
    assert any(
        torch.allclose(output.logits, scale * states @ saved["lm_head.weight"].T, atol=1e-5)
        for scale in (1, model.config.d_model**-0.5)
    )


def test_the_backbone_is_frozen_and_without_dropout(folder):
    model = load_backbone(folder, settings())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    batch = {"input_ids": torch.tensor([[3, 4, 5, 1]]), "decoder_input_ids": torch.tensor([[0]])}
    evaluating = model(**batch).logits
    assert torch.equal(model.train()(**batch).logits, evaluating)


def test_dropout_is_what_params_say(folder):
    model = load_backbone(folder, settings(dropout=0.5)).train()
    batch = {"input_ids": torch.tensor([[3, 4, 5, 1]]), "decoder_input_ids": torch.tensor([[0]])}
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_have_the_dtype_that_params_name(folder, dtype):
    assert load_backbone(folder, settings(dtype=dtype)).dtype == getattr(torch, dtype)


def test_auto_is_a_dtype_that_t5_can_run_in():
    assert choose_dtype("auto") in (torch.float32, torch.bfloat16)


def test_a_checkpoint_without_safetensors_is_not_loaded(folder, tmp_path):
    for path in folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"neither model\.safetensors nor"):
        load_backbone(tmp_path, settings())


def damaged(folder, target, **changes):
    """A copy of the checkpoint with other tensors; None drops one."""
    shutil.copytree(folder, target)
    tensors = {k: v for k, v in (load_file(folder / "model.safetensors") | changes).items() if v is not None}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [(None, "missing: "), (torch.zeros(3, 3), "of wrong shape: "), (torch.tensor(1.0), "of wrong shape: ")],
)
def test_no_tensor_is_made_up(folder, tmp_path, tensor, reason):
    name = "decoder.block.1.layer.1.EncDecAttention.v.weight"
    with pytest.raises(UserError, match=f"{reason}{name}"):
        load_backbone(damaged(folder, tmp_path / "model", **{name: tensor}), settings())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers_are_said_to_be_the_backbones(folder, tmp_path, value, dtype):
    name = "decoder.block.1.layer.0.SelfAttention.v.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[2, 3] = value
    with pytest.raises(UserError, match=f"{name} holds NaN or infinite numbers, so the backbone's weights are damaged"):
        load_backbone(damaged(folder, tmp_path / "model", **{name: weight}), settings(dtype=dtype))


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_refused_in_one_sentence(folder, tmp_path, content):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "tokenizer.json").unlink()
    if content is not None:
        (copy / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match="the tokenizer cannot be read"):
            load_tokenizer(copy)
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        load_backbone(copy, settings())


def test_a_tokenizer_that_cannot_end_a_prompt_is_refused(tmp_path):
    Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, "<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(tmp_path)


def test_logits_are_float32_also_where_the_weights_are_not(folder):
    batch = {"input_ids": torch.tensor([[3, 4, 5, 1]]), "decoder_input_ids": torch.tensor([[0]])}
    exact = load_backbone(folder, settings(dtype="float32"))(**batch).logits
    rounded = load_backbone(folder, settings(dtype="bfloat16"))(**batch).logits
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, atol=0.1)
    assert not torch.equal(rounded, rounded.bfloat16().float()), "these logits were rounded to bfloat16"


def test_what_was_chosen_is_logged_in_one_line(folder, caplog):
    with caplog.at_level("INFO", logger="peftqa"):
        load_backbone(folder, settings())
        load_backbone(folder, settings(fast=False, attention="eager", dropout=0.1))
    first, second = [record.getMessage() for record in caplog.records]
    assert "float32" in first and "attention, dropout 0, fast path, kernels" in first
    assert second.endswith("float32, eager attention, dropout 0.1, computed as transformers does")


def test_without_the_fast_path_auto_is_sdpa_and_fused_is_refused(folder):
    assert load_backbone(folder, settings(fast=False)).config._attn_implementation == "sdpa"
    with pytest.raises(UserError, match=r"model\.attention: fused is part of the fast path, and model\.fast is off"):
        load_backbone(folder, settings(fast=False, attention="fused"))


def test_memory_that_runs_out_is_explained_and_other_errors_stay():
    with (
        pytest.raises(UserError, match=r"not memory enough \(.*can't allocate memory.*\); lower train\.batch_size"),
        memory_explained(),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="negative dimension"), memory_explained():
        torch.empty(-1)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
def test_the_fast_path_is_imported_only_where_it_is_on(folder, fast):
    code = (
        "import pathlib, sys\n"
        "from peftqa.model.backbone import load_backbone\n"
        "from tests.unit.test_backbone import settings\n"
        "load_backbone(pathlib.Path(sys.argv[1]), settings(fast=sys.argv[2] == 'True'))\n"
        "print(any(name.startswith('peftqa.model.fast') for name in sys.modules))\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(fast)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == str(fast)


def test_a_process_computes_with_as_many_threads_as_params_say(folder):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            load_backbone(folder, settings(threads=threads))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
