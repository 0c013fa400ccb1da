"""The fast path gives the logits, gradients and free answers of transformers' own modules."""

import copy

import pytest
import torch

from peftqa.config.adapters import KVPrefix, PEFTMethod, PromptTuning
from peftqa.model.adapters import add_adapter
from peftqa.model.fast.t5 import patch_t5
from peftqa.model.scoring import probabilities_and_answers
from tests.tiny import tiny_t5, tiny_tokenizer

RATE = {"learning_rate": 0.1}
TARGETS = ["encoder", "decoder", "cross"]
PREFIX = {"method": "kv_prefix", "num_virtual_tokens": 3, "init": "text", "init_text": "yes", "target": TARGETS} | RATE
ADAPTERS = {
    "prompt": PromptTuning(method="prompt_tuning", num_virtual_tokens=4, init="random", **RATE),
    "prefix": KVPrefix(**PREFIX),
    "prefix_cross": KVPrefix(**PREFIX | {"target": ["cross"]}),
    "peft_prefix": PEFTMethod(method="peft", config={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}, **RATE),
    "lora": PEFTMethod(method="peft", config={"peft_type": "LORA", "r": 2}, **RATE),
    "ia3": PEFTMethod(method="peft", config={"peft_type": "IA3"}, **RATE),
}
IMPLEMENTATIONS = ["fused", "sdpa"]


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 60, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([[3, 1], [4, 1], [3, 1]])}


def frozen(model, fast: bool, attention: str):
    model = copy.deepcopy(model).requires_grad_(False)
    model.set_attn_implementation(attention)
    for config in (model.config, model.get_decoder().config):
        config.use_cache = False
    return patch_t5(model) if fast else model


def with_adapter(name, model):
    torch.manual_seed(3)
    model = add_adapter(model, ADAPTERS[name], tiny_tokenizer(), ["yes", "no"])
    with torch.no_grad():  # LoRA and IA3 start without an effect
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.train()


def outcome(model) -> list[torch.Tensor]:
    """Logits, and the gradient of every trainable parameter."""
    output = model(**batch())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [output.logits, *torch.autograd.grad(output.loss, parameters)] if parameters else [output.logits]


def assert_same_outcome(ours, theirs, atol=2e-5):
    for one, other in zip(outcome(ours), outcome(theirs), strict=True):
        assert torch.allclose(one, other, atol=atol), (one - other).abs().max()


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_and_gradients_are_transformers_own(name, attention):
    base = tiny_t5(vocab_size=192, dropout_rate=0.0)
    ours = with_adapter(name, frozen(base, True, attention))
    theirs = with_adapter(name, frozen(base, False, "sdpa"))
    assert_same_outcome(ours, theirs)


def test_a_feed_forward_layer_without_a_gate_stays_as_it_is():
    base = tiny_t5(vocab_size=192, dropout_rate=0.0, feed_forward_proj="relu")
    assert_same_outcome(frozen(base, True, "fused"), frozen(base, False, "sdpa"))


def test_with_dropout_in_training_the_fast_path_drops_out_too():
    model = frozen(tiny_t5(vocab_size=192, dropout_rate=0.3), True, "fused").train()
    assert not torch.equal(model(**batch()).logits, model(**batch()).logits)
    model.eval()
    assert torch.equal(model(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("name", ADAPTERS)
def test_scores_and_free_answers_are_those_of_transformers_generate(name):
    tokenizer = tiny_tokenizer()
    ours = with_adapter(name, frozen(tiny_t5(vocab_size=192), True, "fused")).eval()
    theirs = with_adapter(name, frozen(tiny_t5(vocab_size=192), False, "sdpa")).eval()
    prompts = [row[: int(mask.sum())].tolist() for row, mask in zip(*list(batch().values())[:2], strict=True)]
    probabilities, answers = probabilities_and_answers(ours, tokenizer, prompts, [3, 4], 2, 5)
    for prompt, scores, answer in zip(prompts, probabilities, answers, strict=True):
        ids, mask = torch.tensor([prompt]), torch.ones(1, len(prompt), dtype=torch.long)
        free = theirs.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False, use_cache=True)
        assert answer == tokenizer.batch_decode(free, skip_special_tokens=True)[0]
        with torch.no_grad():
            start = torch.zeros(1, 1, dtype=torch.long)
            logits = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[0, 0, [3, 4]]
        assert scores == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
