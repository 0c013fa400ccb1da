"""One adapter trained by several processes: DVC keeps what they made."""

from tests.clone import ran


def test_two_processes_train_one_adapter_that_stays(study_clone):
    clone = study_clone("processes", **{"train.processes": 2, "train.epochs": 1, "template.max_tokens": 5})
    refused = clone("dvc", "repro", "train@prefix-0-42", ok=False)
    assert refused.count("error: template.max_tokens is 5") == 1 and "Traceback" not in refused
    clone.set({"template.max_tokens": 64})
    printed = clone("dvc", "repro", "predict@prefix-0-42")
    assert printed.count("prefix, fold 0, seed 42 epoch 1/1: loss ") == 1, "the first process alone is heard"
    before = clone.bytes()
    assert "models/adapters/prefix/fold-0/seed-42/adapter_model.safetensors" in before
    assert ran(clone("dvc", "repro", "predict@prefix-0-42")) == [] and clone.bytes() == before
    assert not list((clone.folder / ".checkpoints").iterdir())
    clone("dvc", "repro", "--force", "--single-item", "train@prefix-0-42")
    assert clone.bytes() == before, "the same processes make the same bytes"
