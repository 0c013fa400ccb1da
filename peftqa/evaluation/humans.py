"""The answers of the people who labelled the records. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from statsmodels.stats.proportion import proportion_confint

from peftqa.data.records import Record


def describe_humans(
    records: Mapping[str, Record], ids: Sequence[str], truth: Sequence[str], labels: Sequence[str], confidence: float
) -> dict[str, dict]:
    """How well the file's two annotators answer the questions `ids`; the interval is Wilson's.

    human_unaided answered without the abstract's conclusion, human_aided had read it. The label was agreed on from
    their answers, so both look better than they are (Jin et al. 2019, arXiv 1909.06146). Other metrics are left out:
    they do not say how an answer that is not a label, such as "maybe", counts.
    """
    asked, n = [records[pmid] for pmid in ids], len(ids)
    given = {
        "human_unaided": [record.reasoning_required_pred for record in asked],
        "human_aided": [record.reasoning_free_pred for record in asked],
    }
    humans = {}
    for name, answers in given.items():
        right = sum(answer == label for answer, label in zip(answers, truth, strict=True))
        humans[name] = {
            "n": n,
            "accuracy": right / n,
            "interval": [float(end) for end in proportion_confint(right, n, 1 - confidence, "wilson")],
            "other_answers": sum(answer not in labels for answer in answers) / n,
        }
    return humans
