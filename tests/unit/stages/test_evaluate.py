"""Evaluating a variant: its row of the metrics, and everything else beside it."""

import json

import numpy as np
import pandas as pd
import pytest

from peftqa.evaluation.predictions import prediction_table

LABELS = ["yes", "no"]


def questions(first: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [str(first + i) for i in range(4)], "label": ["yes", "yes", "no", "no"]})


def write_run(workspace, name: str, fold: int, seed: int, right: int) -> None:
    """A run that answers the first `right` of four test questions right, and all of validation."""
    rows = []
    for split, first in (("val", 100), ("test", 200)):
        asked = questions(first + 10 * fold)
        hit = np.arange(4) < (right if split == "test" else 4)
        p_yes = np.where((asked["label"] == "yes") == hit, 0.75, 0.25)
        rows.append(prediction_table(split, fold, seed, asked, np.stack([p_yes, 1 - p_yes], axis=1), LABELS))
    path = workspace.folder / f"predictions/{name}/fold-{fold}/seed-{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(rows).to_csv(path, index=False)
    about = {"valid_answer_rate": right / 4} | ({"trainable_params": 10} if name == "prompt" else {})
    path.with_suffix(".json").write_text(json.dumps(about))


def evaluate(workspace, name: str) -> tuple[dict, dict]:
    """The row in metrics/, and what is in evaluation/."""
    result = workspace.run("evaluate", name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    paths = (f"metrics/{name}.json", f"evaluation/{name}/metrics.json")
    return tuple(json.loads((workspace.folder / path).read_text()) for path in paths)


def test_a_variants_row_is_the_mean_over_seeds(workspace):
    workspace.set(train__seeds=[42, 7])
    write_run(workspace, "prompt", 0, 42, right=4)
    write_run(workspace, "prompt", 0, 7, right=1)
    row, rest = evaluate(workspace, "prompt")
    assert list(row) == ["n", "accuracy", "accuracy_sd", "macro_f1", "log_loss", "val_log_loss", "trainable_params"]
    assert (row["n"], row["accuracy"], row["trainable_params"]) == (4, 0.625, 10)
    assert row["accuracy_sd"] == pytest.approx(np.std([1, 0.25], ddof=1), abs=1e-6)
    assert row["val_log_loss"] == pytest.approx(-np.log(0.75), abs=1e-6)
    assert row["log_loss"] == pytest.approx(-(5 * np.log(0.75) + 3 * np.log(0.25)) / 8, abs=1e-6)
    assert {seed: run["accuracy"] for seed, run in rest["replicates"].items()} == {"7": 0.25, "42": 1.0}
    assert rest["mean"]["valid_answer_rate"] == 0.625


def test_in_cross_validation_the_questions_of_all_folds_count_together(workspace):
    workspace.set(split__protocol="cross_validation", split__folds=[2, 5])
    write_run(workspace, "prompt", 2, 42, right=4)
    write_run(workspace, "prompt", 5, 42, right=1)
    row, rest = evaluate(workspace, "prompt")
    assert (row["n"], row["accuracy"]) == (8, 0.625)
    assert "accuracy_sd" not in row and list(rest["replicates"]) == ["42"]
    submission = json.loads((workspace.folder / "evaluation/prompt/leaderboard.json").read_text())
    assert list(submission) == [*questions(220)["id"], *questions(250)["id"]]


def test_the_selected_variants_row_is_copied(workspace):
    write_run(workspace, "prefix", 0, 42, right=3)
    row, _ = evaluate(workspace, "prefix")
    result = workspace.run("select")
    assert (result.returncode, result.stdout) == (0, "selected: prefix\n")
    assert json.loads((workspace.folder / "metrics/selected.json").read_text()) == row
