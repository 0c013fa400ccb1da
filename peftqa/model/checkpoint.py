"""Faults of a T5 that loading would not notice, found in its files' headers in milliseconds. It imports no torch.

transformers ties a missing output layer to the embeddings, reads whole numbers as weights, and makes an empty tokenizer
if the file is missing. All of these models would give wrong answers. Other tensors that are missing, too many or of the
wrong shape are found when the model is loaded (backbone.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from peftqa.errors import UserError, one_line

MODEL_TYPES = ("t5", "mt5", "umt5")
MODEL_WEIGHTS, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
EMBEDDINGS, OUTPUT = "shared.weight", "lm_head.weight"
# Other names that the embeddings have in some published checkpoints.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

Shapes = dict[str, tuple[int, ...]]


def check_checkpoint(folder: Path, title: str) -> None:
    """Raise UserError, which begins with `title`, if `folder` has a fault that loading it would not notice.

    It checks the model type, the type of the weights' numbers, the shapes of the embeddings and of the output layer,
    and that the embeddings have a row for each id of the tokenizer.
    """
    try:
        config = read_config(folder / "config.json")
        found = read_shapes(folder)
        for copy in COPIES:
            if copy in found:
                found.setdefault(EMBEDDINGS, found[copy])
        if config.get("tie_word_embeddings", True):
            found.setdefault(OUTPUT, found.get(EMBEDDINGS))  # the embeddings are the output layer
        wanted = dict.fromkeys((EMBEDDINGS, OUTPUT), (config["vocab_size"], config["d_model"]))
        if problems := differences(wanted, {name: found[name] for name in wanted if found.get(name)}):
            raise UserError(f"the weights are not those that config.json describes ({problems}); fetch the model anew.")
        check_tokenizer(folder / "tokenizer.json", config["vocab_size"])
    except UserError as error:
        raise UserError(f"{title}: {error}") from None


def read_config(file: Path) -> dict:
    """The configuration of a T5. Raises UserError if it is another model's, or if a size that is needed is wrong."""
    try:
        config = dict(json.loads(file.read_bytes()))
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{file.name} is not the configuration of a model ({one_line(error)}).") from None
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise UserError(
            f"{file.name} names {f'the model type {kind!r}' if kind else 'no model type'}, which cannot be used here; "
            f"choose an encoder-decoder of the types {', '.join(MODEL_TYPES)}."
        )
    for key in ("vocab_size", "d_model"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise UserError(f"{file.name}: {key} is {config.get(key)!r}; it must be a whole number above 0.")
    return config


def read_shapes(folder: Path) -> Shapes:
    """The shapes of a model's tensors, which are in one file or in those that an index names."""
    files = [MODEL_WEIGHTS]
    if not (folder / MODEL_WEIGHTS).exists():
        try:
            files = sorted(set(json.loads((folder / MODEL_INDEX).read_bytes())["weight_map"].values()))
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
            raise UserError(
                f"{MODEL_WEIGHTS} is missing, and so is an index of its parts ({one_line(error)})."
            ) from None
    return {name: shape for file in files for name, shape in tensor_shapes(folder / file).items()}


def tensor_shapes(file: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file.

    Raises UserError if the file cannot be opened, is cut short, or has a tensor that is not of floating-point numbers.
    """
    from safetensors import SafetensorError, safe_open  # here, because every stage imports this module

    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            other = [name for name, values in slices.items() if values.get_dtype() not in FLOATS]
            shapes = {name: tuple(values.get_shape()) for name, values in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file.name} is damaged or not a safetensors file ({one_line(error)}).") from None
    if other:
        kind = slices[other[0]].get_dtype()
        raise UserError(f"{file.name}: {other[0]} is of type {kind}; it must be one of {', '.join(FLOATS)}.")
    return shapes


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


def check_tokenizer(file: Path, vocab_size: int) -> None:
    """Raise UserError if the file is not a tokenizer, or if it has ids that are not below `vocab_size`."""
    from tokenizers import Tokenizer

    try:
        ids = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{file.name} is not a tokenizer ({one_line(error)}); fetch the model anew.") from None
    if not ids or max(ids) >= vocab_size:
        raise UserError(
            f"{file.name} has {len(ids)} tokens with ids up to {max(ids, default=0)}, but config.json says vocab_size "
            f"{vocab_size}; the tokenizer is another model's."
        )
