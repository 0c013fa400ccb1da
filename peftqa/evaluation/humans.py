"""The answers of the people who labelled the records. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from statsmodels.stats.proportion import proportion_confint

from peftqa.data.records import Record


def human_answers(records: Mapping[str, Record], ids: Sequence[str]) -> dict[str, list[str]]:
    """The answers of the file's two annotators, n each; "" if there is none.

    human_unaided answered without the abstract's conclusion, human_aided had read it. The label was agreed on from
    their answers, so both look better than they are (Jin et al. 2019, arXiv 1909.06146).
    """
    return {
        "human_unaided": [records[pmid].reasoning_required_pred or "" for pmid in ids],
        "human_aided": [records[pmid].reasoning_free_pred or "" for pmid in ids],
    }


def describe_humans(answers: Sequence[str], truth: Sequence[str], labels: Sequence[str], confidence: float) -> dict:
    """A person's answers beside the variants'; the interval is Wilson's.

    Only accuracy, since it is unclear what an answer that is not a label, such as "maybe", counts in other metrics.
    """
    right = sum(answer == label for answer, label in zip(answers, truth, strict=True))
    return {
        "n": len(truth),
        "accuracy": right / len(truth),
        "interval": [float(end) for end in proportion_confint(right, len(truth), 1 - confidence, "wilson")],
        "other_answers": sum(answer not in labels for answer in answers) / len(truth),
    }
