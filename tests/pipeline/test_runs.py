"""Runs: several at a time, more of them, fewer of them, killed ones, and names that a shell would take for commands."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from experiments.runs import job_variables
from tests.clone import Clone, ran
from tests.conftest import ROOT

FOLDS, SEEDS = [0, 1], [1, 2]
RUNS = {f"prefix-{fold}-{seed}" for fold in FOLDS for seed in SEEDS}


def all_processes() -> dict[int, int]:
    """Parent of every process of this machine, by pid."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended in the meantime
    return parents


def descendants(pid: int) -> list[int]:
    parents, found = all_processes(), [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


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
    return clone


def test_runs_name_what_is_missing_and_each_that_starts_and_is_done(study):
    lines = study.printed.partition("6 of 6 runs are missing")[2].splitlines()[1:]
    end = r": done in \d+ (s|min); (\d+ left, about \d+ (s|min)|none left)$"
    done = {line.split(":")[0]: number for number, line in enumerate(lines) if re.search(end, line)}
    assert set(done) == RUNS | {"base-0", "base-1"}
    assert all(lines.index(f"{name}: started") < number for name, number in done.items())
    assert len(lines) == 12  # and no bar


def test_in_a_terminal_there_is_one_bar_over_all_runs_in_epochs(study):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = study.environment()
    command = [sys.executable, "-m", "experiments.runs", "--jobs", "2", "prefix-0-1", "prefix-1-1"]
    subprocess.run(command, cwd=study.folder, env=environment, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    assert "2 runs: 100%" in shown and "2/2" in shown and "prefix-0-1: done" in shown


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


def test_afterwards_repro_finds_every_run_in_place(study):
    assert not {stage for stage in ran(study.then) if stage.startswith(("train", "predict"))}
    assert {"evaluate@prefix", "compare", "report", "publish"} <= set(ran(study.then))


def test_seeds_and_folds_give_different_adapters(study):
    weights = {path.read_bytes() for path in (study.folder / "models/adapters").rglob("adapter_model.safetensors")}
    assert len(weights) == len(RUNS)


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


def test_another_seed_trains_and_predicts_that_and_nothing_else(study):
    study.set({"train.seeds": [*SEEDS, 3]})
    try:
        shown = study("python", "-m", "experiments.runs", "--list")
        assert set(shown.split()) == {f"prefix-{fold}-3" for fold in FOLDS}
    finally:
        study.set({"train.seeds": SEEDS})


def test_a_dropped_fold_and_seed_are_in_no_number_and_in_no_hash(study, new_clone, tmp_path):
    study.set({"split.folds": [0], "train.seeds": [1]})
    shown = study("dvc", "repro")
    after = {"baselines", "evaluate", "compare", "select", "report", "publish"}
    assert {stage.partition("@")[0] for stage in ran(shown)} == after
    assert study.status() == set()
    metrics = pd.read_json(study.folder / "metrics/prefix.json", typ="series")
    assert metrics["n"] == 89 and "accuracy_sd" not in metrics
    # A clone in which the dropped runs never were takes all from the remote, and has the same bytes.
    study("dvc", "remote", "add", "--local", "--default", "lab", str(tmp_path / "remote"))
    study("dvc", "push", "--quiet", "--run-cache")
    study.commit("Fewer")
    fresh = tmp_path / "fresh"
    study("git", "clone", "--quiet", str(study.folder), str(fresh))
    command = 'cd "$0" && dvc remote add -q --local -d lab "$1" && dvc repro --pull'
    shown = study("sh", "-c", command, str(fresh), str(tmp_path / "remote"))
    assert ran(shown) == []
    for name in ("evaluation", "comparison", "metrics", "report", "release"):
        for path in (study.folder / name).rglob("*.*"):
            if path.is_file():
                assert (fresh / path.relative_to(study.folder)).read_bytes() == path.read_bytes(), path
    # Listed again, they come back without training.
    study.set({"split.folds": FOLDS, "train.seeds": SEEDS})
    shown = study("dvc", "repro")
    assert not {stage for stage in ran(shown) if stage.startswith(("train", "predict"))}
    assert pd.read_json(study.folder / "metrics/prefix.json", typ="series")["n"] == 178


LONG = {"train.epochs": 15, **ONE_ADAPTER}  # long enough to be killed in the middle


@pytest.fixture(scope="module")
def whole(new_clone) -> Clone:
    """One run that nobody killed."""
    clone = new_clone("whole", **LONG)
    clone("dvc", "repro", "predict@prefix-0-42")
    return clone


@pytest.mark.parametrize("victim", ["runs", "dvc", "stage"])
def test_killed_anywhere_nothing_goes_on_alone_and_the_bytes_are_the_same(whole, new_clone, victim):
    """The process that runs all, a DVC, or a training dies by SIGKILL; what it had started must die with it."""
    clone = new_clone(f"killed-{victim}", **LONG)
    clone("dvc", "repro", "split", "fetch_model")
    process = clone.start("python", "-m", "experiments.runs", "prefix-0-42")
    checkpoints = clone.folder / ".checkpoints"
    # Of the second epoch: the first one's checkpoint is whole then, and still there.
    wait_for(lambda: process.poll() is not None or list(checkpoints.glob("*/checkpoint-24/trainer_state.json")))
    tree = descendants(process.pid)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in tree}
    of = {"runs": "experiments.runs", "dvc": "repro", "stage": "stages.train"}[victim]
    os.kill(next(pid for pid, words in commands.items() if of in words), signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree[1:]))

    shown = clone("dvc", "repro", "predict@prefix-0-42")
    assert "prefix, fold 0, seed 42: resumed after epoch " in shown
    assert clone.bytes() == whole.bytes()


