"""Encoder outputs in a file: what the encoder would give again, read without running it."""

import pytest
import torch

from peftqa.model.adapters import PEFTPrefixTuning, add_adapter
from peftqa.training.encoder_outputs import add_encoder_outputs, compute_encoder_outputs
from tests.tiny import tiny_t5, tiny_tokenizer

PROMPTS = [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1]]


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def model(request):
    adapter = PEFTPrefixTuning(method="prefix_tuning", learning_rate=1.0, num_virtual_tokens=2)
    backbone = tiny_t5(vocab_size=192).to(request.param).requires_grad_(False)
    return add_adapter(backbone, adapter, tiny_tokenizer())


@pytest.fixture
def encoder_calls(model):
    calls = []
    model.get_base_model().get_encoder().register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_each_prompt_gets_what_the_encoder_makes_of_it_without_dropout(model, tmp_path):
    examples = [{"input_ids": prompt, "labels": [3, 1]} for prompt in PROMPTS]
    read = add_encoder_outputs(model.train(), examples, 2, tmp_path / "new" / "encoded", "test")
    encoder = model.get_base_model().get_encoder()
    assert encoder.training
    encoder.eval()
    for example, before in zip(read, examples, strict=True):
        assert {name: example[name] for name in before} == before
        with torch.no_grad():
            expected = encoder(input_ids=torch.tensor([before["input_ids"]])).last_hidden_state[0]
        state = example["load_encoder_output"]()
        assert state.dtype == expected.dtype and state.shape == expected.shape
        assert (state - expected).abs().max() < (1e-5 if state.dtype == torch.float32 else 0.05)


def test_a_whole_file_is_read_and_a_part_of_one_is_computed_again(model, encoder_calls, tmp_path):
    path = tmp_path / "encoded"
    first = compute_encoder_outputs(model, PROMPTS, 2, path, "test")
    expected = [first[row].clone() for row in range(3)]
    assert len(encoder_calls) == 2
    compute_encoder_outputs(model, PROMPTS, 2, path, "test")
    assert len(encoder_calls) == 2
    path.write_bytes(path.read_bytes()[:-1])
    again = compute_encoder_outputs(model, PROMPTS, 2, path, "test")
    assert len(encoder_calls) == 4
    assert all(torch.equal(again[row], state) for row, state in enumerate(expected))
    assert [file.name for file in tmp_path.iterdir()] == ["encoded"]
