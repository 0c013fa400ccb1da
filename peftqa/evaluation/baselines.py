"""What can be had without a language model, to read the other metrics by. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from statsmodels.stats.proportion import proportion_confint

from peftqa.data.records import Record
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


def human_answers(records: Mapping[str, Record], ids: Sequence[str]) -> dict[str, list[str]]:
    """The answers of the file's two annotators, n each; "" where one gave none.

    One answered without the abstract's conclusion (human_unaided), one had read it (human_aided). The label was agreed
    on from their answers, which flatters both (Jin et al. 2019, arXiv 1909.06146).
    """
    return {
        "human_unaided": [records[pmid].reasoning_required_pred or "" for pmid in ids],
        "human_aided": [records[pmid].reasoning_free_pred or "" for pmid in ids],
    }


def describe_humans(answers: Sequence[str], truth: Sequence[str], labels: Sequence[str], confidence: float) -> dict:
    """A person's answers beside the variants'; the interval is Wilson's.

    Accuracy alone: what an answer that is no label, such as "maybe", counts in other metrics is open to dispute.
    """
    right = sum(answer == label for answer, label in zip(answers, truth, strict=True))
    return {
        "n": len(truth),
        "accuracy": right / len(truth),
        "interval": [float(end) for end in proportion_confint(right, len(truth), 1 - confidence, "wilson")],
        "other_answers": sum(answer not in labels for answer in answers) / len(truth),
    }
