"""What can be had without a language model, to read the other figures by. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from peftqa.metrics import label_metrics
from peftqa.records import Record


def baseline_metrics(
    train: pd.DataFrame, test: pd.DataFrame, records: Mapping[str, Record], labels: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """`n accuracy macro_f1` on `test` for each reference row; tables have columns id, question, context, label.

    The human rows are the file's two annotators, one who answered without the abstract's conclusion
    (reasoning_required) and one who had read it (reasoning_free). The label was agreed on from their answers, which
    flatters both (Jin et al. 2019, arXiv 1909.06146). An answer outside `labels`, or none, counts as wrong.
    """
    predictions = {
        "majority": [majority_label(train["label"], labels)] * len(test),
        "tfidf_logistic_regression": tfidf_predictions(train, test),
        "human_reasoning_required": [records[pmid].reasoning_required_pred or "" for pmid in test["id"]],
        "human_reasoning_free": [records[pmid].reasoning_free_pred or "" for pmid in test["id"]],
    }
    return {name: {"n": len(test)} | _scores(answers, test["label"], labels) for name, answers in predictions.items()}


def majority_label(truth: Sequence[str], labels: Sequence[str]) -> str:
    """The most frequent label; of equally frequent ones the first in `labels`."""
    counts = pd.Series(truth).value_counts()
    return max(labels, key=lambda label: counts.get(label, 0))


def tfidf_predictions(train: pd.DataFrame, test: pd.DataFrame) -> list[str]:
    """Labels of `test` by logistic regression on TF-IDF weights of words and word pairs in question and abstract.

    Vocabulary, weights and coefficients come from `train` alone. Nothing is tuned: scikit-learn's defaults, but for
    word pairs, logarithmic counts, and classes weighted alike.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    model.fit(_text(train), train["label"])
    return model.predict(_text(test)).tolist()


def _text(table: pd.DataFrame) -> pd.Series:
    return table["question"] + " " + table["context"]


def _scores(answers: Sequence[str], truth: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    scores = label_metrics(answers, truth, labels)
    return {name: scores[name] for name in ("accuracy", "macro_f1")}
