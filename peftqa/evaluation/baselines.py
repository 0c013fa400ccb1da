"""Answers without a language model, to compare the others with. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from peftqa.errors import UserError


def majority_probabilities(train: pd.DataFrame, questions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The same answer to every question: each label's share of the training rows, float64 (questions, labels)."""
    shares = train["label"].value_counts(normalize=True).reindex(list(labels), fill_value=0.0)
    return np.tile(shares.to_numpy(np.float64), (len(questions), 1))


def tfidf_probabilities(train: pd.DataFrame, questions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Logistic regression on TF-IDF weights of words and word pairs in question and abstract, float64 (n, labels).

    Tables have columns question, context, label. Only `train` is learned from. Nothing is tuned. These differ from
    scikit-learn's defaults: word pairs, min_df, logarithmic counts, equal class weights, max_iter. Raises UserError if
    no word is in two training rows.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    try:
        with threadpool_limits(1):  # sums in several threads round differently from machine to machine
            model.fit(train["question"] + " " + train["context"], train["label"])
    except ValueError:  # the vectorizer's error for an empty vocabulary
        raise UserError(
            f"tfidf: no word of two or more letters is in two of the {len(train)} training records, so there is "
            "nothing to count; check the file that data.source names."
        ) from None
    probabilities = model.predict_proba(questions["question"] + " " + questions["context"])
    columns = {label: probabilities[:, i] for i, label in enumerate(model.classes_)}
    return np.stack([columns.get(label, np.zeros(len(questions))) for label in labels], axis=1)
