"""Adapters as params.yaml describes them: which parameters train, what is saved, and what is loaded."""

import json
import sys

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from peftqa.config.params import AnyAdapter, read_params
from peftqa.errors import UserError
from peftqa.model.adapters import adapter_size, add_adapter, load_adapter, peft_config_from, peft_type, save_adapter
from tests.conftest import ROOT
from tests.tiny import SHAPE, save_tiny_checkpoint, tiny_t5

PREFIX = {"method": "kv_prefix", "num_virtual_tokens": 3, "init": "random", "init_scale": 0.02}
PREFIX["target"] = ["encoder", "decoder", "cross"]
ADAPTERS = {
    "prompt_text": {"method": "prompt_tuning", "num_virtual_tokens": 4, "init": "text", "init_text": "yes or no"},
    "prompt_vocabulary": {"method": "prompt_tuning", "num_virtual_tokens": 4, "init": "vocabulary"},
    "prompt_random": {"method": "prompt_tuning", "num_virtual_tokens": 4, "init": "random"},
    "prefix_random": PREFIX,
    "prefix_text": PREFIX | {"init": "text", "init_text": "{labels}"},
    "prefix_mlp": PREFIX | {"reparametrization": 16},
    "decoder_prefix": PREFIX | {"target": ["decoder"]},
    "peft_prefix": {"method": "peft", "config": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}},
    "p_tuning": {"method": "peft", "config": {"peft_type": "P_TUNING", "num_virtual_tokens": 3}},
    "lora": {"method": "peft", "config": {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q", "v"]}},
    "ia3": {"method": "peft", "config": {"peft_type": "IA3"}},
    "vera": {"method": "peft", "config": {"peft_type": "VERA", "r": 4}},
    "oft": {"method": "peft", "config": {"peft_type": "OFT", "oft_block_size": 8}},
}
LABELS = ["yes", "no"]
# T5 never reads half of the parameters of PEFT's prefix tuning (docs/method.md). In one batch a
# rectifier in P-tuning's network can be zero for all tokens.
DEAD_PARAMETERS = {"peft_prefix", "p_tuning"}
REAL = {
    "vocab_size": 256,
    "d_model": 512,
    "d_kv": 64,
    "num_heads": 6,
    "d_ff": 64,
    "num_layers": 8,
    "num_decoder_layers": 8,
}
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 1], [9, 10, 1, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[3, 1], [4, 1]]),
}


