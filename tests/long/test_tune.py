"""A search: what it reads, what it leaves alone, what comes out of it."""

import json
import os
import re
import signal
import subprocess

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.clone import Clone
from tests.conftest import ROOT
from tests.faults.drill import commands, wait_for

# Every Python process, DVC's among them, tells what it opens; PYTHONPATH leads them here.
WITNESS = """
import os, sys

def told(event, arguments):
    if event == "open" and not isinstance(arguments[0], int) and os.fsdecode(arguments[0]).endswith(".csv"):
        with os.fdopen(os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as log:
            log.write(f"{{' '.join(sys.orig_argv)}}\\t{{os.fsdecode(arguments[0])}}\\n")

sys.addaudithook(told)
"""
SPACES = {"kv_prefix": YAML(typ="safe").load(ROOT / "tuning.yaml")["spaces"]["kv_prefix"]}
SPACE = {"trials": 3, "seed": 1, "folds": [0], "seeds": [42], "spaces": SPACES}
TUNE = ("make", "tune", "SETUP=", "ADAPTER=prefix")


def write_space(clone: Clone, **changes: object) -> None:
    YAML().dump(SPACE | changes, clone.folder / "tuning.yaml")


def state(clone: Clone) -> dict[str, bytes]:
    """What a search must leave alone: all but git's and DVC's own files and the search's folder."""
    files = (path for path in clone.folder.rglob("*") if path.is_file() and not path.is_symlink())
    parts = {path.relative_to(clone.folder): path for path in files}
    return {
        str(name): path.read_bytes()
        for name, path in parts.items()
        if name.parts[0] not in (".git", ".dvc", "experiments") and "__pycache__" not in name.parts
    }


def trials(clone: Clone, name: str = "tune-prefix") -> pd.DataFrame:
    return pd.read_csv(clone.folder / "experiments" / name / "trials.csv")


def kill(process: subprocess.Popen) -> None:
    """Kill the search that `make` has started; what it started ends with it."""
    found = {pid: command.split(" ") for pid, command in commands(process.pid).items()}
    os.kill(next(pid for pid, words in found.items() if words[1:3] == ["-m", "experiments.tune"]), signal.SIGKILL)
    process.communicate()


