"""One arm of the benchmark in a process of its own, which works when it is told to.

Usage: python -m benchmarks.arm ARM MODEL DATA REPEAT, with ARM `baseline` or `ours`, a dot, and `prompt`, `prefix`,
`kv_prefix` or `evaluate`. For each line on standard input, a number of steps, it takes so many and answers with a line
of JSON; at the end of the input it says what memory it took. The first line it prints says that it is ready.
"""

import gc
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import pandas as pd
import torch
from transformers import TrainerCallback, set_seed

from peftqa.config.adapters import PEFTMethod
from peftqa.config.params import Params, read_params
from peftqa.data.records import clean, read_records, to_table
from peftqa.data.splits import split_random
from peftqa.model.adapters import add_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer, peak_memory_mb
from peftqa.model.prompts import encode_examples, fill_instruction, first_token_ids
from peftqa.model.scoring import label_probabilities
from peftqa.training.train import train_adapter

BATCH_SIZE = 8
SEED = 42


class EnoughError(Exception):
    """There is no more to do."""


def clock() -> float:
    """Seconds, when all that was started has been computed: a GPU works on while Python goes on."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Turns(TrainerCallback):
    """Works only when told to, and says what was done since: steps, examples, tokens, seconds."""

    def __init__(self, answers: TextIO) -> None:
        self.answers, self.began = answers, clock()
        self.left = self.steps = 0

    def say(self, **what: object) -> None:
        print(json.dumps(what), file=self.answers, flush=True)

    def next_turn(self) -> int:
        """Wait to be told; returns the number of steps. Raises EnoughError at the end of the input."""
        if self.began:
            self.say(warm_up_seconds=clock() - self.began)
            self.began = 0.0
        line = sys.stdin.readline()
        if not line:
            raise EnoughError
        return int(line)

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if self.left == 0:
            self.steps = self.left = self.next_turn()
            self.turn_began = clock()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.left -= 1
        if self.left == 0:
            self.say(steps=self.steps, seconds=clock() - self.turn_began)


def main() -> None:
    # Answers alone go to standard output; what libraries print goes where their warnings go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arm, model, data, repeat = sys.argv[1:]
    side, what = arm.split(".")
    params = read_params(Path("params.yaml"))
    parts = split_parts(Path(data), params, int(repeat))
    set_seed(SEED)
    turns = Turns(answers)
    try:
        (baseline_arm if side == "baseline" else our_arm)(what, model, parts, params, turns)
    except EnoughError:
        turns.say(peak_memory_mb=peak_memory_mb())


def split_parts(data: Path, params: Params, repeat: int) -> dict[str, pd.DataFrame]:
    """The pipeline's own training, validation and test records, each `repeat` times."""
    table, _ = clean(to_table(read_records(data)), params.data.labels)
    split = params.split
    parts = split_random(table, split.train, split.val, split.test, split.seed)
    return {name: pd.concat([part] * repeat, ignore_index=True) for name, part in parts.items()}


def baseline_arm(what: str, folder: str, parts: dict[str, pd.DataFrame], params: Params, turns: Turns) -> None:
    from benchmarks import baseline

    def encode(tokenizer, *names: str) -> list[dict]:
        table = pd.concat([parts[name] for name in names])
        instruction = fill_instruction(params.template, params.data.labels)
        texts = [
            params.template.text.format(question=row.question, context=row.context, instruction=instruction)
            for row in table.itertuples()
        ]
        return baseline.encode(tokenizer, texts, table["label"])

    model, tokenizer = baseline.load(folder, "prompt" if what == "evaluate" else what)
    if what == "evaluate":
        examples = encode(tokenizer, "val", "test")
        repeat_evaluation(turns, len(examples), lambda: baseline.answer(model, tokenizer, examples, BATCH_SIZE))
    else:
        baseline.train(model, tokenizer, encode(tokenizer, "train"), BATCH_SIZE, turns)


def our_arm(what: str, folder: str, parts: dict[str, pd.DataFrame], params: Params, turns: Turns) -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    logging.getLogger("peftqa").setLevel(logging.INFO)
    adapter = {
        "prompt": params.adapters["prompt"],
        "prefix": PEFTMethod(
            method="peft", config={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5}, learning_rate=0.01
        ),
        "kv_prefix": params.adapters["prefix"],
        "evaluate": params.adapters["prompt"],
    }[what]
    tokenizer = load_tokenizer(Path(folder))
    label_token_ids = first_token_ids(tokenizer, params.data.labels)
    model = add_adapter(load_backbone(Path(folder), params.model), adapter, tokenizer, params.data.labels)
    if what == "evaluate":
        model.eval()
        prompts = [
            row["input_ids"]
            for name in ("val", "test")
            for row in encode_examples(tokenizer, parts[name], params.template, params.data.labels)
        ]
        repeat_evaluation(turns, len(prompts), lambda: label_probabilities(model, prompts, label_token_ids, BATCH_SIZE))
        return
    examples = {
        name: encode_examples(tokenizer, parts[name], params.template, params.data.labels) for name in ("train", "val")
    }
    parts.clear()
    gc.collect()
    with tempfile.TemporaryDirectory() as checkpoints:
        settings = params.train.model_copy(update={"batch_size": BATCH_SIZE})
        train_adapter(
            model,
            adapter,
            examples["train"],
            examples["val"],
            label_token_ids=label_token_ids,
            settings=settings,
            seed=SEED,
            checkpoints=Path(checkpoints, "run"),
            title=what,
            callbacks=[turns],
        )


def repeat_evaluation(turns: Turns, examples: int, evaluate) -> None:
    """A turn's `steps` are rounds over all examples here."""
    while True:
        rounds, began = turns.next_turn(), clock()
        for _ in range(rounds):
            evaluate()
        turns.say(steps=rounds, examples=rounds * examples, seconds=clock() - began)


if __name__ == "__main__":
    main()
