"""Label probabilities and free answers."""

import numpy as np
import pytest
import torch

from peftqa.model.scoring import label_probabilities, pad_batch, probabilities_and_answers, valid_answer_rate
from tests.tiny import tiny_t5, tiny_tokenizer

PROMPTS = [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1], [14, 15, 1]]
WORDS = [3, 4]


@pytest.fixture(scope="module")
def model():
    return tiny_t5(vocab_size=192)


def test_a_batch_is_padded_on_the_right_and_masked():
    batch = pad_batch([[5, 6], [7]], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_probabilities_are_a_softmax_over_the_label_words_at_the_first_decoder_step(model):
    got = label_probabilities(model, PROMPTS, WORDS, batch_size=3)
    assert got.shape == (4, 2) and got.dtype == np.float64
    for row, prompt in zip(got, PROMPTS, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
        wanted = np.exp(logits[WORDS].double().numpy())
        np.testing.assert_allclose(row, wanted / wanted.sum(), atol=1e-6)


def test_probabilities_sum_to_one_in_double_precision(model):
    np.testing.assert_allclose(label_probabilities(model, PROMPTS, WORDS, 2).sum(axis=1), 1, atol=1e-15)


def test_batch_size_and_order_do_not_matter(model):
    one_by_one = label_probabilities(model, PROMPTS, WORDS, batch_size=1)
    backwards = label_probabilities(model, PROMPTS[::-1], WORDS, batch_size=4)[::-1]
    np.testing.assert_allclose(one_by_one, backwards, atol=1e-6)


def test_free_answers_are_the_greedy_tokens_as_text(model):
    tokenizer = tiny_tokenizer()
    scores, answers = probabilities_and_answers(model, tokenizer, PROMPTS, WORDS, batch_size=2, max_new_tokens=3)
    np.testing.assert_array_equal(scores, label_probabilities(model, PROMPTS, WORDS, batch_size=2))
    for answer, prompt in zip(answers, PROMPTS, strict=True):
        ids = [0]
        for _ in range(3):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([ids])).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert answer == tokenizer.decode(ids, skip_special_tokens=True)


def test_an_answer_is_valid_when_it_is_a_label_and_nothing_else():
    assert valid_answer_rate(["yes", " No ", "yes it is", "maybe", ""], ["yes", "no"]) == 0.4
