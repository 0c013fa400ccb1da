"""Predicting: the names of its runs, and what the frozen model's answers leave behind."""

import json

import pytest

from peftqa.evaluation.predictions import read_predictions, replicates
from stages.workspace import write_csv
from tests.tiny import save_tiny_checkpoint
from tests.unit.test_records import table_of

FEW_SHOT = {"base": {"few_shot": 0}, "fewshot": {"few_shot": 2, "seed": 1, "max_tokens": 200}}


@pytest.mark.slow
def test_the_frozen_model_answers_every_question_of_its_fold(workspace):
    workspace.set(split__protocol="cross_validation", split__folds=[4], evaluate__untrained=FEW_SHOT)
    table = table_of(yes=8, no=8)
    parts = {"train": table[:6], "val": table[6:9], "test": table[9:]}
    for name, part in parts.items():
        write_csv(workspace.folder / f"data/split/fold-4/{name}.csv", part)
    save_tiny_checkpoint(workspace.folder / "models/base")
    for name in ("base", "fewshot"):
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
    base, few = (workspace.folder / f"predictions/{name}/fold-4/seed-0.csv" for name in ("base", "fewshot"))
    assert base.read_bytes() != few.read_bytes()
