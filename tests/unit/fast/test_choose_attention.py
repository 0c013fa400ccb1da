"""The choice of the attention, by the machine and params.yaml."""

import pytest
import torch

from peftqa.errors import UserError
from peftqa.model import fast
from peftqa.model.fast.kernels import compile_library

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_compiler(monkeypatch):
    compile_library.cache_clear()
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    yield
    compile_library.cache_clear()


def test_auto_is_fused_if_the_kernels_run_and_sdpa_elsewhere():
    assert fast.choose_attention("auto", 0.0, CPU) == ("fused" if compile_library()[0] else "sdpa")
    assert fast.choose_attention("auto", 0.1, CPU) == "sdpa"
    assert fast.choose_attention("auto", 0.0, GPU) == "sdpa"
    assert [fast.choose_attention(name, 0.0, CPU) for name in ("sdpa", "eager")] == ["sdpa", "eager"]


def test_without_a_compiler_auto_is_sdpa_and_fused_is_refused(no_compiler):
    assert fast.choose_attention("auto", 0.0, CPU) == "sdpa"
    with pytest.raises(UserError, match=r"model\.attention: fused cannot run here \(no C\+\+ compiler\)"):
        fast.choose_attention("fused", 0.0, CPU)


def test_fused_attention_on_a_gpu_is_refused():
    with pytest.raises(UserError, match=r"model\.attention: fused cannot run here \(on a GPU\)"):
        fast.choose_attention("fused", 0.0, GPU)
