"""Fused operations of a frozen T5: RMS norm, gated GELU, attention with a position bias, and linear layers.

Their element-wise parts are compiled from `kernels.cpp`, once per process and dtype, in about a second. Without a C++
compiler, and on a GPU, PyTorch's own operations are used. Matrix products are not compiled. The weights are frozen,
so no operation computes a gradient for them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shlex
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILER_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
COMPILE_TIMEOUT = 20  # seconds; it takes about one
TYPES = {torch.float32: "float", torch.bfloat16: "bfloat16"}  # the kernels' names of the dtypes
ROWS = 4096  # the tokens of a typical batch, for which oneDNN chooses the packed layout


@functools.cache
def compile_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels for tensors of this dtype, compiled by $CXX or else c++; None if that fails or takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "kernels.so")
        try:
            compiler = shlex.split(os.environ.get("CXX") or "c++")
            command = [*compiler, *COMPILER_FLAGS, f"-DT={TYPES[dtype]}", str(SOURCE), "-o", str(library)]
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_TIMEOUT)
            return ctypes.CDLL(str(library))
        except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a quote in CXX that is never closed
            return None


def compiled(tensor: torch.Tensor) -> bool:
    """Whether the compiled kernels can compute with this tensor."""
    return tensor.device.type == "cpu" and tensor.dtype in TYPES and compile_library(tensor.dtype) is not None


def _call(name: str, *arguments) -> None:
    """Run a kernel, compiled for the first argument's dtype, on contiguous tensors and numbers."""
    kernel = getattr(compile_library(arguments[0].dtype), name)
    kernel(*map(_argument, arguments), ctypes.c_int(torch.get_num_threads()))


def _argument(value: torch.Tensor | int | float):
    if isinstance(value, torch.Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x * weight / root mean square of x over the last dimension. x: (..., width); weight: (width,), a constant."""
    if compiled(x):
        return _RMSNorm.apply(x, weight, epsilon)
    return F.rms_norm(x, weight.shape, weight, epsilon)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, epsilon):
        x = x.contiguous()
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        out, scale = torch.empty_like(x), torch.empty(rows)
        _call("rms_norm", x, weight, out, scale, rows, width, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        out = torch.empty_like(x)
        _call("rms_norm_backward", x, weight, scale, grad.contiguous(), out, len(scale), x.shape[-1])
        return out, None, None


def gated_gelu(gate: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * linear, which have one shape; GELU in its tanh approximation (T5's "gelu_new")."""
    if compiled(gate):
        return _GatedGELU.apply(gate, linear)
    return F.gelu(gate, approximate="tanh") * linear


class _GatedGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, linear):
        gate, linear = gate.contiguous(), linear.contiguous()
        out = torch.empty_like(gate)
        _call("gated_gelu", gate, linear, out, gate.numel())
        ctx.save_for_backward(gate, linear)
        return out

    @staticmethod
    def backward(ctx, grad):
        gate, linear = ctx.saved_tensors
        grad_gate, grad_linear = torch.empty_like(gate), torch.empty_like(gate)
        _call("gated_gelu_backward", gate, linear, grad.contiguous(), grad_gate, grad_linear, gate.numel())
        return grad_gate, grad_linear


class BiasedAttention(torch.autograd.Function):
    """softmax(query key^T + bias) value, by compiled kernels only.

    query: (batch, heads, queries, d); key, value: (batch, heads, keys, d); bias: (1, heads, queries, keys), a constant;
    allowed: bool (batch, keys), the keys that may be attended to. Result: as query.
    For a few hundred tokens, this is faster than PyTorch's blocked kernel on a CPU without AMX (benchmarks/README.md).
    """

    @staticmethod
    def forward(ctx, query, key, value, bias, allowed):
        shape = batch, heads, queries, width = query.shape
        query, key, value = (x.reshape(batch * heads, -1, width) for x in (query, key, value))
        scores = torch.bmm(query, key.transpose(1, 2))
        _call("softmax", scores, bias.contiguous(), allowed.contiguous(), batch, heads, queries, key.shape[1])
        ctx.save_for_backward(query, key, value, scores)
        return torch.bmm(scores, value).view(shape)

    @staticmethod
    def backward(ctx, grad):
        query, key, value, probabilities = ctx.saved_tensors
        leading = grad.shape[:2]
        grad = grad.reshape(query.shape)
        grad_value = torch.bmm(probabilities.transpose(1, 2), grad)
        grad_scores = torch.bmm(grad, value.transpose(1, 2))
        _call("softmax_backward", probabilities, grad_scores, grad_scores.shape[:2].numel(), key.shape[1])
        # Not needed in the encoder's first layer under a prefix: there the queries come from frozen embeddings.
        grad_query = torch.bmm(grad_scores, key).unflatten(0, leading) if ctx.needs_input_grad[0] else None
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query)
        return grad_query, grad_key.unflatten(0, leading), grad_value.unflatten(0, leading), None, None


biased_attention = BiasedAttention.apply


class PackedLinear:
    """x weight^T for a weight (outputs, inputs) that never changes.

    oneDNN copies the weight into the layout that it multiplies fastest. At the first gradient it copies the transpose
    too. Only x86 CPUs can do this (`available`).
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)

    @functools.cached_property
    def packed_transpose(self) -> torch.Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight.t().contiguous(), ROWS)

    @staticmethod
    def available(weight: torch.Tensor) -> bool:
        x86 = platform.machine() in ("x86_64", "AMD64")
        return x86 and weight.device.type == "cpu" and weight.dtype in TYPES and torch.backends.mkldnn.is_available()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _PackedLinear.apply(x, self)


class _PackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, linear):
        ctx.linear = linear
        return torch.ops.mkldnn._linear_pointwise(x, linear.packed, None, "none", [], "")

    @staticmethod
    def backward(ctx, grad):
        return torch.ops.mkldnn._linear_pointwise(grad, ctx.linear.packed_transpose, None, "none", [], ""), None
