"""Tables of predictions: what a run writes, what its file keeps, and how runs make replicates."""

import json

import numpy as np
import pandas as pd
import pytest

from peftqa.errors import UserError
from peftqa.evaluation.predictions import leaderboard, predict, prediction_table, read_predictions, replicates
from tests.unit.made_up import THREE, TWO


def drawn(n: int, labels: list[str], *key: int) -> np.ndarray:
    """n rows of probabilities that depend on the key alone."""
    return np.random.default_rng(key).dirichlet(np.ones(len(labels)), size=n)


def questions(first: int, n: int, labels: list[str] = TWO) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{first + row:08}" for row in range(n)], "label": np.resize(labels, n)})


def write_run(fold: int, seed: int, asked: dict[str, pd.DataFrame], labels: list[str] = TWO) -> pd.DataFrame:
    """What one run on these questions of each split writes."""
    tables = [
        prediction_table(split, fold, seed, table, drawn(len(table), labels, fold, seed, len(split)), labels)
        for split, table in asked.items()
    ]
    return pd.concat(tables, ignore_index=True)


def all_runs(folds: dict[int, dict[str, pd.DataFrame]], seeds: tuple[int, ...] = (7, 11)) -> pd.DataFrame:
    return pd.concat([write_run(fold, seed, asked) for fold, asked in folds.items() for seed in seeds])


RANDOM = {0: {"val": questions(100, 3), "test": questions(200, 4)}}
CROSS_VALIDATION = {
    2: {"val": questions(300, 4), "test": questions(200, 3)},
    5: {"val": questions(600, 2), "test": questions(500, 5)},
}
OFFICIAL = {fold: splits | {"test": questions(900, 6)} for fold, splits in CROSS_VALIDATION.items()}


def test_predict_of_equal_probabilities_is_the_first_label():
    assert list(predict(np.full((1, 3), 1 / 3), THREE)) == ["yes"]


@pytest.mark.parametrize("labels", [TWO, THREE])
def test_predictions_survive_their_files_to_the_last_bit(tmp_path, labels):
    asked = {"val": questions(0, 500, labels), "test": questions(1000, 2000, labels)}
    tables, paths = [], []
    for seed in (7, 11):
        tables.append(write_run(0, seed, asked, labels))
        paths.append(tmp_path / f"seed-{seed}.csv")
        tables[-1].to_csv(paths[-1], index=False)
    read = read_predictions(paths, labels)
    pd.testing.assert_frame_equal(read, pd.concat(tables, ignore_index=True), check_dtype=False, check_exact=True)
    test = replicates(read, "test", same_questions=False)
    assert test.ids[:2] == ["00001000", "00001001"]
    assert (test.probabilities[1] == drawn(2000, labels, 0, 11, 4)).all()


def test_predictions_for_other_labels_are_refused_in_a_sentence(tmp_path):
    write_run(0, 7, RANDOM[0]).to_csv(tmp_path / "prompt.csv", index=False)
    for labels in (THREE, TWO[::-1]):
        with pytest.raises(UserError, match=rf"prompt\.csv was not written for the labels {', '.join(labels)} .*repro"):
            read_predictions([tmp_path / "prompt.csv"], labels)
    with pytest.raises(UserError, match=r"prefix\.csv is missing; run `dvc repro`"):
        read_predictions([tmp_path / "prompt.csv", tmp_path / "prefix.csv"], TWO)


@pytest.mark.parametrize("text", ["", "split,fold\nval,0\nval,0,1\n"], ids=["empty", "ragged"])
def test_read_predictions_of_a_damaged_file_names_it(tmp_path, text):
    (tmp_path / "prompt.csv").write_text(text)
    with pytest.raises(UserError, match=r"prompt\.csv is damaged .*run `dvc repro`"):
        read_predictions([tmp_path / "prompt.csv"], TWO)


def test_in_cross_validation_the_folds_of_a_seed_are_one_replicate():
    found = replicates(all_runs(CROSS_VALIDATION), "test", same_questions=False)
    both = pd.concat([CROSS_VALIDATION[2]["test"], CROSS_VALIDATION[5]["test"]])
    assert (found.ids, found.truth) == (list(both["id"]), list(both["label"]))
    assert found.names == ["7", "11"]
    assert found.folds.tolist() == [2] * 3 + [5] * 5
    for row, seed in zip(found.probabilities, (7, 11), strict=True):
        assert (row == np.concatenate([drawn(3, TWO, 2, seed, 4), drawn(5, TWO, 5, seed, 4)])).all()


def test_under_the_official_protocol_each_run_is_a_replicate_on_test_and_each_seed_on_validation():
    table = all_runs(OFFICIAL)
    test = replicates(table, "test", same_questions=True)
    assert test.ids == list(OFFICIAL[2]["test"]["id"])
    assert test.names == ["fold 2, seed 7", "fold 2, seed 11", "fold 5, seed 7", "fold 5, seed 11"]
    assert test.folds.tolist() == [0] * 6
    assert (test.probabilities == [drawn(6, TWO, fold, seed, 4) for fold in (2, 5) for seed in (7, 11)]).all()
    val = replicates(table, "val", same_questions=False)
    assert val.names == ["7", "11"] and val.folds.tolist() == [2] * 4 + [5] * 2


@pytest.mark.parametrize(("folds", "same"), [(RANDOM, False), (CROSS_VALIDATION, False), (OFFICIAL, True)])
def test_runs_that_differ_in_their_questions_or_labels_are_refused(folds, same):
    table = all_runs(folds).reset_index(drop=True)
    last = table.index[(table["split"] == "test") & (table["seed"] == 11)][-1]
    another_label = table.copy()
    another_label.loc[last, "label"] = "yes" if table["label"][last] == "no" else "no"
    another_question = table.copy()
    another_question.loc[last, "id"] = "1"
    for wrong in (table.drop(index=last), another_label, another_question):
        with pytest.raises(UserError, match="runs differ in the questions or labels of split 'test'"):
            replicates(wrong, "test", same)
    with pytest.raises(UserError, match="no predictions on split 'train'"):
        replicates(table, "train", same)


def test_leaderboard_has_the_answers_of_the_first_replicate():
    test = replicates(all_runs(RANDOM), "test", same_questions=False)
    answers = predict(drawn(4, TWO, 0, 7, 4), TWO).tolist()
    assert json.loads(json.dumps(leaderboard(test, TWO))) == dict(zip(RANDOM[0]["test"]["id"], answers, strict=True))