def test_a_checkpoint_of_other_data_is_left_alone(new_clone):
    clone = new_clone("guard", **LONG)
    clone("dvc", "repro", "split", "fetch_model")
    process = clone.start("python", "-m", "stages.train", "prefix-0-42")
    found = clone.folder / ".checkpoints"
    wait_for(lambda: list(found.glob("*/checkpoint-*/trainer_state.json")))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (old,) = found.iterdir()
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}

    train = clone.folder / "data/split/fold-0/train.csv"
    rows = train.read_text().splitlines(keepends=True)
    train.unlink()  # it may be a link into DVC's cache
    swapped = {"yes": "no", "no": "yes"}
    last, _, label = rows[-1].rstrip().rpartition(",")
    train.write_text("".join([*rows[:-1], f"{last},{swapped[label]}\n"]))
    shown = clone("python", "-m", "stages.train", "prefix-0-42")
    assert "resumed" not in shown and "epoch 1/15" in shown
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


HOSTILE = (
    "a; touch zz-made #",
    "$(touch zz-made)",
    "`touch zz-made`",
    "a' 'touch zz-made",
    'a"; touch zz-made; "',
    "a\ntouch zz-made",
    "a b",
)


@pytest.mark.parametrize("place", ["adapters", "evaluate.untrained", "evaluate.variants", "selected"])
def test_a_name_that_a_shell_would_run_is_refused_and_makes_no_file(finished, place):
    params = finished.folder / "params.yaml"
    before = params.read_bytes()
    for name in HOSTILE:
        try:
            if place == "adapters":
                finished.set({f"adapters.{name}": {"method": "ia3", "learning_rate": 0.1}})
            elif place == "evaluate.untrained":
                finished.set({f"evaluate.untrained.{name}": {"few_shot": 0}})
            elif place == "evaluate.variants":
                finished.set({place: ["base", name]})
            else:
                finished.set({place: name})
            finished("dvc", "repro", "--force", ok=False)
        finally:
            params.write_bytes(before)
        assert not list(finished.folder.rglob("zz-made*")), name
    finished("dvc", "checkout", "--quiet", "--force")
    finished("git", "checkout", "--quiet", ".")
