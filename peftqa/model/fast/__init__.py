"""The fast path: a frozen T5 gives the same results in less time. It is imported only where `model.fast` is on.

Nothing else needs it, so a first reading may skip it. `t5` says what is replaced in the model, `kernels` has the
operations that take its place.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from peftqa.errors import UserError
from peftqa.model.fast.kernels import compile_library
from peftqa.model.fast.t5 import patch_t5

__all__ = ["choose_attention", "describe", "patch_t5"]


def choose_attention(name: str, dropout: float, device: torch.device) -> str:
    """The attention implementation for `model.attention`: auto, fused, sdpa or eager.

    auto is fused, the project's own, on a CPU with a C++ compiler and without dropout, else sdpa.
    Raises UserError where fused is asked for on a GPU or without a compiler. With dropout, fused computes as sdpa does
    while training.
    """
    obstacle = None
    if device.type != "cpu":
        obstacle = "on a GPU"
    else:
        library, note = compile_library()
        if library is None:
            obstacle = note
    if name == "fused" and obstacle:
        raise UserError(f"model.attention: fused cannot run here ({obstacle}); set it to auto, or to sdpa.")
    if name == "auto":
        return "sdpa" if obstacle or dropout else "fused"
    return name


def describe(model: PreTrainedModel) -> str:
    """What the model computes with, in a few words for the log."""
    library, note = (None, "a GPU") if model.device.type != "cpu" else compile_library()
    return f"fast path, kernels {note}" if library else f"fast path, kernels of PyTorch ({note})"
