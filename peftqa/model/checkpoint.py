"""Which tensors safetensors files have, by their headers. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from peftqa.errors import UserError, one_line

FLOATS = ("F64", "F32", "F16", "BF16")


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file.

    Raises UserError if the file cannot be opened, is cut short, or has a tensor that is not of floating-point numbers.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file.name} is damaged or not a safetensors file ({one_line(error)})") from None
    for name, values in slices.items():
        if (kind := values.get_dtype()) not in FLOATS:
            raise UserError(f"{file.name}: {name} is of type {kind}; it must be one of {', '.join(FLOATS)}")
    return {name: tuple(values.get_shape()) for name, values in slices.items()}


def differences(wanted: Mapping, found: Mapping) -> str:
    """How the shapes found differ from those wanted, in words; "" if they do not. At most three per kind are named."""
    other = [name for name in sorted(wanted.keys() & found.keys()) if found[name] != wanted[name]]
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "not of this model": sorted(found.keys() - wanted.keys()),
        "of wrong shape": [f"{name} {list(found[name])} instead of {list(wanted[name])}" for name in other],
    }
    return "; ".join(
        f"{kind}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    )
