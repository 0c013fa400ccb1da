"""P(label) by comparing the label words at the first decoder step, and the answers a model gives when left free.

As lm-evaluation-harness does for multiple choice: a likelihood for every label, no string matching. One forward pass
with one decoder position gives them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm


def pad_batch(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, int64 (batch, longest), padded on the right."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _batches_by_length(
    prompts: Sequence[Sequence[int]], batch_size: int, pad_id: int, device: torch.device, title: str
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Batches of prompts of similar length, longest first (memory runs out at once or never), with their positions."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    with tqdm(total=len(prompts), desc=title, unit="question", disable=None, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = pad_batch([prompts[row] for row in rows], pad_id)
            yield rows, {name: tensor.to(device) for name, tensor in batch.items()}
            bar.update(len(rows))


def label_probabilities_from_logits(logits: torch.Tensor, words: Sequence[int]) -> torch.Tensor:
    """Softmax over the label words. logits: (..., vocabulary); result: float32 (..., labels)."""
    return logits[..., list(words)].float().softmax(-1)


@torch.inference_mode()
def label_probabilities(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    words: Sequence[int],
    batch_size: int,
    title: str = "scoring",
) -> np.ndarray:
    """P(label | prompt) from an encoder-decoder model, adapter or not.

    prompts: token ids, any order and length. words: the token id that stands for each label.
    Result: float64 (len(prompts), len(words)), each row summing to 1, in the order of `prompts`.
    """
    config = model.config
    probabilities = np.empty((len(prompts), len(words)))
    for rows, batch in _batches_by_length(prompts, batch_size, config.pad_token_id, model.device, title):
        start = torch.full((len(rows), 1), config.decoder_start_token_id, device=model.device)
        logits = model(**batch, decoder_input_ids=start).logits[:, 0]
        probabilities[rows] = label_probabilities_from_logits(logits, words).double().cpu().numpy()
    return probabilities / probabilities.sum(axis=1, keepdims=True)


@torch.inference_mode()
def greedy_answers(
    model: torch.nn.Module,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    max_new_tokens: int,
    title: str = "answering freely",
) -> list[str]:
    """What the model writes when nothing ties it to the labels: greedy decoding, special tokens removed."""
    answers = [""] * len(prompts)
    for rows, batch in _batches_by_length(prompts, batch_size, tokenizer.pad_token_id, model.device, title):
        ids = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True)
        for row, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            answers[row] = text
    return answers


def valid_answer_rate(answers: Sequence[str], labels: Sequence[str]) -> float:
    """Share of free answers that are a label and nothing else, white space and letter case aside."""
    return float(np.mean([answer.strip().lower() in labels for answer in answers]))
