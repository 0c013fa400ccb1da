"""The prefix in every attention module against plain tensor operations, and as a method of PEFT."""

import copy
import json
import os
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from peftqa.errors import UserError
from peftqa.kv_prefix import TARGETS, KVPrefixAttention, KVPrefixConfig
from peftqa.model.fast.t5 import patch_t5
from tests.conftest import ROOT
from tests.tiny import SHAPE, save_tiny_checkpoint, tiny_t5, untie
from tests.unit import reference_t5

IMPLEMENTATIONS = ["eager", "sdpa"]
# Attention, and whether the fast path computes: it has a cross-attention of its own.
ALL_IMPLEMENTATIONS = [("eager", False), ("sdpa", False), ("sdpa", True), ("fused", True)]
SUBSETS = [list(subset) for size in (1, 2, 3) for subset in combinations(TARGETS, size)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def with_prefix(model, **config):
    """A prefix of 3 tokens large enough to matter."""
    config = {"num_virtual_tokens": 3, "init_scale": 1.0, "task_type": "SEQ_2_SEQ_LM"} | config
    return get_peft_model(model, KVPrefixConfig(**config))


def padded_batch(batch=3, length=9, decoder_length=5):
    """Input and decoder input with padding on the right and on the left."""
    input_ids = torch.randint(3, 64, (batch, length))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[0, 5:] = attention_mask[1, :2] = 0
    decoder_input_ids = torch.randint(3, 64, (batch, decoder_length))
    decoder_attention_mask = torch.ones_like(decoder_input_ids)
    decoder_attention_mask[1, 3:] = 0
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "decoder_input_ids": decoder_input_ids}
    return batch | {"decoder_attention_mask": decoder_attention_mask}


def prefix_layers(model):
    """{module path in the base model: its KVPrefixAttention}"""
    base = model.get_base_model()
    return {path: module for path, module in base.named_modules() if isinstance(module, KVPrefixAttention)}


