"""Token ids of questions with their abstracts. Only the abstract is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from peftqa.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from peftqa.config.params import Template


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of texts as they are, without a limit and without an end-of-sequence token."""
    return tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


def join_labels(labels: Sequence[str]) -> str:
    """The labels as an instruction names them: "yes or no"; "yes, no or maybe"."""
    return f"{', '.join(labels[:-1])} or {labels[-1]}"


def fill_instruction(template: Template, labels: Sequence[str]) -> str:
    """The template's instruction with the labels in it."""
    return template.instruction.replace("{labels}", join_labels(labels))


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    table: pd.DataFrame,
    template: Template,
    labels: Sequence[str],
    examples: Sequence[int] = (),
) -> list[np.ndarray]:
    """Token ids of each row's prompt, int32, at most `template.max_tokens` long, end-of-sequence token included.

    An abstract that does not fit loses tokens on its left or right (`truncation_side`). The parts, tokenised one by one
    and joined, give the same ids as the whole text, because T5's tokens never cross white space.

    table: columns id, question, context. examples: ids put before every prompt, not counted in max_tokens.
    Raises UserError, with the value that is needed, if the question and the instruction of a row are too long.
    """
    prompts = encode_and_cut(tokenizer, table, template, labels)
    return [np.array([*examples, *ids], dtype=np.int32) for ids, _ in prompts]


def encode_and_cut(
    tokenizer: PreTrainedTokenizerBase, table: pd.DataFrame, template: Template, labels: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """For each row, the token ids of its prompt, and those of its abstract that did not fit; see `encode_prompts`."""
    before, after = (part.strip() for part in template.text.split("{context}"))
    instruction = fill_instruction(template, labels)

    def fill(part: str) -> list[str]:
        # The question last, so that braces in a question stay as they are.
        return [part.replace("{instruction}", instruction).replace("{question}", text) for text in table["question"]]

    prompts, needed, too_long = [], 0, []
    parts = [token_ids(tokenizer, texts) for texts in (fill(before), table["context"], fill(after))]
    for pmid, head, context, tail in zip(table["id"], *parts, strict=True):
        room = template.max_tokens - len(head) - len(tail) - 1
        if room < 0:
            needed = max(needed, template.max_tokens - room)
            too_long.append(pmid)
            continue
        cut = max(len(context) - room, 0)
        if template.truncation_side == "left":
            lost, context = context[:cut], context[cut:]
        else:
            context, lost = context[: len(context) - cut], context[len(context) - cut :]
        prompts.append(([*head, *context, *tail, tokenizer.eos_token_id], lost))
    if too_long:
        raise UserError(
            f"template.max_tokens is {template.max_tokens}, but question and instruction alone need up to {needed} "
            f"tokens ({len(too_long)} of {len(table)} records, such as {too_long[0]}, need too many); set "
            f"template.max_tokens to {needed} at least, and to more for the abstracts."
        )
    return prompts


def first_token_ids(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> list[int]:
    """The token id that begins each label's answer, in the order of `labels`.

    Only first tokens are compared. Raises UserError if two labels have the same one, or if one is the unknown token.
    """
    ids = [word[0] for word in token_ids(tokenizer, labels)]
    if len(set(ids)) < len(ids) or tokenizer.unk_token_id in ids:
        raise UserError(
            f"the model's tokenizer gives the labels {', '.join(labels)} the first tokens {ids}, but each must have "
            "one of its own; choose another model (model.name) or other labels (data.labels)."
        )
    return ids


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, table: pd.DataFrame, template: Template, labels: Sequence[str]
) -> list[dict]:
    """A training example for each row of `table`: {"input_ids": prompt, "labels": answer}.

    Both are token ids that end with the end-of-sequence token.
    """
    pairs = zip(encode_prompts(tokenizer, table, template, labels), token_ids(tokenizer, table["label"]), strict=True)
    return [{"input_ids": prompt, "labels": [*answer, tokenizer.eos_token_id]} for prompt, answer in pairs]


def few_shot_examples(
    tokenizer: PreTrainedTokenizerBase,
    train: pd.DataFrame,
    template: Template,
    labels: Sequence[str],
    count: int,
    max_tokens: int,
    seed: int | Sequence[int],
) -> list[int]:
    """Token ids of training examples with their answers, for few-shot prompting (Brown et al. 2020, arXiv 2005.14165).

    `count` rows are drawn at random, equally many per label (the first labels get one more if needed). They are taken
    shortest first, as long as they fit into `max_tokens` together.
    Raises UserError if the training split has too few rows, or if not even the shortest example fits.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for position, label in enumerate(labels):
        rows = train.index[train["label"] == label]
        wanted = count // len(labels) + (1 if position < count % len(labels) else 0)
        if wanted > len(rows):
            raise UserError(
                f"evaluate.untrained: few_shot asks for {wanted} examples labelled {label}; the training split has "
                f"{len(rows)}. Ask for fewer."
            )
        drawn.extend(random.choice(rows, wanted, replace=False))
    pairs = encode_examples(tokenizer, train.loc[drawn], template, labels)
    examples = sorted(([*pair["input_ids"][:-1].tolist(), *pair["labels"][:-1]] for pair in pairs), key=len)
    ids: list[int] = []
    for example in examples:
        if len(ids) + len(example) > max_tokens:
            break
        ids += example
    if not ids:
        raise UserError(
            f"evaluate.untrained: max_tokens is {max_tokens}, but the shortest drawn example has {len(examples[0])} "
            "tokens; raise it."
        )
    return ids
