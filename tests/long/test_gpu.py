"""What only a GPU can show: a run is the same to the byte when it is repeated there."""

import pytest
import torch
from ruamel.yaml import YAML

from tests.clone import Clone
from tests.conftest import ROOT


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_runs_of_the_demonstration_on_a_gpu_make_the_same_bytes(tmp_path, dtype):
    clone, settings = Clone(tmp_path / "clone"), YAML(typ="safe")
    demonstration = settings.load(ROOT / "experiments/embedded.yaml") | settings.load(ROOT / "experiments/demo.yaml")
    demonstration.pop("include")
    clone.set(demonstration | {"model.dtype": dtype, "train.epochs": 1})
    stages = [f"{stage}@{adapter}-0-42" for adapter in ("prompt", "prefix") for stage in ("train", "predict")]
    clone("dvc", "repro", *stages)
    before = clone.bytes()
    assert len([path for path in before if path.endswith("adapter_model.safetensors")]) == 2
    clone("dvc", "repro", "--force", "--single-item", *stages)
    assert clone.bytes() == before
