"""Probabilities of the labels, by their first tokens only, and the answers that a model generates freely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase


def pad_batch(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, int64 (batch, longest), padded on the right."""
    ids = [torch.as_tensor(prompt, dtype=torch.long) for prompt in prompts]
    mask = [torch.ones_like(prompt) for prompt in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence(mask, batch_first=True),
    }


def label_probabilities_from_logits(logits: torch.Tensor, label_token_ids: Sequence[int]) -> torch.Tensor:
    """Softmax over the label words. logits: (..., vocabulary); result: float32 (..., labels)."""
    return logits[..., list(label_token_ids)].float().softmax(-1)


def label_probabilities(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    label_token_ids: Sequence[int],
    batch_size: int,
    title: str = "scoring",
) -> np.ndarray:
    """P(label | prompt), float64 (prompts, labels), from a model with or without an adapter.

    prompts: token ids, of any length. label_token_ids: the first token id of each label.
    """
    return probabilities_and_answers(model, None, prompts, label_token_ids, batch_size, 1, title)[0]


@torch.inference_mode()
def probabilities_and_answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    prompts: Sequence[Sequence[int]],
    label_token_ids: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
    title: str = "scoring",
) -> tuple[np.ndarray, list[str]]:
    """`label_probabilities`, and the greedy answers that the model generates freely, if there is a tokenizer.

    The encoder does nearly all of the work, and reads each prompt once for both.
    """
    config, adapter = model.config, getattr(model, "active_peft_config", None)
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        # A cache of keys and values costs more than it saves, because an answer has few tokens. But PEFT's
        # PREFIX_TUNING puts its prefix into the cache in the first step only. Later steps read it there.
        use_cache=getattr(adapter, "peft_type", None) == "PREFIX_TUNING",
        output_logits=True,
        return_dict_in_generate=True,
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    probabilities = np.empty((len(prompts), len(label_token_ids)))
    answers: list[list[int]] = [[]] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))  # longest first: memory errors come early
    with tqdm(total=len(prompts), desc=title, unit="question", disable=None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = pad_batch([prompts[row] for row in rows], config.pad_token_id)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            output = model.generate(**batch, generation_config=greedy)
            scores = label_probabilities_from_logits(output.logits[0], label_token_ids)
            probabilities[rows] = scores.double().cpu().numpy()
            for row, answer in zip(rows, output.sequences.tolist(), strict=True):
                answers[row] = answer
            bar.update(len(rows))
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # rows of a float32 softmax sum to 1 within rounding only
    return probabilities, tokenizer.batch_decode(answers, skip_special_tokens=True) if tokenizer else []


def valid_answer_rate(answers: Sequence[str], labels: Sequence[str]) -> float:
    """The share of free answers that are just a label, in any letter case; white space around it is ignored."""
    return float(np.mean([answer.strip().lower() in labels for answer in answers]))
