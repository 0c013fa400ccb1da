"""Whether a folder holds a T5 that fits its own configuration, read from headers in milliseconds. Imports no torch.

transformers fills a tensor that is missing with random numbers, ties an output layer that is missing to the embeddings,
and makes an empty tokenizer where there is none: all of them would answer, and be wrong in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from peftqa.errors import UserError, one_line

# Model types that can be used here, and whether every layer has a position bias of its own.
BIAS_IN_EVERY_LAYER = {"t5": False, "mt5": False, "umt5": True}
SIZES = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers",
    "relative_attention_num_buckets",
)  # fmt: skip
MODEL_WEIGHTS, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
EMBEDDINGS, OUTPUT = "shared.weight", "lm_head.weight"
# The embeddings again, and a tensor that no T5 reads: published checkpoints have them.
COPIES = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
UNREAD = COPIES | {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"}

Shapes = dict[str, tuple[int, ...]]


def check_checkpoint(folder: Path, title: str) -> None:
    """Raise UserError, which begins with `title`, unless `folder` has a T5 that can be computed with.

    That is: a configuration of a known model type; safetensors that can be opened and hold the tensors, in the shapes,
    that the configuration asks for, and no others; a tokenizer whose ids the embeddings have rows for.
    """
    try:
        config = read_config(folder / "config.json")
        found, wanted = read_shapes(folder), expected_shapes(config)
        for copy in COPIES & found.keys():  # some checkpoints have the embeddings under these names alone
            found.setdefault(EMBEDDINGS, found[copy])
        if OUTPUT not in found and config.get("tie_word_embeddings", True):
            del wanted[OUTPUT]  # the embeddings are the output layer
        if problems := differences(wanted, found, ignored=UNREAD):
            raise UserError(f"the weights are not those that config.json describes ({problems}); fetch the model anew.")
        check_tokenizer(folder / "tokenizer.json", config["vocab_size"])
    except UserError as error:
        raise UserError(f"{title}: {error}") from None


def read_config(file: Path) -> dict:
    """A T5's configuration, with the defaults of what it may leave out."""
    try:
        config = dict(json.loads(file.read_bytes()))
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{file.name} is no configuration of a model ({one_line(error)}).") from None
    kind = config.get("model_type")
    if kind not in BIAS_IN_EVERY_LAYER:
        raise UserError(
            f"{file.name} names {f'the model type {kind!r}' if kind else 'no model type'}, which cannot be used here; "
            f"choose an encoder-decoder of the types {', '.join(BIAS_IN_EVERY_LAYER)}."
        )
    defaults = {
        "num_decoder_layers": config.get("num_layers"),
        "feed_forward_proj": "relu" if kind == "t5" else "gated-gelu",
        "relative_attention_num_buckets": 32,
    }
    config = defaults | {key: value for key, value in config.items() if value is not None}
    for key in SIZES:
        if type(config.get(key)) is not int or not 1 <= config[key] < 10**6:
            raise UserError(f"{file.name}: {key} is {config.get(key)!r}; it must be a whole number from 1 to 999999.")
    return config


def read_shapes(folder: Path) -> Shapes:
    """The shapes of a model's tensors, which lie in one file or in those that an index names."""
    if (folder / MODEL_WEIGHTS).exists():
        return tensor_shapes(folder / MODEL_WEIGHTS)
    try:
        places = dict(json.loads((folder / MODEL_INDEX).read_bytes())["weight_map"])
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"there is neither {MODEL_WEIGHTS} nor an index of its parts ({one_line(error)}).") from None
    shapes = {file: tensor_shapes(folder / file) for file in set(places.values())}
    return {name: shapes[file][name] for name, file in places.items() if name in shapes[file]}


def expected_shapes(config: dict) -> Shapes:
    """The tensors of a T5, mT5 or UMT5 with this configuration, those that are the embeddings again left out.

    Written out here, because asking transformers would import torch, which takes every stage seconds.
    """
    vocabulary, width, d_ff, heads = (config[key] for key in ("vocab_size", "d_model", "d_ff", "num_heads"))
    inner = heads * config["d_kv"]
    attention = {"q": (inner, width), "k": (inner, width), "v": (inner, width), "o": (width, inner)}
    gated = str(config["feed_forward_proj"]).startswith("gated-")
    forward = dict.fromkeys(("wi_0", "wi_1") if gated else ("wi",), (d_ff, width)) | {"wo": (width, d_ff)}
    shapes: Shapes = {EMBEDDINGS: (vocabulary, width), OUTPUT: (vocabulary, width)}
    for stack, depth in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        parts = {"SelfAttention": attention, "EncDecAttention": attention, "DenseReluDense": forward}
        if stack == "encoder":
            del parts["EncDecAttention"]
        for block in range(depth):
            for place, (module, matrices) in enumerate(parts.items()):
                path = f"{stack}.block.{block}.layer.{place}"
                shapes |= {f"{path}.{module}.{name}.weight": shape for name, shape in matrices.items()}
                shapes[f"{path}.layer_norm.weight"] = (width,)
            if block == 0 or BIAS_IN_EVERY_LAYER[config["model_type"]]:
                path = f"{stack}.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight"
                shapes[path] = (config["relative_attention_num_buckets"], heads)
        shapes[f"{stack}.final_layer_norm.weight"] = (width,)
    return shapes


def tensor_shapes(file: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file. Raises UserError where it cannot be opened, is cut short,
    or holds something else than floating-point numbers."""
    from safetensors import SafetensorError, safe_open  # here, because every stage imports this module

    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            other = [name for name, values in slices.items() if values.get_dtype() not in FLOATS]
            shapes = {name: tuple(values.get_shape()) for name, values in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file.name} is damaged or no safetensors file ({one_line(error)}).") from None
    if other:
        kind = slices[other[0]].get_dtype()
        raise UserError(f"{file.name}: {other[0]} is of type {kind}; it must be one of {', '.join(FLOATS)}.")
    return shapes


def differences(wanted: Mapping, found: Mapping, ignored: Iterable[str] = ()) -> str:
    """How tensors found differ from those wanted, in words; "" where they do not. Of many, three a kind are named."""

    shared = sorted(wanted.keys() & found.keys())
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "not of this model": sorted(found.keys() - wanted.keys() - set(ignored)),
        "of wrong shape": [f"{n} {list(found[n])} for {list(wanted[n])}" for n in shared if found[n] != wanted[n]],
    }
    return "; ".join(
        f"{kind}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    )


def check_tokenizer(file: Path, vocab_size: int) -> None:
    """Raise UserError unless the file is a tokenizer whose ids are all below `vocab_size`."""
    from tokenizers import Tokenizer

    try:
        ids = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{file.name} is no tokenizer ({one_line(error)}); fetch the model anew.") from None
    if not ids or max(ids) >= vocab_size:
        raise UserError(
            f"{file.name} has {len(ids)} tokens with ids up to {max(ids, default=0)}, but config.json says vocab_size "
            f"{vocab_size}; the tokenizer is another model's."
        )
