"""A search: what it reads, what it leaves alone, what comes out of it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.clone import Clone

# Every Python process, DVC's among them, tells what it opens; PYTHONPATH leads them here.
WITNESS = """
import os, sys

def told(event, arguments):
    if event == "open" and not isinstance(arguments[0], int) and os.fsdecode(arguments[0]).endswith(".csv"):
        with os.fdopen(os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as log:
            log.write(f"{{' '.join(sys.orig_argv)}}\\t{{os.fsdecode(arguments[0])}}\\n")

sys.addaudithook(told)
"""
SPACE = {
    "trials": 3,
    "seed": 1,
    "folds": [0],
    "seeds": [42],
    "spaces": {
        "kv_prefix": {
            "learning_rate": {"low": 0.001, "high": 1.0, "log": True},
            "init": ["random", "text"],
            "num_virtual_tokens": {"low": 1, "high": 9},
            "schedule": ["constant", "linear"],
        }
    },
}
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


def recorded(clone: Clone) -> list[str]:
    return sorted(clone("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split())


@pytest.fixture(scope="module")
def search(new_clone, tmp_path_factory) -> Clone:
    """Three trials in a clone in which the pipeline has not run, watched."""
    clone = new_clone("search")
    write_space(clone)
    clone.commit("Settings")
    watch = tmp_path_factory.mktemp("watch")
    clone.log = watch / "opened"
    (watch / "sitecustomize.py").write_text(WITNESS.format(log=str(clone.log)))
    clone.before = state(clone)
    clone.printed = clone(*TUNE, PYTHONPATH=str(watch))
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


def test_a_search_leaves_the_workspace_as_it_was(search):
    assert state(search) == search.before
    assert search("git", "status", "--porcelain") == ""


def test_the_table_has_every_trial_and_the_first_is_what_params_have(search):
    table = trials(search)
    assert list(table.columns) == ["trial", "val_log_loss", "epoch", *SPACE["spaces"]["kv_prefix"]]
    assert list(table["trial"]) == [0, 1, 2] and np.isfinite(table["val_log_loss"]).all()
    first = table.iloc[0]
    assert (first["learning_rate"], first["num_virtual_tokens"], first["init"]) == (0.01, 5, "text")
    assert first["schedule"] == "constant"
    assert table["learning_rate"].between(0.001, 1).all() and table["learning_rate"].is_unique


def test_a_trial_is_an_experiment_with_its_settings_its_score_and_no_test_metric(search):
    names = recorded(search)
    assert len(names) == 3
    table = trials(search).set_index("trial")
    (commit,) = json.loads(search("dvc", "exp", "show", "--json"))[1:]
    shown = {row["name"]: row["revs"][0]["data"] for row in commit["experiments"]}
    assert sorted(shown) == names
    for name, data in shown.items():
        row = table.loc[int(name.rpartition("-")[2])]
        settings = data["params"]["params.yaml"]["data"]["adapters"]["prefix"]
        assert settings["learning_rate"] == pytest.approx(row["learning_rate"]) and settings["init"] == row["init"]
        metrics = {path: file["data"] for path, file in data["metrics"].items() if "data" in file}
        assert metrics == {"metrics/prefix.json": {"val_log_loss": pytest.approx(row["val_log_loss"], abs=1e-6)}}


def test_the_table_of_experiments_has_the_trials_lowest_log_loss_first(search):
    lines = search("make", "experiments", "SETUP=").splitlines()
    assert lines[0].split() == ["experiment", "adapter", "val", "log", "loss", "accuracy", "changed"]
    assert max(map(len, lines)) <= 120
    rows = [line.split() for line in lines[1:]]
    assert sorted(row[0] for row in rows) == recorded(search)
    assert [float(row[2]) for row in rows] == pytest.approx(sorted(trials(search)["val_log_loss"]), abs=1e-4)


def test_the_pictures_tables_can_be_drawn_by_dvc(search):
    folder = Path("experiments/tune-prefix")
    for table, x in (("trials.csv", "learning_rate"), ("best.csv", "trials")):
        shown = search("dvc", "plots", "show", str(folder / table), "-x", x, "-y", "val_log_loss", "--json")
        assert '"field": "val_log_loss"' in shown
    picture = (search.folder / folder / "trials.svg").read_text()
    assert "learning rate" in picture and "expected lowest" in picture


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


def test_more_trials_go_on_from_those_there_are(search):
    before = trials(search)
    search(*TUNE, "TRIALS=4")
    after = trials(search)
    assert len(after) == 4 and after.iloc[:3].equals(before)


def test_other_parameters_are_another_study(search):
    before = recorded(search)
    search.set({"template.max_tokens": 48})
    search(*TUNE, "TRIALS=1")
    search("git", "checkout", "--quiet", "params.yaml")
    assert len(trials(search)) == 1
    (new,) = set(recorded(search)) - set(before)
    assert new.rpartition("-")[0] not in {name.rpartition("-")[0] for name in before}


def test_a_training_that_diverges_is_a_result_and_any_other_fault_ends_the_search(new_clone):
    clone = new_clone(
        "diverging", **{"train.optimizer": "adamw", "train.weight_decay": 1e30, "adapters.prefix.reparametrization": 8}
    )
    rate = {"learning_rate": {"low": 1e29, "high": 1e30, "log": True}}
    write_space(clone, trials=1, spaces={"kv_prefix": rate})
    shown = clone(*TUNE)
    assert "Every training has diverged" in shown and trials(clone)["val_log_loss"][0] == np.inf
    assert len(recorded(clone)) == 1
    clone.set({"template.max_tokens": 12})  # no question fits
    shown = clone(*TUNE, ok=False)
    assert "error: trial 0 failed" in shown and "template.max_tokens is 12" in shown and "Traceback" not in shown
    assert len(recorded(clone)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "trials: "),
        ({"spaces": {"lora_": {}}}, "no method 'lora_'; there are: prompt_tuning"),
        ({"spaces": {"lora": {"rank": [1, 2]}}}, "lora has no setting 'rank'"),
        ({"spaces": {"lora": {"r": {"low": 4, "high": 2}}}}, "low must be less than high"),
        ({"spaces": {"lora": {"r": {"low": 1, "high": 2.0}}}}, "low and high must both be whole numbers"),
        ({"spaces": {}}, "has no space for the method kv_prefix"),
        ({"budget": 3}, "budget: "),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(search, change, message):
    write_space(search, **change)
    shown = search("python", "-m", "experiments.tune", "prefix", ok=False)
    search("git", "checkout", "--quiet", "tuning.yaml")
    assert shown.startswith("error: tuning.yaml") and message in shown and "Traceback" not in shown


def test_an_adapter_that_does_not_exist_is_refused(search):
    shown = search("python", "-m", "experiments.tune", "ptompt", ok=False)
    assert shown.startswith("error: no adapter 'ptompt' in params.yaml; there are: prompt, prefix.")
