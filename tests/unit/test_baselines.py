"""The reference rows, on records made here and on the real ones."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from peftqa.baselines import baseline_metrics, majority_label, tfidf_predictions
from peftqa.records import Record, clean, read_records, read_test_ids, split_official, to_table, write_table

LABELS = ["yes", "no"]


def record(label: str, required: str | None, free: str | None) -> Record:
    return Record(
        QUESTION="Does it help?",
        CONTEXTS=["It did."],
        LABELS=["RESULTS"],
        MESHES=[],
        YEAR="2010",
        reasoning_required_pred=required,
        reasoning_free_pred=free,
        final_decision=label,
        LONG_ANSWER="It helps.",
    )


RECORDS = {
    "1": record("yes", "yes", "yes"),
    "2": record("yes", "maybe", "yes"),
    "3": record("no", "no", None),
    "4": record("no", "yes", "no"),
}


def table(labels: list[str], contexts: list[str], question: str = "Does it help?") -> pd.DataFrame:
    ids = [str(i + 1) for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "question": question, "context": contexts, "label": labels})


def test_rows_worked_by_hand():
    train = table(["yes", "yes", "no"] * 4, ["it rose", "it rose", "it fell"] * 4)
    test = table(["yes", "yes", "no", "no"], ["it rose", "it rose", "it fell", "it rose"])
    rows = baseline_metrics(train, test, RECORDS, LABELS)
    assert {name: (row["n"], row["accuracy"]) for name, row in rows.items()} == {
        "majority": (4, 0.5),
        "tfidf_logistic_regression": (4, 0.75),
        "human_reasoning_required": (4, 0.5),
        "human_reasoning_free": (4, 0.75),
    }
    assert rows["majority"]["macro_f1"] == pytest.approx(1 / 3)
    assert rows["tfidf_logistic_regression"]["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    # The "maybe" is wrong and no third class: each label has one hit, and three answers and questions with yes, ...
    assert rows["human_reasoning_required"]["macro_f1"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    # ... and so is the missing answer.
    assert rows["human_reasoning_free"]["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_majority_is_that_of_the_training_rows_and_the_first_label_of_equals():
    assert majority_label(["no", "no", "yes"], LABELS) == "no"
    assert majority_label(["no", "yes"], LABELS) == "yes"
    assert majority_label(["no", "yes"], LABELS[::-1]) == "no"
    train, test = table(["no"] * 9 + ["yes"] * 3, ["it fell"] * 12), table(["yes"] * 4, ["it rose"] * 4)
    assert baseline_metrics(train, test, RECORDS, LABELS)["majority"]["accuracy"] == 0


def test_the_regression_reads_question_and_abstract():
    rng = np.random.default_rng(0)
    labels = rng.permutation(["yes", "no"] * 10)
    words = np.where(labels == "yes", "rose", "fell")
    by_abstract = table(labels, [f"it {word}" for word in words])
    assert tfidf_predictions(by_abstract, by_abstract) == list(labels)
    by_question = table(labels, ["it did"] * 20).assign(question=words)
    assert tfidf_predictions(by_question, by_question) == list(labels)


def test_an_answer_of_the_regression_does_not_depend_on_the_other_test_rows():
    rng = np.random.default_rng(0)
    vocabulary = np.array(["rose", "fell", "patients", "trial", "placebo", "dose", "risk", "same"])
    contexts = [" ".join(rng.choice(vocabulary, 12)) for _ in range(80)]
    train, test = table(["yes", "no", "no"] * 20, contexts[:60]), table(["yes"] * 20, contexts[60:])
    together = tfidf_predictions(train, test)
    assert together == [tfidf_predictions(train, test.iloc[[row]])[0] for row in range(20)]
    assert set(together) == {"yes", "no"}


def test_human_rows_on_the_official_test_set_are_the_published_ones(real_file):
    # Jin et al. 2019: accuracy 78.0 and macro-F1 72.2 without the conclusion, 90.4 and 84.2 with it.
    labels = ["yes", "no", "maybe"]
    records = read_records(real_file)
    cleaned, _ = clean(to_table(records), labels)
    test_ids = read_test_ids(real_file.with_name("test_ground_truth.json"), records)
    split = split_official(cleaned, test_ids, 0.8, 0.1, 42)
    rows = baseline_metrics(split["train"], split["test"], records, labels)
    required, free = rows["human_reasoning_required"], rows["human_reasoning_free"]
    assert (required["n"], round(required["accuracy"], 3), round(required["macro_f1"], 3)) == (500, 0.780, 0.722)
    assert (free["n"], round(free["accuracy"], 3), round(free["macro_f1"], 3)) == (500, 0.904, 0.842)
    assert rows["majority"]["accuracy"] == pytest.approx(0.552)


def test_the_stage_writes_the_rows_of_the_test_split(workspace):
    raw = workspace.folder / "data/raw/ori_pqal.json"
    raw.parent.mkdir(parents=True)
    raw.write_text(json.dumps({pmid: values.model_dump() for pmid, values in RECORDS.items()}))
    split = workspace.folder / "data/split"
    write_table(table(["yes", "yes", "no"] * 4, ["it rose", "it rose", "it fell"] * 4), split / "train.csv")
    write_table(table(["yes", "yes", "no", "no"], ["it rose", "it rose", "it fell", "it rose"]), split / "test.csv")
    result = workspace.run("baselines")
    assert result.returncode == 0, result.stderr
    rows = json.loads(Path(workspace.folder, "metrics/baselines.json").read_text())
    assert list(rows) == ["majority", "tfidf_logistic_regression", "human_reasoning_required", "human_reasoning_free"]
    truth, answers = ["yes", "yes", "no", "no"], ["yes", "maybe", "no", "yes"]
    expected = f1_score(truth, answers, labels=LABELS, average="macro")
    assert rows["human_reasoning_required"] == {"n": 4, "accuracy": 0.5, "macro_f1": round(expected, 6)}


def test_the_stage_names_what_is_missing(workspace, refused):
    assert "data/split/train.csv is missing" in refused(workspace.run("baselines"))
