"""A small BPE tokenizer with T5's special tokens, trained on the pretraining stream."""

import argparse
from pathlib import Path
from random import Random

from ruamel.yaml import YAML
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from embedded.tasks import make_example

SENTINELS = 32


def train_tokenizer(seed: int, examples: int, vocab_size: int) -> PreTrainedTokenizerFast:
    """Words never merge with their neighbours, so tokenising piece by piece gives the ids of the whole.

    Ids 0, 1 and 2 are `<pad>`, `</s>` and `<unk>` as in T5, and 3 to 34 the sentinels of span corruption. No special
    token is added while encoding: who builds prompts says where they end.
    """
    rng = Random(seed)
    texts = [text for _ in range(examples) for text in make_example(rng)]
    sentinels = [f"<extra_id_{i}>" for i in range(SENTINELS)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            # "outcome." comes apart; "(p" and "0.03" stay whole.
            pre_tokenizers.Split(Regex(r"▁?\(?\w+(\.\d+)?|▁?[^\w▁]+"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>", *sentinels],
        initial_alphabet=sorted(chr(code) for code in range(33, 127) if not chr(code).isupper()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sentinels,
        model_max_length=512,
    )


def main() -> None:
    argparse.ArgumentParser(description="Train the tokenizer of pico-t5.").parse_args()
    here = Path(__file__).parent
    params = YAML(typ="safe").load(here / "params.yaml")["tokenizer"]
    train_tokenizer(**params).save_pretrained(here / "pico-t5")


if __name__ == "__main__":
    main()
