"""The fast path: a frozen T5 computes the same function in less time. It is imported only if `model.fast` is on.

A first reading may skip it. `t5` replaces parts of the model by the operations in `kernels`.
"""

from __future__ import annotations

import torch

from peftqa.errors import UserError
from peftqa.model.fast.kernels import compile_library
from peftqa.model.fast.t5 import patch_t5

__all__ = ["choose_attention", "patch_t5"]


def choose_attention(name: str, dropout: float, device: torch.device) -> str:
    """The attention implementation for `model.attention`: auto, fused, sdpa or eager.

    auto is fused, the project's own, on a CPU with a C++ compiler and without dropout, else sdpa. With dropout, fused
    computes as sdpa does in training. Raises UserError for fused on a GPU or without a compiler.
    """
    library, note = compile_library() if device.type == "cpu" else (None, "on a GPU")
    obstacle = None if library else note
    if name == "fused" and obstacle:
        raise UserError(f"model.attention: fused cannot run here ({obstacle}); set it to auto, or to sdpa.")
    if name == "auto":
        return "sdpa" if obstacle or dropout else "fused"
    return name