def parsed(name: str):
    return TypeAdapter(AnyAdapter).validate_python(ADAPTERS[name] | {"learning_rate": 0.1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def new_adapter(folder):
    def make(name: str, noise=False):
        backbone = T5ForConditionalGeneration.from_pretrained(folder).requires_grad_(False)
        torch.manual_seed(0)
        model = add_adapter(backbone, parsed(name), AutoTokenizer.from_pretrained(folder), LABELS)
        for parameter in model.parameters():
            if noise and parameter.requires_grad:  # LoRA's B starts at zero, and then A's gradient is zero at first
                torch.nn.init.normal_(parameter)
        return model

    return make


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**BATCH).logits


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_trainable_parameter_gets_a_gradient(name, new_adapter):
    model = new_adapter(name, noise=True)
    model.train()(**BATCH).loss.backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert trained
    rows = {key: p.grad is not None and p.grad.reshape(p.shape[0], -1).ne(0).any(1) for key, p in trained.items()}
    everywhere = all(torch.is_tensor(row) and bool(row.all()) for row in rows.values())
    assert everywhere or name in DEAD_PARAMETERS, dict(rows.items())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_saved_adapter_gives_the_same_logits_and_names_the_hubs_model(name, new_adapter, folder, tmp_path):
    model = new_adapter(name, noise=True)
    expected = logits(model)
    save_adapter(model, tmp_path, "google/flan-t5-small", "a" * 40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("google/flan-t5-small", "a" * 40)
    assert str(folder) not in (tmp_path / "adapter_config.json").read_text()
    backbone = T5ForConditionalGeneration.from_pretrained(folder)
    loaded = load_adapter(backbone, tmp_path, [peft_type(parsed(name))])
    assert not loaded.training and torch.equal(logits(loaded), expected)
    other = "LORA" if name != "lora" else "IA3"
    with pytest.raises(UserError, match=r"peft_type '\w+' cannot be used here"):
        load_adapter(backbone, tmp_path, [other])


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, edit):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def spoil(value):
    def edit(tensors):
        tensors[min(tensors)].view(-1)[3] = value

    return lambda folder: edit_tensors(folder, edit)


def rename(tensors):
    tensors["other"] = tensors.pop(min(tensors))


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DAMAGE = {
    "marked as LoRA": (
        lambda f: edit_config(f, peft_type="LORA", r=2, target_modules=["q"]),
        "peft_type 'LORA' cannot be used here; these can: KV_PREFIX",
    ),
    "another length": (lambda f: edit_config(f, num_virtual_tokens=4), "size mismatch for base_model."),
    "other modules": (lambda f: edit_config(f, target=["decoder"]), "(not of this model: "),
    "missing tensor": (lambda f: edit_tensors(f, lambda tensors: tensors.pop(min(tensors))), "(missing: base_model."),
    "other names": (lambda f: edit_tensors(f, rename), "not of this model: other)"),
    "NaN": (spoil(float("nan")), "holds NaN or infinite numbers"),
    "infinite": (spoil(float("inf")), "holds NaN or infinite numbers"),
    "cut": (lambda f: cut(f / WEIGHTS), "adapter_model.safetensors is damaged or not a safetensors"),
    "cut configuration": (lambda f: cut(f / CONFIG), "adapter_config.json is not an object of JSON"),
    "configuration missing": (lambda f: (f / CONFIG).unlink(), "No such file or directory: "),
    "a list": (lambda f: (f / CONFIG).write_text("[1]"), "adapter_config.json is not an object of JSON"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_adapter_that_is_not_what_params_describe_is_refused_in_one_sentence(damage, new_adapter, folder, tmp_path):
    save_adapter(new_adapter("prefix_text"), tmp_path, "x", None)
    make, reason = DAMAGE[damage]
    make(tmp_path)
    with pytest.raises(UserError) as error:
        load_adapter(T5ForConditionalGeneration.from_pretrained(folder), tmp_path, ["KV_PREFIX"])
    message = str(error.value)
    assert reason in message and message.startswith(str(tmp_path)) and "\n" not in message


def test_a_prefix_marked_as_lora_does_not_pass_for_the_frozen_model(new_adapter, folder, tmp_path):
    save_adapter(new_adapter("prefix_random"), tmp_path, "x", None)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q", "v"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"missing: .*lora_A.*not of this model: .*kv_prefix_key"):
        load_adapter(T5ForConditionalGeneration.from_pretrained(folder), tmp_path)


def test_the_default_adapters_have_10240_and_92160_parameters_on_flan_t5_smalls_shape(folder, tmp_path):
    backbone = T5ForConditionalGeneration(T5Config(**SHAPE | REAL))
    params = read_params(ROOT / "params.yaml")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, count in {"prompt": 10_240, "prefix": 92_160}.items():
        model = add_adapter(backbone, params.adapters[name], tokenizer, LABELS)
        assert model.get_nb_trainable_parameters()[0] == count
        save_adapter(model, tmp_path / name, "x", None)
        size = adapter_size(tmp_path / name, count, backbone)
        assert size["trainable_params"] == count
        assert 4 * count < size["adapter_bytes"] < 4 * count + 10_000
        if name == "prefix":
            model.unload()


def test_prompts_from_text_and_vocabulary_start_as_word_embeddings(new_adapter, folder):
    words = tiny_t5(vocab_size=T5Config.from_pretrained(folder).vocab_size).shared.weight
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("prompt_text", "prompt_vocabulary"):
        (rows,) = [p for p in new_adapter(name).parameters() if p.requires_grad]
        assert rows.shape == (4, words.shape[1])
        assert all((words == row).all(1).any() for row in rows)
        if name == "prompt_text":
            assert torch.equal(rows[0], words[tokenizer("yes")["input_ids"][0]])


# A stranger's adapter_config.json could import a module, open a file, ask the Hub or fill the memory.
REFUSED = {
    "a module to import": {"peft_type": "LORA", "megatron_core": "antigravity"},
    "a module's settings": {"peft_type": "LORA", "megatron_config": {"a": 1}},
    "a module to import, of another method": {"peft_type": "ADALORA", "total_step": 1, "megatron_core": "antigravity"},
    "a class to import": {"peft_type": "LORA", "auto_mapping": {"parent_library": "os"}},
    "a regular expression": {"peft_type": "LORA", "target_modules": "(a+)+$"},
    "a regular expression in a list": {"peft_type": "LORA", "target_modules": ["(a+)+$"]},
    "a regular expression as a key": {"peft_type": "LORA", "rank_pattern": {"(a+)+$": 4}},
    "modules to leave out": {"peft_type": "OFT", "exclude_modules": ".*"},
    "a way to start that reads data": {"peft_type": "LORA", "init_lora_weights": "eva"},
    "a way to start that changes the model": {"peft_type": "LORA", "init_lora_weights": "pissa"},
    "other adapters of the Hub": {"peft_type": "XLORA", "adapters": {"a": "b/c"}},
    "a file of weights": {"peft_type": "MULTITASK_PROMPT_TUNING", "prompt_tuning_init_state_dict_path": "x.bin"},
    "a model of its own": {"peft_type": "SHADOW", "shadow_model": "a/b"},
    "a method that is not a word": {"peft_type": ["LORA"]},
    "a missing method": {"r": 8},
    "an unknown field": {"peft_type": "LORA", "rank": 8},
    "a number as a word": {"peft_type": "LORA", "r": "8"},
    "a truth value as a number": {"peft_type": "LORA", "r": True},
    "a fraction as a whole number": {"peft_type": "LORA", "r": 2.5},
    "a rank that fills the memory": {"peft_type": "LORA", "r": 10**9},
    "tokens that fill the memory": {"peft_type": "P_TUNING", "num_virtual_tokens": 10**6},
    "layers that fill the memory": {"peft_type": "P_TUNING", "encoder_num_layers": 10**8},
    "less than nothing": {"peft_type": "LORA", "lora_alpha": -1},
    "not a number": {"peft_type": "LORA", "lora_dropout": float("nan")},
    "an unknown target": {"peft_type": "KV_PREFIX", "target": ["decoder.*"]},
    "another task": {"peft_type": "LORA", "task_type": "CAUSAL_LM"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_is_more_than_plain_values_is_refused_before_peft_sees_it(case, folder, tmp_path):
    for saved in (False, True):
        with pytest.raises(UserError) as error:
            peft_config_from(REFUSED[case], saved=saved)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(REFUSED[case]))
    with pytest.raises(UserError, match="the adapter cannot be loaded: "):
        load_adapter(T5ForConditionalGeneration.from_pretrained(folder), tmp_path)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "config", [{"peft_type": "LORA", "r": 0}, {"peft_type": "LORA", "target_modules": ["nothing"]}]
)
def test_an_error_of_peft_becomes_one_sentence(config, folder):
    adapter = TypeAdapter(AnyAdapter).validate_python({"method": "peft", "config": config, "learning_rate": 0.1})
    backbone = T5ForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(UserError, match="LORA"):
        add_adapter(backbone, adapter, AutoTokenizer.from_pretrained(folder), LABELS)
