"""Predicting: the names of its runs, and what the frozen model's answers leave behind."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from peftqa.data.files import write_csv
from peftqa.evaluation.predictions import read_predictions, replicates
from tests.tiny import save_tiny_checkpoint
from tests.unit.test_records import table_of

UNTRAINED = {
    "base": {"few_shot": 0},
    "fewshot": {"few_shot": 2, "seed": 1, "max_tokens": 200},
    "calibrated": {"calibrated": True},
    "question_only": {"context": False},
}


@pytest.mark.slow
def test_the_frozen_model_answers_every_question_of_its_fold(workspace):
    workspace.set(split__protocol="cross_validation", split__folds=[4], evaluate__untrained=UNTRAINED)
    table = table_of(yes=8, no=8)
    parts = {"train": table[:6], "val": table[6:9], "test": table[9:]}
    for name, part in parts.items():
        write_csv(workspace.folder / f"data/split/fold-4/{name}.csv", part)
    save_tiny_checkpoint(workspace.folder / "models/base")
    workspace.set(evaluate__variants=list(UNTRAINED), selected="base")
    for name in UNTRAINED:
        result = workspace.run("predict", DVC_STAGE=f"predict_untrained@{name}-4")
        assert result.returncode == 0, result.stderr
        assert workspace.files(f"predictions/{name}") == ["fold-4/seed-0.csv", "fold-4/seed-0.json"]
        path = workspace.folder / f"predictions/{name}/fold-4/seed-0.csv"
        predictions = read_predictions([path], ["yes", "no"])
        for split in ("val", "test"):
            found = replicates(predictions, split, same_questions=False)
            assert (found.ids, found.truth) == (list(parts[split]["id"]), list(parts[split]["label"]))
            assert set(found.folds) == {4} and found.probabilities.sum(axis=2) == pytest.approx(1)
        about = json.loads(path.with_suffix(".json").read_text())
        assert list(about) == ["valid_answer_rate"] and 0 <= about["valid_answer_rate"] <= 1
        runtime = json.loads((workspace.folder / f"runtime/predict/{name}/fold-4/seed-0.json").read_text())
        assert runtime["questions"] == 10 and runtime["seconds"] > 0
    tables = {name: pd.read_csv(workspace.folder / f"predictions/{name}/fold-4/seed-0.csv") for name in UNTRAINED}
    p_yes = {name: table["p_yes"].to_numpy() for name, table in tables.items()}
    for one, other in combinations(UNTRAINED, 2):
        assert (p_yes[one] != p_yes[other]).any()
    # Calibrated: one shift of all logits, the shares of labels being right on validation.
    logits = {name: np.log(p_yes[name] / (1 - p_yes[name])) for name in ("base", "calibrated")}
    assert logits["calibrated"] - logits["base"] == pytest.approx(logits["calibrated"][0] - logits["base"][0])
    val = tables["calibrated"]["split"] == "val"
    assert p_yes["calibrated"][val].mean() == pytest.approx((tables["base"]["label"][val] == "yes").mean(), abs=1e-4)


def test_without_the_abstract_no_answer_depends_on_it(workspace):
    table = table_of(yes=4, no=4)
    workspace.set(evaluate__untrained=UNTRAINED, evaluate__variants=["question_only"], selected="question_only")
    save_tiny_checkpoint(workspace.folder / "models/base")
    answers = []
    for context in ("One finding.", "Quite another finding, and a longer one."):
        for split in ("train", "val", "test"):
            write_csv(workspace.folder / f"data/split/fold-0/{split}.csv", table.assign(context=context))
        result = workspace.run("predict", DVC_STAGE="predict_untrained@question_only-0")
        assert result.returncode == 0, result.stderr
        answers.append((workspace.folder / "predictions/question_only/fold-0/seed-0.csv").read_bytes())
    assert answers[0] == answers[1]
