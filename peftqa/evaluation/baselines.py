"""Answers without a language model, which show what the other metrics are worth. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from peftqa.errors import UserError


def majority_probabilities(train: pd.DataFrame, questions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The same answer to every question: each label's share of the training rows, float64 (questions, labels)."""
    shares = train["label"].value_counts(normalize=True).reindex(list(labels), fill_value=0.0)
    return np.tile(shares.to_numpy(np.float64), (len(questions), 1))


def tfidf_probabilities(train: pd.DataFrame, questions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Logistic regression on TF-IDF weights of words and word pairs in question and abstract, float64 (n, labels).

    Tables have columns question, context, label. Vocabulary, weights and coefficients come from `train` alone. Nothing
    is tuned: scikit-learn's defaults, but for word pairs, logarithmic counts, and classes weighted alike.
    Raises UserError where no word stands in two training rows.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    try:
        model.fit(train["question"] + " " + train["context"], train["label"])
    except ValueError:  # so the vectorizer says that its vocabulary would be empty
        raise UserError(
            f"tfidf: no word of two letters or more stands in two of the {len(train)} training records, so there is "
            "nothing to count; check what data.source leads to."
        ) from None
    probabilities = model.predict_proba(questions["question"] + " " + questions["context"])
    columns = {label: probabilities[:, i] for i, label in enumerate(model.classes_)}
    return np.stack([columns.get(label, np.zeros(len(questions))) for label in labels], axis=1)
