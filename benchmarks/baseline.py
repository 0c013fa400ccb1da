"""The usual script: what somebody writes today from the libraries' documentation, with their defaults.

Nothing of this project is in it. float32, PEFT's own prompt and prefix tuning, shuffled batches padded to their
longest prompt, dropout as in the checkpoint, answers by `generate`.
"""

import tempfile
from collections.abc import Sequence

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

MAX_TOKENS = 512


def load(folder: str, method: str):
    """The checkpoint with an untrained adapter, `prompt` (20 tokens) or `prefix` (5), and its tokenizer."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    if method == "prompt":
        config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=20)
    else:  # without token_dim it fails on flan-t5-small: 512 is no multiple of its 6 heads (peft issue 385)
        width = model.config.num_heads * model.config.d_kv
        config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=5, token_dim=width)
    return get_peft_model(model, config), AutoTokenizer.from_pretrained(folder)


def encode(tokenizer, texts: Sequence[str], answers: Sequence[str]) -> list[dict]:
    encoded = tokenizer(list(texts), max_length=MAX_TOKENS, truncation=True)
    labels = tokenizer(list(answers))["input_ids"]
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": answer}
        for ids, mask, answer in zip(encoded["input_ids"], encoded["attention_mask"], labels, strict=True)
    ]


def train(model, tokenizer, examples: list[dict], batch_size: int, callback: TrainerCallback) -> None:
    """Three epochs of Seq2SeqTrainer; `callback` may stop it earlier."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            num_train_epochs=3,
            per_device_train_batch_size=batch_size,
            learning_rate=0.01,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Seq2SeqTrainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[callback],
        ).train()


@torch.no_grad()
def answer(model, tokenizer, examples: list[dict], batch_size: int) -> list[str]:
    """What the model writes, at most two tokens each, in batches padded to their longest prompt."""
    model.eval()
    answers = []
    for start in range(0, len(examples), batch_size):
        features = [
            {name: example[name] for name in ("input_ids", "attention_mask")}
            for example in examples[start : start + batch_size]
        ]
        batch = tokenizer.pad(features, return_tensors="pt").to(model.device)
        ids = model.generate(**batch, max_new_tokens=2)
        answers += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return answers
