"""Label probabilities and free answers."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

from peftqa.kv_prefix import KVPrefixConfig
from peftqa.model.scoring import label_probabilities, pad_batch, probabilities_and_answers, valid_answer_rate
from tests.tiny import tiny_t5, tiny_tokenizer

PROMPTS = [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1], [14, 15, 1]]
WORDS = [3, 4]


@pytest.fixture(scope="module")
def model():
    return tiny_t5(vocab_size=192)


def test_probabilities_are_a_softmax_over_the_label_words_at_the_first_decoder_step(model):
    got = label_probabilities(model, PROMPTS, WORDS, batch_size=3)
    assert got.shape == (4, 2) and got.dtype == np.float64
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-15)
    for row, prompt in zip(got, PROMPTS, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
        wanted = np.exp(logits[WORDS].double().numpy())
        np.testing.assert_allclose(row, wanted / wanted.sum(), atol=1e-6)


def test_batch_size_and_order_do_not_matter(model):
    one_by_one = label_probabilities(model, PROMPTS, WORDS, batch_size=1)
    backwards = label_probabilities(model, PROMPTS[::-1], WORDS, batch_size=4)[::-1]
    np.testing.assert_allclose(one_by_one, backwards, atol=1e-6)


def greedy(model, prompt: list[int], tokens: int, eos: int) -> tuple[torch.Tensor, list[int]]:
    """The first step's logits, and the token ids of the greedy answer, a whole forward pass for each."""
    ids, first = [0], None
    for _ in range(tokens):
        with torch.inference_mode():
            batch = pad_batch([prompt], pad_id=0) | {"decoder_input_ids": torch.tensor([ids])}
            logits = model(**batch, use_cache=False).logits[0]
        first = logits[0] if first is None else first
        ids.append(int(logits[-1].argmax()))
        if ids[-1] == eos:
            break
    return first, ids


SHAPE = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 3}
ADAPTERS = {
    "none": None,
    "prompt": PromptTuningConfig(**SHAPE, num_transformer_submodules=1),
    "p-tuning": PromptEncoderConfig(**SHAPE, num_transformer_submodules=1, encoder_hidden_size=8),
    "PEFT's prefix": PrefixTuningConfig(**SHAPE, token_dim=24),
    "prefix": KVPrefixConfig(**SHAPE, init_scale=2.0),
    "LoRA": LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"], init_lora_weights=False),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_answers_are_the_greedy_tokens_and_probabilities_those_of_a_forward_pass_to_the_bit(adapter):
    tokenizer, model = tiny_tokenizer(), tiny_t5(vocab_size=192)
    if ADAPTERS[adapter]:
        torch.manual_seed(0)
        model = get_peft_model(model, ADAPTERS[adapter]).eval()
    if adapter == "PEFT's prefix":
        model.prompt_encoder["default"].embedding.weight.data *= 5
    scores, answers = probabilities_and_answers(model, tokenizer, PROMPTS, WORDS, batch_size=1, max_new_tokens=4)
    for answer, score, prompt in zip(answers, scores, PROMPTS, strict=True):
        first, ids = greedy(model, prompt, 4, tokenizer.eos_token_id)
        assert answer == tokenizer.decode(ids, skip_special_tokens=True)
        wanted = first[WORDS].float().softmax(-1).double().numpy()
        np.testing.assert_array_equal(score, wanted / wanted.sum())
    np.testing.assert_array_equal(scores, label_probabilities(model, PROMPTS, WORDS, batch_size=1))


def test_an_answer_is_valid_if_it_is_just_a_label():
    assert valid_answer_rate(["yes", " No ", "yes it is", "maybe", ""], ["yes", "no"]) == 0.4
