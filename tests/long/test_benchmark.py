"""The benchmark runs, on the embedded model, and what it counts is what is computed. No figure's size is tested."""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import training_operations
from peftqa.config.adapters import PromptTuning
from peftqa.model.adapters import add_adapter
from tests.conftest import ROOT
from tests.tiny import tiny_t5, tiny_tokenizer

MODEL, DATA = ROOT / "embedded/pico-t5", ROOT / "embedded/ori_pqal.json"


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.training", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_every_arm_is_measured_and_written(tmp_path):
    out = tmp_path / "out.json"
    result = run("--model", MODEL, "--data", DATA, "--steps", 4, "--baseline-steps", 4, "--json", out)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    for pair in (*figures["train"].values(), figures["evaluate"]):
        assert pair["ratio"] == pytest.approx(pair["ours"] / pair["baseline"]) and pair["baseline"] > 0
    assert {"prompt", "prefix"} <= figures["train"].keys()
    for name in ("mfu", "peak_memory_mb"):
        assert figures[name].keys() == {"baseline", "ours"} and min(figures[name].values()) > 0
    assert figures["arms"]["ours.prompt"]["steps_measured"] == 4
    assert "train.prompt: " in result.stdout and "| ours.evaluate |" in result.stdout


def test_what_is_missing_is_named_before_anything_runs(tmp_path):
    for arguments in (("--model", tmp_path, "--data", DATA), ("--model", MODEL, "--data", tmp_path / "no.json")):
        result = run(*arguments)
        assert result.returncode == 2 and str(tmp_path) in result.stderr.splitlines()[-1]


def test_the_operation_count_of_training_is_torchs_but_for_decoder_and_output_layer():
    """A long prompt and a decoder of one layer: what is left out must be small, and what is counted must be done."""
    base = tiny_t5(attn_implementation="eager", num_layers=6, num_decoder_layers=1, dropout_rate=0.0, vocab_size=192)
    adapter = PromptTuning(method="prompt_tuning", num_virtual_tokens=20, init="random", learning_rate=1.0)
    model = add_adapter(base.requires_grad_(False), adapter, tiny_tokenizer(), ["yes", "no"])
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.full((1, 400), 5), labels=torch.tensor([[3, 1]])).loss.backward()
    counted = training_operations(base.config, 400)
    assert counted <= counter.get_total_flops() <= 1.06 * counted
