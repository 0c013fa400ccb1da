"""Mistakes in params.yaml: the first stage that runs explains them, and the old file brings the old bytes back."""

import pytest

from tests.faults.drill import sentence

pytestmark = pytest.mark.drill


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"selected": "prefixx"}, "selected: 'prefixx' is not in evaluate.variants (majority, tfidf, base"),
        ({"selected": "a/../b"}, "selected: 'a/../b' is not in evaluate.variants"),
        ({"selected": ["prefix"]}, "selected: ['prefix'] is not allowed"),
        ({"selected": None}, "selected: None is not allowed"),
        ({"train.epoch": 3}, "train.epoch: unknown key; did you mean epochs?"),
        ({"train.batch_size": "eight"}, "train.batch_size: 'eight' is not allowed"),
        ({"train.seeds": []}, "train.seeds: [] is not allowed"),
        ({"train.warmup_steps": -1}, "train.warmup_steps: -1 is not allowed"),
        ({"split.test": 0.5}, "train + val + test must be 1, not 1.4"),
        ({"split.protocol": "official", "split.folds": [10]}, "fold 10 does not exist"),
        ({"data.labels": ["yes"]}, "data.labels"),
        ({"data.sha256": "abc"}, "data.sha256: 'abc' is not allowed: must be 64 hexadecimal digits"),
        ({"model.revision": "main"}, "model.revision: 'main' is not allowed"),
        ({"template.text": "{question}"}, "must contain {context} exactly once"),
        ({"adapters.prefix.method": "prefix"}, "adapters.prefix.method: 'prefix' is not allowed"),
        ({"adapters.prefix.learning_rate": float("nan")}, "adapters.prefix.learning_rate: nan is not allowed"),
        ({"compare.confidence": 95}, "compare.confidence: 95"),
    ],
)
def test_a_number_that_cannot_be(whole, clone, values, says):
    clone.set(values)
    clone.refused("dvc", "repro", says=("params.yaml", says))
    clone.unharmed(whole)
    clone("git", "checkout", "--quiet", "params.yaml")
    clone.recovers(whole)


def test_one_that_an_experiment_sets(whole, clone):
    printed = clone("dvc", "exp", "run", "-S", "train.batch_size=0", ok=False)
    sentence(printed, "train.batch_size: 0 is not allowed")
    clone.unharmed(whole)
    clone("git", "checkout", "--quiet", "params.yaml")
    clone.recovers(whole)


@pytest.mark.parametrize("content", ["a: [", "\xff", "- 3", ""])
def test_a_file_that_holds_no_parameters(whole, clone, content):
    (clone.folder / "params.yaml").write_bytes(content.encode("latin-1"))
    clone.refused("make", "runs", "SETUP=", says=("params.yaml",))
    printed = clone("dvc", "repro", ok=False)  # which reads it before any stage does
    assert "ERROR" in printed and "Traceback" not in printed
    assert clone.bytes() == whole.bytes()
    clone("git", "checkout", "--quiet", "params.yaml")
    clone.recovers(whole)