def trainable(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def prefix_gradients(model, batch):
    model.zero_grad()
    model(**batch).logits.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def assert_agrees_with_reference(base, fast, scale=1.0, **config):
    """Logits and the gradient of every prefix tensor against plain tensor operations in float64.

    The fast path computes in float32, in which its kernels are, and is allowed a few roundings.
    """
    base = base if fast else base.double()
    atol = 2e-5 if fast else 1e-9
    weights = {name: tensor.double().clone() for name, tensor in base.state_dict().items()}
    model = with_prefix(patch_t5(base) if fast else base, **config)
    batch = padded_batch()
    logits = model(**batch, use_cache=False).logits  # with a cache the fast path leaves cross-attention as it is
    target = torch.randn_like(logits)
    (logits * target).sum().backward()

    layers = prefix_layers(model)
    prefixes = {
        path: [tensor.detach().double().clone().requires_grad_() for tensor in layer.prefix("default")]
        for path, layer in layers.items()
    }
    expected = reference_t5.logits(weights, base.config, prefixes, **batch, scale=scale)
    (expected * target.double()).sum().backward()
    assert (logits - expected).abs().max() < atol
    for path, layer in layers.items():
        for tensor, reference in zip(layer.prefix("default"), prefixes[path], strict=True):
            assert reference.grad.abs().max() > 1e-3
            assert (tensor.grad - reference.grad).abs().max() < atol * max(1, reference.grad.abs().max())


# ---------------------------------------------------------------------------------------------------------------------
# What it computes


@pytest.mark.parametrize(("attention", "fast"), ALL_IMPLEMENTATIONS)
@pytest.mark.parametrize("target", SUBSETS, ids="+".join)
def test_logits_and_gradients_are_those_of_plain_tensor_operations(target, attention, fast):
    """The rule for a prefix (`with_prefix`) as every implementation of attention has it."""
    assert_agrees_with_reference(tiny_t5(attn_implementation=attention), fast, target=target)


@pytest.mark.parametrize(("attention", "fast"), ALL_IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("config", "model", "scale"),
    [
        (MT5Config, MT5ForConditionalGeneration, 1.0),
        (UMT5Config, UMT5ForConditionalGeneration, SHAPE["d_model"] ** -0.5),
    ],
)
def test_mt5_and_umt5_agree_with_plain_tensor_operations(config, model, scale, attention, fast):
    base = untie(model(config(**SHAPE, attn_implementation=attention))).eval()
    assert_agrees_with_reference(base, fast, scale=scale)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@torch.no_grad()  # torch has another sdpa kernel for position biases that want a gradient, as unfrozen ones do
def test_a_disabled_prefix_gives_the_logits_of_the_base_model_to_the_bit(attention):
    batch = padded_batch()
    unpadded = {name: batch[name] for name in ("input_ids", "decoder_input_ids")}
    base = tiny_t5(attn_implementation=attention)
    model = with_prefix(copy.deepcopy(base))
    for inputs in (batch, unpadded):
        expected = base(**inputs).logits
        with model.disable_adapter():
            assert torch.equal(model(**inputs).logits, expected)
        assert not torch.allclose(model(**inputs).logits, expected, atol=1e-2)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_generate_equals_step_by_step_argmax_with_and_without_cache(attention):
    model = with_prefix(tiny_t5(attn_implementation=attention))
    model.generation_config.eos_token_id = None
    batch = padded_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    answer = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(8):
        step = model(**inputs, decoder_input_ids=answer).logits[:, -1].argmax(-1, keepdim=True)
        answer = torch.cat([answer, step], dim=1)
    for use_cache in (True, False):
        assert torch.equal(model.generate(**inputs, max_new_tokens=8, use_cache=use_cache), answer)
    with model.disable_adapter():
        assert not torch.equal(model.generate(**inputs, max_new_tokens=8), answer)


def test_pefts_prefix_tuning_is_the_same_as_a_decoder_prefix_if_the_decoder_has_no_position_bias():
    base = tiny_t5(num_layers=4, num_decoder_layers=4)
    nn.init.zeros_(base.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    layers, heads, d_kv = base.config.num_layers, base.config.num_heads, base.config.d_kv
    ours = with_prefix(copy.deepcopy(base), target=["decoder"])
    peft_config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, token_dim=heads * d_kv)
    peft_model = get_peft_model(base, peft_config)
    # PEFT shares its slots between the layers l and l + L/2, so half of them are never read.
    slots = (
        peft_model.prompt_encoder["default"].embedding.weight.detach().view(3, 2 * layers, heads, d_kv).transpose(0, 2)
    )
    for index, layer in enumerate(prefix_layers(ours).values()):
        layer.set_prefix("default", slots[:, 4 * index % (2 * layers)], slots[:, (4 * index + 1) % (2 * layers)])
    batch = padded_batch()
    del batch["decoder_attention_mask"]
    expected = peft_model(**batch).logits
    assert (ours(**batch).logits - expected).abs().max() < 1e-5
    with ours.disable_adapter():
        assert (ours(**batch).logits - expected).abs().max() > 1e-2


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("backbone", "adapter"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
@pytest.mark.parametrize("reparametrization", [None, 8])
def test_the_adapter_is_float32_under_half_precision_and_follows_float64(
    backbone, adapter, reparametrization, attention
):
    model = with_prefix(tiny_t5(attn_implementation=attention).to(backbone), reparametrization=reparametrization)
    batch = padded_batch()
    logits = model(**batch).logits
    assert logits.dtype == backbone
    assert {parameter.dtype for parameter in trainable(model).values()} == {adapter}
    gradients = prefix_gradients(model, batch)
    assert all(gradient.dtype == adapter and gradient.isfinite().all() for gradient in gradients.values())
    torch.manual_seed(0)
    full = with_prefix(tiny_t5(attn_implementation=attention), reparametrization=reparametrization)
    assert (full(**batch).logits - logits).abs().max() < 0.15


# ---------------------------------------------------------------------------------------------------------------------
# Initial values


def keys_and_values_of_text(base, token_ids):
    """What the frozen model makes of a text, from its hidden states and its cache: {path: (keys, values)}."""
    text = torch.tensor([token_ids])
    with torch.no_grad():
        output = base(input_ids=text, decoder_input_ids=text, use_cache=True, output_hidden_states=True)
        found = {}
        for index, block in enumerate(base.encoder.block):
            normed = block.layer[0].layer_norm(output.encoder_hidden_states[index])
            projections = block.layer[0].SelfAttention.k(normed), block.layer[0].SelfAttention.v(normed)
            shape = len(token_ids), base.config.num_heads, base.config.d_kv
            found[f"encoder.block.{index}.layer.0.SelfAttention"] = [
                p[0].view(shape).transpose(0, 1) for p in projections
            ]
    caches = output.past_key_values.self_attention_cache, output.past_key_values.cross_attention_cache
    for index in range(base.config.num_decoder_layers):
        for path, cache in zip(("0.SelfAttention", "1.EncDecAttention"), caches, strict=True):
            layer = cache.layers[index]
            found[f"decoder.block.{index}.layer.{path}"] = [layer.keys[0], layer.values[0]]
    return found


@pytest.mark.parametrize("reparametrization", [None, 16])
@pytest.mark.parametrize(
    ("text", "read"),
    [([5, 6, 7], [5, 6, 7]), ([5, 6, 7, 8, 9, 1], [5, 6, 7, 8, 9, 1]), ([5, 6], [5, 6, 5, 6])],
    ids=["as long as the prefix", "longer", "shorter"],
)
def test_text_gives_the_keys_and_values_that_it_has_in_the_frozen_model(text, read, reparametrization):
    expected = keys_and_values_of_text(tiny_t5(), read)
    model = with_prefix(tiny_t5().train())
    # A second adapter, on a model in training mode where another prefix is active.
    config = KVPrefixConfig(num_virtual_tokens=3, init="text", init_token_ids=text, reparametrization=reparametrization)
    model.add_adapter("text", config)
    assert all(module.training for module in prefix_layers(model).values())
    layers = prefix_layers(model)
    assert set(layers) == set(expected)
    for path, layer in layers.items():
        for tensor, wanted in zip(layer.prefix("text"), expected[path], strict=True):
            assert (tensor - wanted[:, :3]).abs().max() < 1e-5


def test_random_init_has_the_given_scale_and_depends_on_the_seed_alone():
    def values(dtype=torch.float32):
        torch.manual_seed(3)
        model = with_prefix(tiny_t5().to(dtype), num_virtual_tokens=50, init_scale=0.3)
        return torch.cat([parameter.flatten() for parameter in trainable(model).values()]).detach().float()

    assert values().std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(values(), values(torch.bfloat16))


# ---------------------------------------------------------------------------------------------------------------------
# Saving and loading

LOADER = """
import sys, torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

base, batch, *adapters = sys.argv[1:]
torch.set_num_threads(1)
try:
    PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), adapters[0])
except KeyError as error:
    assert "KV_PREFIX" in str(error)
else:
    raise AssertionError("loaded a method that nothing has registered")
import peftqa.kv_prefix

for adapter in adapters:
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(base), adapter)
    with torch.no_grad():
        save_file({"logits": model(**load_file(batch)).logits}, adapter + "/logits")
"""


@pytest.mark.slow
def test_a_saved_adapter_gives_the_same_bits_in_a_new_process(tmp_path):
    base = save_tiny_checkpoint(tmp_path / "base")
    batch, expected = padded_batch(), {}
    save_file(batch, tmp_path / "batch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the new process: the order of sums depends on it
    for name, config in {"plain": {}, "mlp": {"reparametrization": 16}}.items():
        model = with_prefix(AutoModelForSeq2SeqLM.from_pretrained(base), **config)
        prefix_gradients(model, batch)
        torch.optim.SGD(trainable(model).values(), lr=0.1).step()
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            expected[name] = model(**batch).logits
    torch.set_num_threads(threads)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [base, tmp_path / "batch", tmp_path / "plain", tmp_path / "mlp"]
    subprocess.run([sys.executable, "-c", LOADER, *map(str, arguments)], env=environment, check=True)
    for name in expected:
        assert torch.equal(load_file(tmp_path / name / "logits")["logits"], expected[name])


@pytest.mark.parametrize("reparametrization", [None, 16])
def test_a_saved_adapter_is_plain_keys_and_values_in_a_small_safetensors_file(tmp_path, reparametrization):
    model = with_prefix(tiny_t5(), reparametrization=reparametrization)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    paths = [f"base_model.model.{path}" for path in prefix_layers(model)]
    assert set(tensors) == {f"{path}.kv_prefix_{name}" for path in paths for name in ("key", "value")}
    assert {tuple(tensor.shape) for tensor in tensors.values()} == {(3, 3, 8)}  # heads, tokens, d_kv
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["target"]) == ("KV_PREFIX", ["encoder", "decoder", "cross"])
    loaded = PeftModel.from_pretrained(tiny_t5(), tmp_path, is_trainable=True)
    assert len(trainable(loaded)) == 12
    batch = padded_batch()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_plain_keys_and_values_are_not_loaded_into_an_mlp(tmp_path):
    model = with_prefix(tiny_t5(), reparametrization=16)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be loaded"):
        model.load_adapter(tmp_path, "default", is_trainable=True)


def test_transformers_loads_a_saved_prefix_by_itself_and_saves_the_same_file(tmp_path):
    base, adapter, again = (tmp_path / name for name in ("base", "adapter", "again"))
    save_tiny_checkpoint(base)
    model = with_prefix(AutoModelForSeq2SeqLM.from_pretrained(base))
    model.save_pretrained(adapter)
    batch = padded_batch()
    expected = model.eval()(**batch).logits
    loaded = AutoModelForSeq2SeqLM.from_pretrained(base)
    plain = loaded.eval()(**batch).logits
    loaded.load_adapter(str(adapter))
    for other in (loaded, AutoModelForSeq2SeqLM.from_pretrained(adapter)):
        assert torch.equal(other.eval()(**batch).logits, expected) and not torch.equal(plain, expected)
    loaded.save_pretrained(again)
    file = "adapter_model.safetensors"
    assert (again / file).read_bytes() == (adapter / file).read_bytes()
    assert json.loads((again / "adapter_config.json").read_text())["peft_type"] == "KV_PREFIX"


@pytest.mark.parametrize("call", ["forward", "generate"])
def test_an_adapter_for_each_row_is_refused_and_not_ignored(call):
    model, ids = with_prefix(tiny_t5()), padded_batch()["input_ids"]
    model.add_adapter("other", KVPrefixConfig())
    with pytest.raises(UserError, match=r"adapter_names is not possible with KV_PREFIX; choose one adapter"):
        getattr(model, call)(input_ids=ids, adapter_names=["default", "other", "__base__"])


# ---------------------------------------------------------------------------------------------------------------------
# Several adapters, and the model underneath


def test_several_adapters_live_side_by_side(tmp_path):
    batch = padded_batch()
    model = with_prefix(tiny_t5())
    first = model(**batch).logits
    model.add_adapter("other", KVPrefixConfig(target=["encoder"], init_scale=1.0, reparametrization=8))
    assert torch.equal(model(**batch).logits, first)
    model.set_adapter("other")
    second = model(**batch).logits
    assert (second - first).abs().max() > 1e-2
    assert trainable(model) and all(".other." in name for name in trainable(model))
    model.save_pretrained(tmp_path, selected_adapters=["other"])
    model.load_adapter(tmp_path / "other", "loaded")
    model.set_adapter("loaded")
    assert (model(**batch).logits - second).abs().max() < 1e-5
    model.set_adapter("default")
    model.delete_adapter("other")
    model.delete_adapter("loaded")
    assert torch.equal(model(**batch).logits, first)
    assert not any("other" in name or "loaded" in name for name, _ in model.named_parameters())


def test_prefixes_of_adapters_that_are_active_together_follow_one_another():
    batch = padded_batch()
    model = with_prefix(tiny_t5())
    model.add_adapter("other", KVPrefixConfig(num_virtual_tokens=2, init_scale=1.0))
    model.base_model.set_adapter(["default", "other"])
    joined = with_prefix(tiny_t5(), num_virtual_tokens=5)
    for path, layer in prefix_layers(model).items():
        pairs = zip(layer.prefix("default"), layer.prefix("other"), strict=True)
        prefix_layers(joined)[path].set_prefix("default", *[torch.cat(pair, dim=1) for pair in pairs])
    assert (model(**batch).logits - joined(**batch).logits).abs().max() < 1e-5


@torch.no_grad()
def test_unloading_gives_the_base_model_back_and_merging_is_refused():
    batch = padded_batch()
    base = tiny_t5()
    expected, names = base(**batch).logits, set(base.state_dict())
    model = with_prefix(base)
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(UserError, match="cannot be merged"):
            merge()
    unloaded = model.unload()
    assert set(unloaded.state_dict()) == names
    assert unloaded.config._attn_implementation == "sdpa"
    assert torch.equal(unloaded(**batch).logits, expected)


def test_a_model_without_such_attention_modules_is_refused():
    with torch.device("meta"):
        bart = BartForConditionalGeneration(BartConfig(encoder_layers=1, decoder_layers=1))
    with pytest.raises(UserError, match=r"BartForCond.* lacks .* encoder\.block\.N\.layer\.N\.SelfAttention"):
        with_prefix(bart)
    with pytest.raises(UserError, match=r"T5EncoderModel lacks .* cross; .*EncDecAttention"):
        with_prefix(T5EncoderModel(T5Config(**SHAPE)), target=["encoder", "cross"])


def test_an_attention_without_prefixes_is_refused():
    with pytest.raises(UserError, match="flex_attention; a prefix needs eager or sdpa"):
        with_prefix(tiny_t5(attn_implementation="flex_attention"))
    model = with_prefix(tiny_t5())
    model.get_base_model().set_attn_implementation("eager")
    with pytest.raises(UserError, match="would drop the prefix"):
        model(**padded_batch())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target": []}, "target is"),
        ({"target": ["encoder", "head"]}, "target is"),
        ({"num_virtual_tokens": 0}, "1 or more"),
        ({"init": "zeros"}, "random or text"),
        ({"init": "text"}, "init_token_ids is empty"),
        ({"num_virtual_tokens": 5, "reparametrization": 4}, "at least the length"),
    ],
)
def test_impossible_configurations_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        KVPrefixConfig(**config)


@pytest.mark.slow
@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_the_whole_model_compiles_to_one_graph_with_the_same_gradients(attention):
    model = with_prefix(tiny_t5(num_layers=1, num_decoder_layers=1, attn_implementation=attention))
    batch = padded_batch()
    expected = prefix_gradients(model, batch)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)  # it traces, without the slow C++ compiler
    for name, gradient in prefix_gradients(compiled, batch).items():
        torch.testing.assert_close(gradient, expected[name.removeprefix("_orig_mod.")])