def recorded(clone: Clone) -> list[str]:
    names = clone("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()
    return sorted(name for name in names if re.fullmatch(r"\w+-[0-9a-f]{4}-\d+", name))


@pytest.fixture(scope="module")
def search(new_clone, tmp_path_factory) -> Clone:
    """Three trials in a clone in which the pipeline has not run, watched."""
    clone = new_clone("search")
    write_space(clone)
    clone.commit("Settings")
    watch = tmp_path_factory.mktemp("watch")
    clone.log = watch / "opened"
    (watch / "sitecustomize.py").write_text(WITNESS.format(log=str(clone.log)))
    before = state(clone)
    clone.printed = clone(*TUNE, PYTHONPATH=str(watch))
    assert state(clone) == before and clone("git", "status", "--porcelain") == ""
    return clone


def test_nothing_reads_a_test_question_to_judge_a_trial(search):
    """DVC copies the whole folder of splits; nothing else may open a table of test questions once they are made."""
    opened = [line.split("\t") for line in search.log.read_text().splitlines()]
    by = {
        split: {re.search(r"-m (\S+)", command)[1] for command, path in opened if path.endswith(f"/{split}.csv")}
        for split in ("train", "val", "test")
    }
    assert "stages.train" in by["train"] and "stages.train" in by["val"]
    assert by["test"] <= {"dvc", "stages.split"}
    assert not (search.folder / "experiments/tune-prefix/worker-0/predictions").exists()


def test_a_table_has_every_trial_the_first_is_what_params_have_and_dvc_draws_it(search):
    table, space = trials(search), SPACES["kv_prefix"]
    assert list(table.columns) == ["trial", "val_log_loss", "epoch", *space]
    assert list(table["trial"]) == [0, 1, 2] and np.isfinite(table["val_log_loss"]).all()
    assert list(table.iloc[0][[*space]]) == [0.01, 5, "text", "constant"]
    assert table["learning_rate"].between(0.001, 1).all() and table["learning_rate"].is_unique
    folder = search.folder / "experiments/tune-prefix"
    options = ("-x", "learning_rate", "-y", "val_log_loss", "--json")
    assert '"field": "val_log_loss"' in search("dvc", "plots", "show", str(folder / "trials.csv"), *options)


def test_a_trial_is_an_experiment_with_its_settings_its_score_and_no_test_metric(search):
    table = trials(search).set_index("trial")
    (commit,) = json.loads(search("dvc", "exp", "show", "--json"))[1:]
    shown = {row["name"]: row["revs"][0]["data"] for row in commit["experiments"]}
    assert sorted(shown) == recorded(search) and len(shown) == 3
    for name, data in shown.items():
        row = table.loc[int(name.rpartition("-")[2])]
        settings = data["params"]["params.yaml"]["data"]["adapters"]["prefix"]
        assert settings["learning_rate"] == pytest.approx(row["learning_rate"]) and settings["init"] == row["init"]
        metrics = {path: file["data"] for path, file in data["metrics"].items() if "data" in file}
        assert metrics == {"metrics/prefix.json": {"val_log_loss": pytest.approx(row["val_log_loss"], abs=1e-6)}}
    lines = [line.split() for line in search("make", "experiments", "SETUP=").splitlines()[1:]]
    assert [float(line[2]) for line in lines] == pytest.approx(sorted(table["val_log_loss"]), abs=1e-4)


def test_what_it_prints_takes_the_best_over(search):
    """The command as printed, and the numbers that the report will say."""
    command = search.printed.partition("To take the best over:\n")[2].partition("\n\n")[0]
    best = trials(search).sort_values("val_log_loss").iloc[0]
    search("sh", "-c", f"{command} download")
    taken = YAML(typ="safe").load(search.folder / "params.yaml")
    search("git", "checkout", "--quiet", "params.yaml")
    assert taken["tuning"] == {"prefix": {"trials": 3, "protocol": "random"}}
    prefix = taken["adapters"]["prefix"]
    assert prefix["learning_rate"] == best["learning_rate"] and prefix["init"] == best["init"]
    assert prefix["num_virtual_tokens"] == best["num_virtual_tokens"]


def test_a_finished_search_runs_no_trial_and_more_of_them_go_on_even_if_killed(search):
    before, journal = trials(search), search.folder / "experiments/tune-prefix/study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"')  # as a kill may leave it
    assert "Every trial:" in search(*TUNE) and trials(search).equals(before)
    told = journal.read_text().count('"schedule"')
    process = search.start(*TUNE, "TRIALS=4")
    wait_for(lambda: journal.read_text().count('"schedule"') > told, process)
    kill(process)
    begun = [json.loads(line) for line in journal.read_text().splitlines() if '"learning_rate"' in line][-1]
    search(*TUNE, "TRIALS=4")
    after = trials(search)
    assert list(after["trial"]) == [0, 1, 2, 4] and after.iloc[:3].equals(before)
    assert after["learning_rate"].is_unique and len(recorded(search)) == 4
    assert after["learning_rate"][3] == begun["param_value_internal"]


def test_another_adapter_is_another_study_and_no_setting_must_be_in_a_space(search):
    before = recorded(search)
    write_space(search, trials=1, spaces={"LORA": {"config.r": [2, 3]}})
    config = {"peft_type": "LORA", "r": 8}
    search.set({"adapters.lora": {"method": "peft", "config": config, "learning_rate": 0.001}})
    assert "-S '++adapters.lora.config.r=" in search("make", "tune", "SETUP=", "ADAPTER=lora")
    search("git", "checkout", "--quiet", "params.yaml", "tuning.yaml")
    assert list(trials(search, "tune-lora").columns) == ["trial", "val_log_loss", "epoch", "config.r"]
    assert len(set(recorded(search)) - set(before)) == 1 and len(trials(search)) == 4


def test_a_training_that_diverges_is_a_result_and_any_other_fault_ends_the_search(new_clone):
    changes = {"train.optimizer": "adamw", "train.weight_decay": 1.0, "adapters.prefix.reparametrization": 8}
    clone = new_clone("diverging", **changes)
    write_space(clone, trials=2, spaces={"kv_prefix": {"learning_rate": [0.01, 1e30, 2e30, 3e30, 4e30]}})
    assert "diverged with learning_rate" in clone(*TUNE)
    assert list(np.isinf(trials(clone)["val_log_loss"])) == [False, True] and len(recorded(clone)) == 2
    clone.set({"template.max_tokens": 12})  # no question fits
    shown = clone(*TUNE, ok=False)
    assert re.search(r"^error: trial prefix-\w{4}-0 failed", shown, re.MULTILINE) and "Traceback" not in shown
    assert "template.max_tokens is 12" in shown and len(recorded(clone)) == 2
