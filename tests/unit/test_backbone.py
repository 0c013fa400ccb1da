"""The frozen backbone: its own weights and output layer, and nothing from other files."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForSeq2SeqLM, MT5Config, T5Config, UMT5Config

from peftqa.config.params import ModelSettings
from peftqa.data.digest import folder_digest
from peftqa.errors import UserError
from peftqa.model.backbone import choose_dtype, load_backbone, load_tokenizer, memory_explained, prepare_gpu
from peftqa.model.scoring import probabilities_and_answers
from tests.conftest import ROOT
from tests.tiny import SHAPE, save_tiny_checkpoint

SETTINGS = {"dtype": "float32", "fast": True, "dropout": 0.0, "threads": 2}
ONE_STEP = {"input_ids": torch.tensor([[3, 4, 5, 1]]), "decoder_input_ids": torch.tensor([[0]])}


def settings(**changes) -> ModelSettings:
    return ModelSettings(name="x", revision=None, **SETTINGS | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_the_checkpoints_own_output_layer_is_used(folder):
    saved = load_file(folder / "model.safetensors")
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])
    model = load_backbone(folder, settings())
    assert torch.equal(model.lm_head.weight, saved["lm_head.weight"])
    assert torch.equal(model.get_input_embeddings().weight, saved["shared.weight"])
    output = model(**ONE_STEP, output_hidden_states=True)
    states = output.decoder_hidden_states[-1]
    assert any(
        torch.allclose(output.logits, scale * states @ saved["lm_head.weight"].T, atol=1e-5)
        for scale in (1, model.config.d_model**-0.5)
    )


def test_the_backbone_is_frozen_and_has_the_dropout_of_the_settings(folder):
    model = load_backbone(folder, settings())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    evaluating = model(**ONE_STEP).logits
    assert torch.equal(model.train()(**ONE_STEP).logits, evaluating)
    model = load_backbone(folder, settings(dropout=0.5)).train()
    assert not torch.equal(model(**ONE_STEP).logits, model(**ONE_STEP).logits)


def test_auto_is_a_dtype_that_t5_can_run_in():
    assert choose_dtype("auto") in (torch.float32, torch.bfloat16)


def damaged(folder, target, config=None, **changes):
    """A copy of the checkpoint with another configuration and other tensors; None drops a tensor."""
    shutil.copytree(folder, target)
    file = target / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
    tensors = {k: v for k, v in (load_file(folder / "model.safetensors") | changes).items() if v is not None}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


V = "decoder.block.1.layer.1.EncDecAttention.v.weight"
UNTIED = {"tie_word_embeddings": False}
MISFITS = {
    "missing": ({V: None}, {}, f"missing: {V}"),
    "of wrong shape": ({V: torch.zeros(3, 3)}, {}, f"of wrong shape: {V} [3, 3] instead of [24, 32]"),
    "a scalar": ({V: torch.tensor(1.0)}, {}, f"of wrong shape: {V} [] instead of"),
    "too many": ({"encoder.x": torch.zeros(2)}, {}, "not of this model: encoder.x"),
    "no output layer": ({"lm_head.weight": None}, UNTIED, "missing: lm_head.weight or shared.weight"),
    "no embeddings": ({"shared.weight": None}, UNTIED, "missing: lm_head.weight or shared.weight"),
    "embeddings of wrong shape": ({"shared.weight": torch.zeros(32)}, {}, "shared.weight [32] instead of [192, 32]"),
    "whole numbers": ({V: torch.zeros(24, 32, dtype=torch.int8)}, {}, f"{V} is of type I8"),
    "NaN": ({V: torch.full((24, 32), math.nan)}, {}, f"{V} has NaN or infinite numbers"),
    "infinity": ({V: torch.full((24, 32), math.inf)}, {}, f"{V} has NaN or infinite numbers"),
    "BART": ({}, {"model_type": "bart"}, "the model type in config.json is 'bart', not one of t5, mt5, umt5"),
    "no model type": ({}, {"model_type": None}, "the model type in config.json is None"),
    "a shallower configuration": ({}, {"num_layers": 1}, "not of this model: encoder.block.1."),
    "a deeper configuration": ({}, {"num_layers": 3}, "missing: encoder.block.2."),
    "a size that is a word": ({}, {"d_ff": "wide"}, "cannot be loaded: "),
    "quantized": ({}, {"quantization_config": {"load_in_8bit": True}}, "cannot be loaded: "),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_model_that_does_not_fit_its_configuration_is_refused(folder, tmp_path, misfit):
    tensors, config, reason = MISFITS[misfit]
    copy = damaged(folder, tmp_path / "model", config, **tensors)
    with pytest.raises(UserError) as error:
        load_backbone(copy, settings())
    message = str(error.value)
    assert message.startswith(f"{copy}: the model cannot be loaded: ") and reason in message
    assert "\n" not in message and "/peftqa-" not in message


@pytest.mark.parametrize("config", [T5Config, MT5Config, UMT5Config])
@pytest.mark.parametrize("changes", [{}, {"feed_forward_proj": "relu", "num_decoder_layers": 3}])
def test_every_model_type_is_loaded(folder, tmp_path, config, changes):
    copy = shutil.copytree(folder, tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_config(config(**SHAPE | {"vocab_size": 192} | changes))
    model.save_pretrained(copy)
    assert torch.equal(load_backbone(copy, settings()).shared.weight, model.shared.weight)


def lora(folder):
    """An adapter that changes the model much, as PEFT saves it."""
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=99, target_modules=["q", "v"], init_lora_weights=False
    )
    get_peft_model(load_backbone(folder, settings(fast=False)), config).save_pretrained(folder)


def in_the_hubs_cache(folder):
    """Links to files that have other names, as in the Hub's cache."""
    blobs = folder.with_name("blobs")
    folder.rename(blobs)
    folder.mkdir()
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(Path("..", "blobs", file.name))
    lora(folder)


