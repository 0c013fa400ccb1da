"""Searches that are killed, and two processes on one."""

import os
import re
import signal
from pathlib import Path

from ruamel.yaml import YAML

from tests.pipeline.test_runs import descendants, wait_for
from tests.pipeline.test_tune import TUNE, recorded, trials, write_space

LONG = {"train.epochs": 15}


def test_killed_in_a_trial_it_goes_on_with_it_at_its_last_epoch(study_clone):
    clone = study_clone("killed-search", **LONG)
    write_space(clone, trials=2)
    process = clone.start(*TUNE)
    checkpoints = clone.folder / "experiments/tune-prefix/worker-0/.checkpoints"
    wait_for(lambda: process.poll() is not None or list(checkpoints.glob("*/checkpoint-24/trainer_state.json")))
    tree = descendants(process.pid)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in tree}
    search = next(pid for pid, words in commands.items() if "experiments.tune" in words and "-m" in words)
    os.kill(search, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree[1:]))
    (found,) = checkpoints.iterdir()
    settings = YAML(typ="safe").load(checkpoints.parent / "params.yaml")["adapters"]["prefix"]

    clone(*TUNE)
    table = trials(clone)
    assert list(table["trial"]) == [0, 1]
    assert table["learning_rate"][0] == settings["learning_rate"] and not found.exists()
    assert len(recorded(clone)) == 2


def test_two_processes_share_a_study_and_no_trial_is_lost_or_run_twice(study_clone):
    clone = study_clone("two", **LONG)
    write_space(clone, trials=5)
    first = clone.start(*TUNE)
    checkpoints = clone.folder / "experiments/tune-prefix/worker-0/.checkpoints"
    wait_for(lambda: first.poll() is not None or list(checkpoints.glob("*/checkpoint-12/trainer_state.json")), 600)
    # The first stands still in its trial until the second has done another; from there on both work.
    os.killpg(first.pid, signal.SIGSTOP)
    second = clone.start(*TUNE)
    wait_for(lambda: second.poll() is not None or recorded(clone), 600)
    os.killpg(first.pid, signal.SIGCONT)
    printed = [process.communicate()[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], printed
    # Each trial is told of once, by the process that ran it.
    by = [re.findall(r"^prefix-\w{4}-(\d+): log loss", text, re.MULTILINE) for text in printed]
    assert sorted(by[0] + by[1]) == list("01234") and "0" in by[0] and "1" in by[1]
    clone(*TUNE)
    assert list(trials(clone)["trial"]) == [0, 1, 2, 3, 4]
    assert trials(clone)["learning_rate"].is_unique
    assert len(recorded(clone)) == 5
