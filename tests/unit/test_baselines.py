"""Baselines without a language model, on made-up records and on the real ones."""

import numpy as np
import pandas as pd
import pytest

from peftqa.data.records import clean, read_records, read_test_ids, to_table
from peftqa.data.splits import split_official
from peftqa.errors import UserError
from peftqa.evaluation.baselines import majority_probabilities, tfidf_probabilities
from peftqa.evaluation.humans import describe_humans
from peftqa.evaluation.predictions import predict

LABELS = ["yes", "no"]


def table(labels: list[str], contexts: list[str], question: str = "Does it help?") -> pd.DataFrame:
    ids = [str(i + 1) for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "question": question, "context": contexts, "label": labels})


def tfidf_answers(train: pd.DataFrame, questions: pd.DataFrame) -> list[str]:
    return list(predict(tfidf_probabilities(train, questions, LABELS), LABELS))


def test_the_majority_answers_every_question_with_the_shares_of_the_training_rows():
    train = table(["no", "no", "yes", "no"], ["it fell"] * 4)
    questions = table(["yes"] * 3, ["it rose"] * 3)
    assert majority_probabilities(train, questions, LABELS).tolist() == [[0.25, 0.75]] * 3
    assert majority_probabilities(train, questions, LABELS[::-1]).tolist() == [[0.75, 0.25]] * 3
    # A label that training has not seen is in the table all the same.
    assert majority_probabilities(train, questions, [*LABELS, "maybe"]).tolist() == [[0.25, 0.75, 0.0]] * 3


def test_the_regression_reads_question_and_abstract():
    rng = np.random.default_rng(0)
    labels = rng.permutation(["yes", "no"] * 10)
    words = np.where(labels == "yes", "rose", "fell")
    by_abstract = table(labels, [f"it {word}" for word in words])
    assert tfidf_answers(by_abstract, by_abstract) == list(labels)
    by_question = table(labels, ["it did"] * 20).assign(question=words)
    assert tfidf_answers(by_question, by_question) == list(labels)


def test_probabilities_of_the_regression_are_in_the_order_of_the_labels():
    labels = ["yes", "no", "maybe"]
    train = table(labels * 4, ["it rose", "it fell", "it may be"] * 4)
    questions = table(labels, ["it rose", "it fell", "it may be"])
    for order in (labels, labels[::-1]):
        probabilities = tfidf_probabilities(train, questions, order)
        assert list(predict(probabilities, order)) == labels
        assert probabilities.sum(axis=1) == pytest.approx(1)
    # One that training has not seen has probability zero.
    two = table(LABELS * 4, ["it rose", "it fell"] * 4)
    assert tfidf_probabilities(two, questions, ["maybe", *LABELS])[:, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("context", ["", "? - !", "a b c 1 2", "unique{row}"])
def test_text_without_a_word_to_count_is_refused(context):
    rows = table(LABELS * 4, [context.format(row=row) for row in range(8)]).assign(question="?")
    with pytest.raises(UserError, match="tfidf: no word of two or more letters is in two of the 8 training records"):
        tfidf_probabilities(rows, rows, LABELS)


def test_describe_humans_on_the_official_questions_is_what_was_published(real_file):
    # Jin et al. 2019: accuracy 78.0 without the conclusion, 90.4 with it.
    labels = ["yes", "no", "maybe"]
    records = read_records(real_file)
    cleaned, _ = clean(to_table(records), labels)
    test_ids = read_test_ids(real_file.with_name("test_ground_truth.json"), records)
    parts = split_official(cleaned, test_ids, 42)[0]
    test = parts["test"]
    humans = describe_humans(records, list(test["id"]), list(test["label"]), labels, 0.95)
    assert {name: row["accuracy"] for name, row in humans.items()} == {"human_unaided": 0.780, "human_aided": 0.904}
    majority = predict(majority_probabilities(parts["train"], test, labels), labels)
    assert len(test) == 500 and (majority == test["label"]).mean() == pytest.approx(0.552)
