"""A tiny T5 with random weights, and a checkpoint folder of one with a tokenizer."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration, T5Tokenizer

SHAPE = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2}
SHAPE |= {"num_heads": 3}  # 3 * 8 is not d_model, as in flan-t5-small
SHAPE |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "tie_word_embeddings": False}
SHAPE |= {"feed_forward_proj": "gated-gelu", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
TEXT = """
yes no maybe answer the question with or question: abstract: does is are was were in of and to a for on by from
patients study treatment group risk results methods conclusion increase reduce associated between effect higher lower
"""
WORDS = TEXT.split()


def untie(model: nn.Module) -> nn.Module:
    """Give a model an output layer of its own, as flan-t5 has; transformers ties it in any T5 built from a config."""
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) * model.config.d_model**-0.5)
    return model


def tiny_t5(seed: int = 0, **overrides) -> T5ForConditionalGeneration:
    """A T5 of random weights that depend on the seed alone, in evaluation mode; `overrides` go to `T5Config`.

    Gated GELU and an output layer of its own as in flan-t5, and position biases large enough to matter.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = untie(T5ForConditionalGeneration(T5Config(**SHAPE | overrides)))
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                nn.init.normal_(weight)
    return model.eval()


def tiny_tokenizer() -> T5Tokenizer:
    """T5's kind of tokenizer over a few words and single characters; "yes", "no" and "maybe" are one token each."""
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS] + [("▁", -4.0)] + [(c, -8.0) for c in characters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)


def save_tiny_checkpoint(folder: Path | str, tokenizer_source: Path | str | None = None, **overrides) -> Path:
    """Write what `fetch_model` would fetch: config, safetensors and tokenizer; returns the folder.

    The tokenizer is the one in `tokenizer_source`, or else `tiny_tokenizer`; the vocabulary follows it.
    """
    folder = Path(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_source) if tokenizer_source else tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_t5(**{"vocab_size": -(-len(tokenizer) // 64) * 64} | overrides).save_pretrained(folder)
    return folder
