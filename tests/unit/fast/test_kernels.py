"""The fused operations against the same written with PyTorch's own, in double precision."""

import pytest
import torch
import torch.nn.functional as F

from peftqa.model.fast.kernels import PackedLinear, biased_attention, compile_library, compiled, gated_gelu, rms_norm

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # a few roundings of numbers of size 1


@pytest.fixture(autouse=True)
def _kernels():
    if compile_library(torch.float32) is None:
        pytest.skip("the kernels cannot be compiled here")


def tensors(dtype, *shapes, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_(requires_grad) for s in shapes]


def everything(*shape):
    """Every key may be attended to."""
    return torch.ones(shape, dtype=torch.bool)


def assert_same(operation, reference, inputs, dtype):
    """Values and gradients agree with the reference's in double precision, for a random incoming gradient."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got, wanted = operation(*inputs), reference(*exact)
    assert got.dtype == dtype
    (gradient,) = tensors(dtype, got.shape, requires_grad=False)
    pairs = [(got, wanted)]
    gradients = torch.autograd.grad(got, inputs, gradient), torch.autograd.grad(wanted, exact, gradient.double())
    pairs += zip(*gradients, strict=True)
    for ours, theirs in pairs:
        scale = theirs.abs().max().clamp(min=1)
        assert torch.allclose(ours.double() / scale, theirs / scale, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(dtype):
    x, weight = tensors(dtype, (3, 5, 33), (33,))
    weight.requires_grad_(False)
    exact = weight.double()
    assert_same(
        lambda x: rms_norm(x, weight, 1e-6),
        lambda x: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * exact,
        [x],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_gated_gelu_also_far_from_zero(dtype):
    gate, linear = tensors(dtype, (4, 7, 19), (4, 7, 19))
    with torch.no_grad():
        gate *= 8  # both of GELU's tails
    assert_same(gated_gelu, lambda a, b: F.gelu(a, approximate="tanh") * b, [gate, linear], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_biased_attention(dtype):
    query, key, value = tensors(dtype, (2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    (bias,) = tensors(dtype, (1, 3, 5, 9), requires_grad=False)
    allowed = torch.ones(2, 9, dtype=torch.bool)
    allowed[1, 6:] = False

    def reference(query, key, value):
        scores = (query @ key.transpose(2, 3) + bias.double()).masked_fill(~allowed[:, None, None], -torch.inf)
        return scores.softmax(-1) @ value

    assert_same(lambda q, k, v: biased_attention(q, k, v, bias, allowed), reference, [query, key, value], dtype)


def test_a_probability_is_exact_if_scores_are_far_apart():
    """exp of a number far below the highest score must be zero, and not the polynomial's value there."""
    query, key = torch.ones(1, 1, 1, 4), torch.zeros(1, 1, 4, 4)
    bias = torch.tensor([0.0, -200.0, -1e30, -1.0]).view(1, 1, 1, 4)
    value = torch.eye(4).view(1, 1, 4, 4)
    got = biased_attention(query, key, value, bias, everything(1, 4)).flatten()
    assert torch.allclose(got, bias.flatten().softmax(-1), atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_stays_a_nan(dtype):
    """A run that has diverged must be noticed."""
    nan = torch.full((1, 1, 2, 16), torch.nan, dtype=dtype)
    bias = torch.zeros(1, 1, 2, 2, dtype=dtype)
    assert rms_norm(nan, torch.ones(16, dtype=dtype), 1e-6).isnan().all()
    assert gated_gelu(nan, torch.ones_like(nan)).isnan().all()
    assert biased_attention(nan, nan, torch.ones_like(nan), bias, everything(1, 2)).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_linear(dtype):
    x, weight = tensors(dtype, (2, 7, 24), (40, 24))
    if not PackedLinear.available(weight):
        pytest.skip("oneDNN's packed weights exist on x86 CPUs only")
    exact = weight.detach().double()
    assert_same(PackedLinear(weight.detach()), lambda x: x @ exact.T, [x], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    query, key, value = tensors(dtype, (2, 3, 50, 8), (2, 3, 50, 8), (2, 3, 50, 8), requires_grad=False)
    (bias,) = tensors(dtype, (1, 3, 50, 50), requires_grad=False)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            norm = rms_norm(query, value[0, 0, 0].contiguous(), 1e-6)
            results.append((biased_attention(query, key, value, bias, everything(2, 50)), gated_gelu(query, key), norm))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("command", ["/nonexistent/c++", "g++ 'x", "false"])
def test_without_a_compiler_pytorchs_operations_give_the_same(monkeypatch, command):
    x, weight, linear = tensors(torch.float32, (4, 16), (16,), (4, 16), requires_grad=False)
    ours = rms_norm(x, weight, 1e-6), gated_gelu(x, linear)
    compile_library.cache_clear()
    monkeypatch.setenv("CXX", command)
    try:
        assert not compiled(x)
        theirs = rms_norm(x, weight, 1e-6), gated_gelu(x, linear)
    finally:
        compile_library.cache_clear()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
