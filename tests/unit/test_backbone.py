"""The frozen backbone: its own weights, its own output layer, nothing that a file could smuggle in."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from peftqa.backbone import choose_dtype, load_backbone
from peftqa.errors import UserError
from peftqa.params import Model
from tests.conftest import ROOT
from tests.tiny import save_tiny_checkpoint


def settings(**changes) -> Model:
    values = {
        "name": "x",
        "revision": None,
        "dtype": "float32",
        "fast": True,
        "attention": "auto",
        "dropout": 0.0,
        "threads": 2,
    }
    return Model.model_validate(values | changes)


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
    with pytest.raises(OSError, match="safetensors"):
        load_backbone(tmp_path, settings())


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


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
def test_the_fast_path_is_imported_only_where_it_is_on(folder, fast):
    code = (
        "import pathlib, sys\n"
        "from peftqa.backbone import load_backbone\n"
        "from tests.unit.test_backbone import settings\n"
        "load_backbone(pathlib.Path(sys.argv[1]), settings(fast=sys.argv[2] == 'True'))\n"
        "print(any(name.startswith('peftqa.fast') for name in sys.modules))\n"
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
