"""The project's training and evaluation against the usual script's, on one model and the same records.

Usage: python -m benchmarks.training --model DIR --data ori_pqal.json --json OUT, or `make bench`

Each arm is a process of its own; they work in turns, so that a machine whose speed drifts does not favour one.

- baseline (benchmarks/baseline.py): Seq2SeqTrainer, float32, PEFT's adapters, shuffled batches, dropout, `generate`.
- ours: the pipeline's own functions with params.yaml as it stands. `prefix` is PEFT's own prefix tuning, which reaches
  the decoder only, so both sides train the same thing; `kv_prefix` is the pipeline's prefix in all attention modules,
  for which there is no baseline implementation: it stands against baseline's decoder-only one and does more work.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, T5Config

from benchmarks.arm import BATCH_SIZE, clock, split_parts
from peftqa.config.params import read_params
from peftqa.errors import UserError
from peftqa.model.backbone import choose_device
from peftqa.model.prompts import encode_prompts

EPOCHS = 3
ARMS = (
    "baseline.prompt",
    "ours.prompt",
    "baseline.prefix",
    "ours.prefix",
    "ours.kv_prefix",
    "baseline.evaluate",
    "ours.evaluate",
)
TURNS = 4


def encoder_operations(config: T5Config, tokens: int) -> tuple[float, float]:
    """Floating point operations of the encoder for one prompt of `tokens` tokens: (in matrix products, in attention).

    A product of (n, a) and (a, b) takes 2 n a b. A layer has the projections to query, key, value and back, 4 of
    d_model x inner, and the feed-forward network, 3 of d_model x d_ff (gated; else 2); attention takes tokens x tokens
    x inner for the scores and as much for the values.
    """
    inner = config.num_heads * config.d_kv
    feed_forward = (3 if config.is_gated_act else 2) * config.d_model * config.d_ff
    products = 2 * tokens * (4 * config.d_model * inner + feed_forward) * config.num_layers
    attention = 2 * 2 * tokens * tokens * inner * config.num_layers
    return products, attention


def training_operations(config: T5Config, tokens: int, virtual_tokens: int = 20) -> float:
    """Floating point operations that one training example of prompt tuning needs, whoever computes them.

    Forward: the encoder over prompt and virtual tokens. Backward: frozen weights need no gradient, so each product
    with a weight is repeated once, for its input's gradient; attention has two inputs to each product, so twice.
    Left out, because they need not be done: padding, keys and values for the decoder's cross-attention (see
    peftqa/model/fast/t5.py), recomputation. Left out, because they are small (under 2% here): the decoder's two
    positions, the output layer, norms, activations, softmax. So both arms are charged with the least work that will do.
    """
    products, attention = encoder_operations(config, tokens + virtual_tokens)
    return 2 * products + 3 * attention


def matrix_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations per second of the best product of 4096 x 1024 and 1024 x 4096, or on a GPU of twice 8192 x 8192."""
    device = choose_device()
    rows, inner = (8192, 8192) if device.type == "cuda" else (4096, 1024)
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    b = torch.randn(inner, rows, dtype=dtype, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = clock()
        a @ b
        best = min(best, clock() - began)
    return 2 * rows * inner * rows / best


class Arm:
    """A process of benchmarks/arm.py, idle but for its turns."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.arm", name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        self.steps, self.examples, self.seconds = 0, 0, 0.0
        self.warm_up_seconds = self.answer()["warm_up_seconds"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: the arm {self.name} ended early:\n{self.process.stderr.read()[-4000:]}")
        return json.loads(line)

    def turn(self, steps: int) -> None:
        """Have it take so many steps."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.steps += answer["steps"]
        self.seconds += answer["seconds"]
        self.examples += answer.get("examples", 0)

    def close(self) -> None:
        self.process.stdin.close()
        self.peak_memory_mb = self.answer()["peak_memory_mb"]
        self.process.stderr.read()
        self.process.wait()


def run_arms(names: list[str], steps: dict[str, int], arguments: list[str]) -> dict[str, Arm]:
    """Start the arms one after the other, let each do its steps in TURNS turns, and end them."""
    arms = {}
    with tqdm(total=len(names) * (TURNS + 1), desc="benchmark", unit="turn", disable=None) as bar:
        for name in names:
            bar.set_postfix_str(f"{name}, warming up")
            arms[name] = Arm(name, arguments)
            bar.update()
        for turn in range(TURNS):
            for name, arm in arms.items():
                bar.set_postfix_str(name)
                share = steps[name] * (turn + 1) // TURNS - steps[name] * turn // TURNS
                if share:
                    arm.turn(share)
                bar.update()
        for arm in arms.values():
            arm.close()
    return arms


def training_figures(arm: Arm, lengths: list[int], config: T5Config) -> dict[str, float]:
    """Figures of an epoch, extrapolated where fewer steps were taken; warm-up counts as one epoch's share of three."""
    steps = -(-len(lengths) // BATCH_SIZE)
    working = arm.seconds / arm.steps * steps
    seconds = working + arm.warm_up_seconds / EPOCHS
    return {
        "examples_per_second": len(lengths) / seconds,
        "tokens_per_second": sum(lengths) / seconds,
        "seconds_per_epoch": seconds,
        "warm_up_seconds": arm.warm_up_seconds,
        "steps_measured": arm.steps,
        "peak_memory_mb": arm.peak_memory_mb,
        "operations_per_second": sum(training_operations(config, n) for n in lengths) / working,
    }


def comparison(details: dict[str, dict], ours: str, baseline: str) -> dict[str, float]:
    rates = [details[name]["examples_per_second"] for name in (baseline, ours) if name in details]
    return {"baseline": rates[0], "ours": rates[1], "ratio": rates[1] / rates[0]} if len(rates) == 2 else {}


def benchmark(model: Path, data: Path, options: argparse.Namespace) -> dict:
    """Everything that is measured, as it goes into the JSON file."""
    config = AutoConfig.from_pretrained(model)
    params = read_params(Path("params.yaml"))
    parts = split_parts(data, params, options.repeat)
    prompts = encode_prompts(AutoTokenizer.from_pretrained(model), parts["train"], params.template, params.data.labels)
    lengths = [len(prompt) for prompt in prompts]
    epoch = -(-len(lengths) // BATCH_SIZE)
    names = [name for name in ARMS if name in options.arms]
    steps = {
        name: 2
        if name.endswith("evaluate")
        else min(epoch, options.baseline_steps if name.startswith("baseline") else options.steps or epoch)
        for name in names
    }
    rates = {str(dtype).removeprefix("torch."): matrix_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    arms = run_arms(names, steps, [str(model), str(data), str(options.repeat)])
    rates = {name: max(rate, matrix_rate(getattr(torch, name))) for name, rate in rates.items()}

    details = {}
    for name, arm in arms.items():
        if name.endswith("evaluate"):
            details[name] = {
                "examples_per_second": arm.examples / arm.seconds,
                "warm_up_seconds": arm.warm_up_seconds,
                "peak_memory_mb": arm.peak_memory_mb,
            }
        else:
            details[name] = training_figures(arm, lengths, config)
            if not name.endswith("prompt"):  # the count is prompt tuning's
                del details[name]["operations_per_second"]
    sides = {side: [name for name in names if name.startswith(side)] for side in ("baseline", "ours")}
    return {
        "train": {
            "prompt": comparison(details, "ours.prompt", "baseline.prompt"),
            "prefix": comparison(details, "ours.prefix", "baseline.prefix"),
            "kv_prefix": comparison(details, "ours.kv_prefix", "baseline.prefix"),
        },
        "evaluate": comparison(details, "ours.evaluate", "baseline.evaluate"),
        "mfu": {
            side: details[f"{side}.prompt"]["operations_per_second"] / rates["bfloat16"]
            for side in sides
            if f"{side}.prompt" in details
        },
        "peak_memory_mb": {
            side: max(details[name]["peak_memory_mb"] for name in of_side) for side, of_side in sides.items() if of_side
        },
        "arms": details,
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "gflops": {name: rate / 1e9 for name, rate in rates.items()},
        },
        "examples": len(lengths),
        "mean_tokens": sum(lengths) / len(lengths),
        "parameters": {"d_model": config.d_model, "layers": config.num_layers},
    }


def processor() -> str:
    """The name of what computes: the GPU, or the processor and what of it matters here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        extensions = [
            flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in fields.get("flags", "").split()
        ]
        name = f"{fields.get('model name', name)} ({', '.join(extensions)})"
    return name


def table(result: dict) -> str:
    """The result as a Markdown table."""
    lines = [
        f"{result['machine']['processor']}, {result['machine']['threads']} threads; matrix products "
        + ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in result["machine"]["gflops"].items()),
        f"{result['examples']} training examples, {result['mean_tokens']:.0f} tokens on average",
        "",
        "| | examples/s | tokens/s | s/epoch | warm-up s | peak MB | share of bf16 rate |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rate = result["machine"]["gflops"]["bfloat16"] * 1e9
    for name, row in result["arms"].items():
        share = f"{row['operations_per_second'] / rate:.0%}" if "operations_per_second" in row else ""
        tokens, seconds = (
            f"{row[key]:.0f}" if key in row else "" for key in ("tokens_per_second", "seconds_per_epoch")
        )
        lines.append(
            f"| {name} | {row['examples_per_second']:.2f} | {tokens} | {seconds} | {row['warm_up_seconds']:.1f} "
            f"| {row['peak_memory_mb']:.0f} | {share} |"
        )
    ratios = {f"train.{name}": pair for name, pair in result["train"].items()} | {"evaluate": result["evaluate"]}
    lines += [""] + [f"{name}: {pair['ratio']:.1f} times baseline" for name, pair in ratios.items() if pair]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a T5 checkpoint: config, tokenizer, safetensors"
    )
    parser.add_argument("--data", type=Path, required=True, help="PubMedQA's ori_pqal.json, or a file like it")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--steps", type=int, help="training steps of each of our arms; a whole epoch where not given")
    parser.add_argument(
        "--baseline-steps", type=int, default=24, help="training steps of each baseline arm (default: 24)"
    )
    parser.add_argument("--repeat", type=int, default=1, help="take every record so many times")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    options = parser.parse_args()
    for path, what in ((options.model / "config.json", "--model: no checkpoint"), (options.data, "--data: no file")):
        if not path.exists():
            parser.error(f"{what} at {path}; `make repro` fetches models/base and data/raw, or name others")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: no folder {options.json.parent}")
    try:
        result = benchmark(options.model, options.data, options)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
