"""Pretrain pico-t5, a T5 of FLAN-T5's architecture, from scratch on the mixture of `embedded.tasks`."""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import torch
from ruamel.yaml import YAML
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from embedded.tasks import Example, make_example

POOL = 16  # batches drawn at once and cut by length, so that little of them is padding


def build_model(tokenizer: PreTrainedTokenizerBase, architecture: dict) -> T5ForConditionalGeneration:
    """A T5 with random weights: gated GELU and an output layer of its own, as T5 1.1 and FLAN-T5 have them."""
    config = T5Config(
        vocab_size=len(tokenizer),
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,  # so that the decoder's output is not scaled
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **architecture,
    )
    model = T5ForConditionalGeneration(config)
    # T5 draws both with a standard deviation of 1, made for Adafactor's steps in proportion to the weights.
    # transformers 5 ties the output layer of every T5 that it builds, whatever it is told, and saves it so.
    model.lm_head.weight = nn.Parameter(model.shared.weight.detach() * config.d_model**-0.5)
    config.tie_word_embeddings = False
    init_heads(model)
    for module in model.modules():
        if hasattr(module, "wi_0"):
            module.act = nn.GELU(approximate="tanh")  # what transformers composes from eight operations
    return model


@torch.no_grad()
def init_heads(model: T5ForConditionalGeneration) -> None:
    """Give the encoder's heads something to do from the start, which saves most of the training.

    Half of them look nearby: their bias falls with distance (ALiBi, Press et al. 2022, arXiv 2108.12409). The others
    look for the same word elsewhere: queries are like keys (Trockman and Kolter 2023, arXiv 2305.09828) and a token
    does not see itself. What a layer adds to the residual stream begins small, so that words stay recognisable.
    """
    config = model.config
    local = config.num_heads // 2
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # (buckets, heads)
    distance = torch.arange(len(bias)) % (len(bias) // 2)  # logarithmic beyond 8; bucket 0 is the token itself
    for head in range(local):
        bias[:, head] = -distance * 2.0**-head
    bias[0, local:] = -10
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        rows = slice(local * config.d_kv, None)
        attention.q.weight[rows].normal_(std=(8 / config.d_kv / config.d_model) ** 0.5)  # a token scores 8 with itself
        attention.k.weight[rows] = attention.q.weight[rows]
    for name, weight in model.named_parameters():
        if name.endswith((".o.weight", ".wo.weight")):
            weight *= 0.3


def make_batches(
    tokenizer: PreTrainedTokenizerBase, draw: Callable[[Random], Example], batch_size: int, rng: Random
) -> Iterator[dict]:
    """Endless batches of similar length: int64 input_ids, attention_mask, labels (padding -100), (batch, tokens)."""
    while True:
        prompts, targets = zip(*(draw(rng) for _ in range(batch_size * POOL)), strict=True)
        sources, answers = (
            [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(texts))["input_ids"]]
            for texts in (prompts, targets)
        )
        by_length = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        chunks = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
        rng.shuffle(chunks)
        for chunk in chunks:
            input_ids = pad([sources[i] for i in chunk], 0)
            labels = pad([answers[i] for i in chunk], -100)
            yield {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": labels}


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def make_optimizers(model: nn.Module, rates: dict[str, float]) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the blocks' matrices, AdamW for the rest.

    rates: peak learning rates of the `matrices`, of the `heads` that `init_heads` set and of all `else`. The heads
    learn slowly, or what they were given would be gone before the layers around them made use of it.
    """
    groups = {"matrices": [], "heads": [], "else": []}
    for name, weight in model.named_parameters():
        if name.startswith("encoder") and name.endswith((".q.weight", ".k.weight", "relative_attention_bias.weight")):
            groups["heads"].append(weight)
        elif ".layer." in name and weight.ndim == 2 and "relative_attention_bias" not in name:
            groups["matrices"].append(weight)
        else:
            groups["else"].append(weight)
    slow, fast = ({"params": groups[name], "lr": rates[name]} for name in ("heads", "else"))
    return [
        torch.optim.Muon(groups["matrices"], lr=rates["matrices"], weight_decay=0.01),
        torch.optim.AdamW([slow, fast], weight_decay=0.0),
    ]


def rate(step: int, steps: int, warmup_steps: int) -> float:
    """Learning rate relative to its peak: linear warm-up, constant, linear fall over the last 40% of the steps."""
    return min(1.0, step / warmup_steps, (steps - step + 1) / (0.4 * steps))


def pretrain(tokenizer: PreTrainedTokenizerBase, settings: dict) -> Iterator[T5ForConditionalGeneration]:
    """Train from scratch, phase by phase; yields the model after each.

    Mean cross entropy of the target's tokens under teacher forcing, in bfloat16 where the CPU has it.
    """
    torch.manual_seed(settings["seed"])
    rng = Random(settings["seed"])
    model = build_model(tokenizer, settings["architecture"])
    model.set_attn_implementation("eager")  # faster than sdpa here: the position bias wants a gradient
    optimizers = make_optimizers(model, settings["learning_rates"])
    steps = sum(settings["phases"].values())
    factor = partial(rate, steps=steps, warmup_steps=settings["warmup_steps"])
    schedules = [LambdaLR(optimizer, lambda done: factor(done + 1)) for optimizer in optimizers]
    start = time.perf_counter()
    for text, count in settings["phases"].items():
        stream = make_batches(tokenizer, partial(make_example, text=text), settings["batch_size"], rng)
        losses = []
        for step in range(1, count + 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
                loss = model(**next(stream)).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            losses.append(loss.item())
            if step % 50 == 0:
                seconds = time.perf_counter() - start
                print(f"{text} {step}: loss {sum(losses[-50:]) / 50:.3f}, {seconds:.0f} s", flush=True)
        yield model


def main() -> None:
    argparse.ArgumentParser(description="Pretrain pico-t5 from scratch.").parse_args()
    here = Path(__file__).parent
    settings = YAML(typ="safe").load(here / "params.yaml")["pretrain"]
    for model in pretrain(AutoTokenizer.from_pretrained(here / "pico-t5"), settings):
        model.save_pretrained(here / "pico-t5")


if __name__ == "__main__":
    main()
