"""Mistakes in params.yaml: the first stage explains them, and with the old file the bytes are the same again."""

import pytest

from tests.faults.drill import sentence

pytestmark = pytest.mark.drill


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"selected": "prefixx"}, "selected: 'prefixx' is not one of majority, tfidf, base"),
        ({"train.epoch": 3}, "train.epoch: unknown key; did you mean epochs?"),
        ({"split.test": 0.5}, "train + val + test must be 1, not 1.4"),
        ({"split.protocol": "official", "split.folds": [10]}, "fold 10 does not exist"),
        ({"adapters.prefix.learning_rate": float("nan")}, "adapters.prefix.learning_rate: nan is not allowed"),
    ],
)
def test_a_value_that_is_not_allowed(whole, clone, values, says):
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


@pytest.mark.parametrize("content", ["a: [", "\xff", ""])
def test_a_file_without_parameters(whole, clone, content):
    (clone.folder / "params.yaml").write_bytes(content.encode("latin-1"))
    clone.refused("make", "runs", "SETUP=", says=("params.yaml",))
    printed = clone("dvc", "repro", ok=False)  # which reads it before any stage does
    assert "ERROR" in printed and "Traceback" not in printed
    assert clone.bytes() == whole.bytes()
    clone("git", "checkout", "--quiet", "params.yaml")
    clone.recovers(whole)
