"""Runs: several at a time, more of them, fewer of them, and names that a shell would run as commands."""

import os
import pty
import re
import subprocess
import sys
import termios

import pandas as pd
import pytest
from ruamel.yaml import YAML

from experiments.runs import job_variables
from tests.clone import Clone, ran
from tests.conftest import ROOT

FOLDS, SEEDS = [0, 1], [1, 2]
RUNS = {f"prefix-{fold}-{seed}" for fold in FOLDS for seed in SEEDS}


PREFIX = YAML(typ="safe").load(ROOT / "params.yaml")["adapters"]["prefix"]
ONE_ADAPTER = {
    "adapters": {"prefix": PREFIX},
    "evaluate.untrained": {"base": {"few_shot": 0}},
    "evaluate.variants": ["majority", "tfidf", "base", "prefix"],
}


@pytest.fixture(scope="module")
def study(new_clone) -> Clone:
    """Two of ten folds, two seeds, trained and predicted two at a time."""
    changes = {"split.protocol": "cross_validation", "split.folds": FOLDS, "train.seeds": SEEDS}
    clone = new_clone("study", **changes, **ONE_ADAPTER)
    clone.printed = clone("python", "-m", "experiments.runs", "--jobs", "2")
    clone.then = clone("dvc", "repro")
    clone.commit("First")
    return clone


def test_each_run_that_starts_and_is_done_is_named_and_repro_finds_it_done(study):
    lines = study.printed.partition("6 of 6 runs are missing")[2].splitlines()[1:]
    end = r": done in \d+\.\d min, \d of 6 runs are done$"
    done = {line.split(":")[0]: number for number, line in enumerate(lines) if re.search(end, line)}
    assert set(done) == RUNS | {"base-0", "base-1"}
    assert all(lines.index(f"{name}: started") < number for name, number in done.items())
    assert len(lines) == 12  # and no bar
    assert not {stage for stage in ran(study.then) if stage.startswith(("train", "predict"))}
    assert {"evaluate@prefix", "compare", "report", "publish"} <= set(ran(study.then))
    weights = {path.read_bytes() for path in (study.folder / "models/adapters").rglob("adapter_model.safetensors")}
    assert len(weights) == len(RUNS)


def test_a_terminal_shows_one_bar_over_all_runs_in_epochs(study):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = study.environment()
    command = [sys.executable, "-m", "experiments.runs", "--jobs", "2", "prefix-0-1", "prefix-1-1"]
    subprocess.run(command, cwd=study.folder, env=environment, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    assert "2 runs: 100%" in shown and "2/2" in shown and "prefix-0-1: done" in shown


def test_metrics_are_over_all_folds_and_means_over_seeds(study):
    metrics = pd.read_json(study.folder / "metrics/prefix.json", typ="series")
    tables = {
        seed: pd.concat(
            pd.read_csv(study.folder / f"predictions/prefix/fold-{fold}/seed-{seed}.csv").query("split == 'test'")
            for fold in FOLDS
        )
        for seed in SEEDS
    }
    accuracies = pd.Series({seed: (rows["label"] == rows["prediction"]).mean() for seed, rows in tables.items()})
    assert metrics["n"] == len(tables[1]) == 178 and tables[1]["id"].is_unique
    assert metrics["accuracy"] == pytest.approx(accuracies.mean(), abs=1e-6)
    assert metrics["accuracy_sd"] == pytest.approx(accuracies.std(), abs=1e-6)


def test_another_seed_is_trained_and_predicted_and_nothing_else(study):
    study.set({"train.seeds": [*SEEDS, 3]})
    try:
        shown = study("python", "-m", "experiments.runs", "--list")
        assert set(shown.split()) == {f"prefix-{fold}-3" for fold in FOLDS}
    finally:
        study.set({"train.seeds": SEEDS})


def test_a_dropped_fold_and_seed_change_only_what_is_made_of_all_runs(study):
    study.set({"split.folds": [0], "train.seeds": [1]})
    shown = study("dvc", "repro")
    after = {"baselines", "evaluate", "compare", "select", "report", "publish"}
    assert {stage.partition("@")[0] for stage in ran(shown)} == after
    assert study.status() == set()
    metrics = pd.read_json(study.folder / "metrics/prefix.json", typ="series")
    assert metrics["n"] == 89 and "accuracy_sd" not in metrics
    # Listed again, they come back without training.
    study.set({"split.folds": FOLDS, "train.seeds": SEEDS})
    shown = study("dvc", "repro")
    assert not {stage for stage in ran(shown) if stage.startswith(("train", "predict"))}
    assert pd.read_json(study.folder / "metrics/prefix.json", typ="series")["n"] == 178


@pytest.mark.parametrize("name", ["$(touch zz-made)", "a' 'touch zz-made"])
def test_a_name_that_a_shell_would_run_is_refused_and_makes_no_file(study, name):
    for values in (
        {f"adapters.{name}": {"method": "kv_prefix", "learning_rate": 0.1}},
        {f"evaluate.untrained.{name}": {"few_shot": 0}},
        {"evaluate.variants": ["base", name]},
        {"selected": name},
    ):
        try:
            study.set(values)
            study("dvc", "repro", "--force", "download", "select", ok=False)
        finally:
            study("git", "checkout", "--quiet", "params.yaml")
        assert not list(study.folder.rglob("zz-made*"))


@pytest.mark.parametrize(
    ("devices", "jobs", "gpus", "share"),
    [
        ("0", 1, ["0"], None),
        ("0", 8, ["0"] * 8, 0.125),
        ("3", 3, ["3"] * 3, 0.3333),
        ("0,1", 2, ["0", "1"], None),
        ("0,1", 3, ["0", "1", "0"], 0.5),
        ("GPU-a,GPU-b,", 2, ["GPU-a", "GPU-b"], None),
        ("-1", 2, [None] * 2, None),
        ("", 2, [None] * 2, None),
    ],
)
def test_jobs_are_spread_over_gpus_and_share_their_memory(monkeypatch, devices, jobs, gpus, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    found = job_variables(jobs)
    assert [variables.get("CUDA_VISIBLE_DEVICES") for variables in found] == gpus
    assert {variables.get("PEFTQA_GPU_SHARE") for variables in found} == {share and str(share)}
