"""What a reader could wrongly conclude from a comparison. Imports no torch.

`find_flags` yields, and comparison.json lists, {"flag": one of the names below, "variant": name or null,
"text": one sentence}:

    one_class                   all test questions have one label
    one_label                   in some run, a variant gives one label to (nearly) every question
    never_predicted             a variant never gives a label that questions have
    not_better_than_majority    a variant is not, or not shown to be, more accurate than the most frequent label
    not_converged               a run keeps its last epoch
    small_validation            the epochs kept were chosen on few questions
    one_training                every adapter was trained once
    level                       with these seeds and folds the tests err too often
    one_training_set            several seeds, but one fold
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from peftqa.config.params import Params
from peftqa.evaluation.predictions import Replicates

MAJORITY = "always answering the most frequent label"
NEARLY_ALL = 0.95
FEW_QUESTIONS = 200  # on fewer, an accuracy of 70% has a standard error above 3 points


def find_flags(
    test: Mapping[str, Replicates],
    n_val: int,
    variants: Mapping[str, Mapping],
    pairs: Sequence[Mapping],
    params: Params,
) -> Iterator[dict]:
    """The flags that apply. `variants` and `pairs` are those of comparison.py; n_val: validation questions of a run."""
    labels = params.data.labels
    truth = next(iter(test.values())).truth
    shares = {label: truth.count(label) / len(truth) for label in labels}
    present = [label for label in labels if shares[label]]
    if len(present) == 1:
        yield flag("one_class", f"All test questions have the label {present[0]}: other labels were not tested.")
    # Without `majority` (training's most frequent label), the test questions' most frequent label counts.
    majority = variants["majority"]["metrics"]["accuracy"] if "majority" in variants else max(shares.values())
    for name in [name for name in variants if name != "majority"]:
        yield from answer_flags(name, test[name], variants[name]["kind"], labels, present)
        if variants[name]["kind"] != "diagnostic":
            yield from majority_flags(name, variants[name]["metrics"]["accuracy"], majority, pairs)
    epochs = {name: variant["epochs"] for name, variant in variants.items() if variant["kind"] == "adapter"}
    if epochs:
        yield from training_flags(epochs, n_val)
    yield from design_flags(len(params.train.seeds) if epochs else None, len(params.split.folds), params.split.protocol)


def scope(trained: int, seeds: int, folds: int) -> str:
    """What a pair's test is about, which depends on whether seeds and folds are repeated.

    trained: how many of the two are adapters; seeds, folds: how many there are of each.
    """
    if folds > 1:
        return "about the methods with this seed" if trained and seeds == 1 else "about the methods"
    if trained and seeds == 1:
        return f"about {'these two trained adapters' if trained == 2 else 'this one trained adapter'}"
    return "about the methods on this training set"


def answer_flags(
    name: str, test: Replicates, kind: str, labels: Sequence[str], present: Sequence[str]
) -> Iterator[dict]:
    """`one_label` and `never_predicted`. present: labels that test questions have."""
    answers = test.probabilities.argmax(axis=2)
    runs = [run[test.folds == fold] for run in answers for fold in np.unique(test.folds)]
    alike = sum(np.bincount(run).max() >= NEARLY_ALL * len(run) for run in runs)
    if alike:
        where = in_some(alike, len(runs), "runs" if kind == "adapter" else "folds")
        yield flag("one_label", f"{name} answers nearly every question alike{where}.", name)
    never = [label for label in present if labels.index(label) not in answers]
    if never:
        yield flag("never_predicted", f"{name} never answers {' or '.join(never)}.", name)


def majority_flags(name: str, accuracy: float, majority: float, pairs: Sequence[Mapping]) -> Iterator[dict]:
    """`not_better_than_majority`; if no test compares a variant with the majority label, its accuracy decides."""
    pair = next((pair for pair in pairs if (pair["variant"], pair["reference"]) == (name, "majority")), None)
    if accuracy <= majority or (pair and not pair["difference_shown"]):
        said = "is not shown to be better than" if accuracy > majority else "is not better than"
        numbers = f"{100 * accuracy:.1f}% against {100 * majority:.1f}% of the questions right"
        yield flag("not_better_than_majority", f"{name} {said} {MAJORITY}: {numbers}.", name)


def training_flags(epochs: Mapping[str, Sequence[Mapping]], validation: int) -> Iterator[dict]:
    """`not_converged`, `small_validation`, `one_training`.

    epochs: of each adapter, the `kept` and `last` epoch of each run; validation: questions of a run.
    """
    for name, runs in epochs.items():
        unfinished = sum(run["kept"] == run["last"] for run in runs)
        if unfinished:
            best = f"its last epoch is the best{in_some(unfinished, len(runs), 'runs')}"
            text = f"{name} had not converged ({best}): more training may change the ranking."
            yield flag("not_converged", text, name)
    choices = max(run["last"] for runs in epochs.values() for run in runs)
    if validation < FEW_QUESTIONS and choices > 1:
        text = f"The best of {choices} epochs was chosen on {validation} validation questions, partly by luck."
        yield flag("small_validation", text)
    if all(len(runs) == 1 for runs in epochs.values()):
        who = "Every adapter" if len(epochs) > 1 else next(iter(epochs))
        yield flag("one_training", f"{who} was trained once: how different another training would be is unknown.")


def design_flags(seeds: int | None, folds: int, protocol: str) -> Iterator[dict]:
    """`level` and `one_training_set`, with docs/protocol.md's figures. seeds: None without an adapter."""
    if folds == 1 and seeds in (1, None):
        return  # the tests are about these adapters alone, and `one_training` says so
    if folds == 1:
        text = "All runs share one training set: on another, the order of the methods may be different."
        yield flag("one_training_set", text)
    if seeds == 1:
        text = (
            "Each adapter was trained with one seed, so the tests are about the methods with this seed. As tests of "
            "the methods in general, they find a false difference in 8 to 13% of cases instead of 5% if a tenth of the "
            "variance between runs is due to the seed. Against the majority label it can be 7% even without that."
        )
        yield flag("level", text)
    few = [f"{seeds} seeds"] if seeds == 2 else []
    few += [f"{folds} fold{'s' if folds > 1 else ''}"] if protocol == "official" and folds < 5 else []
    if few:
        text = f"With {' and '.join(few)} the tests err too often: take a p-value near the limit as undecided."
        yield flag("level", text)


def flag(name: str, text: str, variant: str | None = None) -> dict:
    return {"flag": name, "variant": variant, "text": text}


def in_some(count: int, total: int, unit: str) -> str:
    return f" in {count} of {total} {unit}" if total > 1 else ""