OTHER_FILES = {
    "a LoRA adapter": lora,
    "a README and .DS_Store": lambda f: [(f / name).write_bytes(b"\0{") for name in ("README.md", ".DS_Store")],
    "pickled weights": lambda f: torch.save({"shared.weight": torch.zeros(192, 32)}, f / "pytorch_model.bin"),
    "a vocabulary": lambda f: [(f / name).write_text('{"yes": 9}') for name in ("vocab.json", "chat_template.jinja")],
    "a shared cache": in_the_hubs_cache,
}


@pytest.mark.parametrize("other", OTHER_FILES)
def test_files_that_the_digest_does_not_cover_change_nothing(folder, tmp_path, other):
    copy = shutil.copytree(folder, tmp_path / "model")
    OTHER_FILES[other](copy)
    assert folder_digest(copy) == folder_digest(folder)
    found, wanted = (load_backbone(path, settings(fast=False)) for path in (copy, folder))
    assert torch.equal(found(**ONE_STEP).logits, wanted(**ONE_STEP).logits)
    assert found.name_or_path == found.config._name_or_path == str(copy)
    text = "does treatment reduce risk, yes or no"
    assert load_tokenizer(copy)(text) == load_tokenizer(folder)(text)
    assert load_tokenizer(copy).name_or_path == str(copy)


def test_a_checkpoints_settings_of_generation_do_not_change_answers(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "model")
    settings_of_generation = {"repetition_penalty": 9.0, "min_length": 4, "suppress_tokens": list(range(2, 99))}
    (copy / "generation_config.json").write_text(json.dumps(settings_of_generation))
    plain, changed = (
        probabilities_and_answers(load_backbone(path, settings()), load_tokenizer(path), [[5, 1]], [3, 4], 2, 6)
        for path in (folder, copy)
    )
    assert plain[1] == changed[1] and (plain[0] == changed[0]).all()


@pytest.fixture
def shares(monkeypatch):
    """The shares of a GPU's memory that are asked for; global settings are put back afterwards."""
    shares, cudnn = [], torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setenv("PEFTQA_GPU_SHARE", "")
    yield shares
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


@pytest.mark.parametrize(("share", "wanted"), [("", []), ("1", [1.0]), ("0.125", [0.125])])
def test_on_a_gpu_results_repeat_and_memory_is_shared(shares, monkeypatch, share, wanted):
    monkeypatch.setenv("PEFTQA_GPU_SHARE", share)
    prepare_gpu()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert shares == wanted


PUBLISHED = {
    "embeddings under the stacks' names": (True, ["shared.weight"], {}),
    "the output layer is the embeddings": (False, ["lm_head.weight"], {"tie_word_embeddings": True}),
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_forms_of_a_checkpoint_are_loaded(folder, tmp_path, form):
    copies, dropped, config = PUBLISHED[form]
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    added = {f"{stack}.embed_tokens.weight": shared.clone() for stack in ("encoder", "decoder") if copies}
    copy = damaged(folder, tmp_path / "model", UNTIED | config, **dict.fromkeys(dropped) | added)
    model = load_backbone(copy, settings())
    assert torch.equal(model.shared.weight, shared)
    assert torch.equal(model.lm_head.weight, shared) is not copies


@pytest.mark.parametrize("damage", ["cut", "a pickle", "missing"])
def test_weights_that_are_not_a_whole_safetensors_file_are_refused(folder, tmp_path, damage):
    copy = shutil.copytree(folder, tmp_path / "model")
    file = copy / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "missing":
        file.unlink()
    else:
        torch.save({}, file)
    reason = "no file named model" if damage == "missing" else "model.safetensors is damaged or not a safetensors file"
    with pytest.raises(UserError, match=f"the model cannot be loaded: .*{reason}"):
        load_backbone(copy, settings())


def test_weights_in_several_files_are_loaded(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "model.safetensors").unlink()
    AutoModelForSeq2SeqLM.from_pretrained(folder).save_pretrained(copy, max_shard_size="40KB")
    assert len(list(copy.glob("model-*-of-*.safetensors"))) > 1
    one, several = (load_backbone(path, settings())(**ONE_STEP).logits for path in (folder, copy))
    assert torch.allclose(one, several, atol=1e-5)


@pytest.mark.parametrize("content", ["{", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_refused_in_one_sentence(folder, tmp_path, content):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="the tokenizer cannot be used"):
        load_tokenizer(copy)


def test_a_tokenizer_that_cannot_end_a_prompt_is_refused(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, "<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match="it lacks an end-of-sequence token"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    copy = damaged(folder, tmp_path / "model", {"vocab_size": 64})
    with pytest.raises(UserError, match=r"ids up to 1\d\d, but vocab_size in config\.json is 64"):
        load_tokenizer(copy)


def test_logits_are_float32_even_if_the_weights_are_not(folder):
    exact, model = (
        load_backbone(folder, settings())(**ONE_STEP).logits,
        load_backbone(folder, settings(dtype="bfloat16")),
    )
    rounded = model(**ONE_STEP).logits
    assert model.dtype == torch.bfloat16 and rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, atol=0.1)
    assert not torch.equal(rounded, rounded.bfloat16().float()), "these logits were rounded to bfloat16"


def test_memory_that_runs_out_is_explained_and_other_errors_stay():
    with (
        pytest.raises(UserError, match=r"not enough memory \(.*can't allocate memory.*\); lower train\.batch_size"),
        memory_explained(),
    ):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="negative dimension"), memory_explained():
        torch.empty(-1)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
def test_the_fast_path_is_imported_only_if_it_is_on(folder, fast):
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
