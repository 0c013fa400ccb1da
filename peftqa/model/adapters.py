"""Make adapters from their settings, save them into folders, and load them after checks.

An adapter's folder may come from anyone. So `peft_config_from` accepts plain values of known fields only, and nothing
that names code, a file or an address. Importing this module does not import torch.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from pydantic import TypeAdapter, ValidationError

from peftqa.config.adapters import AdapterSettings, KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.errors import shown
from peftqa.errors import UserError, one_line
from peftqa.model.checkpoint import differences, tensor_shapes
from peftqa.model.prompts import join_labels

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# The tests save and load adapters of these methods. An adapter of another method is loaded only if params.yaml has it.
TESTED = ("PROMPT_TUNING", "KV_PREFIX", "LORA", "IA3", "P_TUNING", "PREFIX_TUNING", "VERA", "OFT")
# Methods that need a callback, task ids, another model, a file or the network.
UNUSABLE = (
    "ADALORA", "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "SHADOW", "SHIRA", "XLORA",
)  # fmt: skip
# The words that a text field may have, besides its default. Other text could name code, a file or an address.
WORDS = {
    "bias": ("none",),
    "encoder_reparameterization_type": ("MLP", "LSTM"),
    "init_lora_weights": ("gaussian",),
    "init_weights": ("zero", "gaussian", "orthogonal"),
    "target": ("encoder", "decoder", "cross"),
}
LISTS_OF_WORDS = ("target", "target_modules", "feedforward_modules", "exclude_modules")
# Fields of a saved adapter about its training or its origin. They do not change an answer, and are not used.
UNUSED_IN_FOLDER = (
    "base_model_name_or_path", "revision", "peft_version", "inference_mode", "prompt_tuning_init",
    "prompt_tuning_init_text", "tokenizer_name_or_path", "init", "init_scale", "init_token_ids", "reparametrization",
)  # fmt: skip
LARGEST = {"seed": 2**32 - 1, "prng_key": 2**32 - 1, "num_virtual_tokens": 1000}  # key: how a field's name ends


def peft_config_from(values: Mapping, allowed: Collection[str] | None = None, saved: bool = False) -> PeftConfig:
    """The PEFT configuration that `values` describes, checked before PEFT sees it.

    values: peft_type and fields of that method's configuration class, as in `config:` of params.yaml or, with `saved`,
        as in adapter_config.json, which has every field.
    allowed: the peft types that may be used; None for all that work here.
    Raises UserError for a method or field that is unknown or cannot be used, and for a value that is not of the field's
    type or not within bounds. A field that could name code, a file, an address or a regular expression must have its
    default.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    import peftqa.kv_prefix  # noqa: F401  registers KV_PREFIX with PEFT

    usable = sorted(CLASSES.keys() - set(UNUSABLE)) if allowed is None else sorted(allowed)
    kind = values.get("peft_type")
    if not isinstance(kind, str) or kind not in usable or kind not in CLASSES:
        raise UserError(f"peft_type {kind!r} cannot be used here; these can: {', '.join(usable)}")
    cls = CLASSES[kind]
    hints, defaults = get_type_hints(cls), json.loads(json.dumps(cls().to_dict(), default=list))
    known = {field.name for field in dataclasses.fields(cls)}
    kept = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{name!r} is not a field of {kind}")
        own = saved and (name in UNUSED_IN_FOLDER or (name, value) == ("task_type", "SEQ_2_SEQ_LM"))
        if not own and name != "peft_type" and value != defaults.get(name):
            kept[name] = _checked(name, value, hints[name])
    try:
        return cls(task_type="SEQ_2_SEQ_LM", inference_mode=saved, **kept)
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind}: {one_line(error)}") from None


def _checked(name: str, value: object, hint: object) -> object:
    """The value of one field. Raises UserError if it is not plain, not of the field's type or not within bounds."""
    items = value if isinstance(value, list) else [value]
    words = [item for item in items if isinstance(item, str)]
    if isinstance(value, list) and words and name in LISTS_OF_WORDS:
        fine = all(word.replace(".", "").replace("_", "").isalnum() for word in words) and len(words) == len(items)
        fine = fine and (name not in WORDS or set(words) <= set(WORDS[name]))
    elif words:
        fine = isinstance(value, str) and value in WORDS.get(name, ())
    else:
        largest = next((LARGEST[end] for end in LARGEST if name.endswith(end)), 10_000)
        fine = all(item is None or (isinstance(item, int | float) and 0 <= item <= largest) for item in items)
    if not fine or len(items) > 1000:
        raise UserError(f"{name}: {shown(value)} is not allowed")
    try:
        # Words are already checked. PEFT's types for some of them are enumerations, which a strict check would demand.
        return value if words else TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(f"{name}: {shown(value)} is not allowed: {error.errors()[0]['msg']}") from None


def peft_config(
    adapter: AdapterSettings, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: list[str]
) -> PeftConfig:
    """The PEFT configuration of an adapter of params.yaml for this encoder-decoder model.

    {labels} in an init_text becomes the labels in use. Raises UserError if the `config:` of `method: peft` is refused.
    """
    text = (getattr(adapter, "init_text", None) or "").replace("{labels}", join_labels(labels))
    match adapter:
        case PromptTuning():
            from peft import PromptTuningConfig

            named = {"prompt_tuning_init_text": text, "tokenizer_name_or_path": tokenizer.name_or_path}
            return PromptTuningConfig(
                task_type="SEQ_2_SEQ_LM",
                num_virtual_tokens=adapter.num_virtual_tokens,
                # PEFT's default for an encoder-decoder, 2, makes a second set of tokens, counted but never read.
                num_transformer_submodules=1,
                prompt_tuning_init={"text": "TEXT", "vocabulary": "SAMPLE_VOCAB", "random": "RANDOM"}[adapter.init],
                **(named if adapter.init == "text" else {}),
            )
        case KVPrefix():
            from peftqa.kv_prefix import KVPrefixConfig

            others = {"method", "learning_rate", "schedule", "init_text"}
            settings = adapter.model_dump(exclude=others, exclude_none=True)
            if adapter.init == "text":
                settings["init_token_ids"] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return KVPrefixConfig(task_type="SEQ_2_SEQ_LM", **settings)
        case PEFTMethod():
            from peft import PromptLearningConfig

            config = peft_config_from(adapter.config)
            if isinstance(config, PromptLearningConfig):
                if adapter.config["peft_type"] == "PREFIX_TUNING":
                    # PEFT would take d_model as the width of T5's keys, but the two can differ (peft issue 385).
                    config.token_dim = config.token_dim or backbone.config.num_heads * backbone.config.d_kv
                else:  # PEFT would make a second set of virtual tokens, which T5 never reads
                    config.num_transformer_submodules = config.num_transformer_submodules or 1
            return config


def add_adapter(
    backbone: PreTrainedModel, adapter: AdapterSettings, tokenizer: PreTrainedTokenizerBase, labels: list[str]
) -> PeftModel:
    """A new adapter on a frozen backbone, ready to train. On a bfloat16 backbone too, its weights are float32.

    Seed torch's global generator first. Raises UserError if PEFT cannot put the adapter on this model.
    """
    from peft import get_peft_model

    config = peft_config(adapter, backbone, tokenizer, labels)
    try:
        return get_peft_model(backbone, config)
    except Exception as error:  # PEFT raises errors of many kinds
        if not isinstance(adapter, PEFTMethod):
            raise
        raise UserError(
            f"PEFT cannot make {adapter.config['peft_type']} with this configuration ({one_line(error)}); change the "
            "adapter's config in params.yaml."
        ) from None


def save_adapter(model: PeftModel, folder: Path, model_name: str, revision: str | None) -> None:
    """Save the adapter in PEFT's format, with its base model's name and revision, and without a model card."""
    config = model.active_peft_config
    config.base_model_name_or_path, config.revision = model_name, revision
    if getattr(config, "tokenizer_name_or_path", None):
        config.tokenizer_name_or_path = model_name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def peft_type(adapter: AdapterSettings) -> str:
    """The name that an adapter's method has in PEFT."""
    return adapter.config["peft_type"] if isinstance(adapter, PEFTMethod) else adapter.method.upper()


def load_adapter(backbone: PreTrainedModel, folder: Path, allowed: Collection[str] = TESTED) -> PeftModel:
    """A saved adapter on its backbone, in evaluation mode.

    allowed: the peft types that the folder may have. Raises UserError if `peft_config_from` refuses its configuration,
    or if its tensors are not those of its configuration. PEFT would keep random numbers for what is missing.
    """
    from peft import PeftModel, get_peft_model_state_dict

    try:
        found = tensor_shapes(folder / ADAPTER_WEIGHTS)
        config = peft_config_from(_read_json(folder / ADAPTER_CONFIG), allowed, saved=True)
        with warnings.catch_warnings(action="ignore"):  # they are about what is refused below
            model = PeftModel.from_pretrained(backbone, folder, config=config).eval()
        # Without save_embedding_layers=False, PEFT would ask the Hub for the model.
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        if problems := differences({name: tuple(tensor.shape) for name, tensor in tensors.items()}, found):
            raise UserError(f"{ADAPTER_WEIGHTS} does not fit {ADAPTER_CONFIG} ({problems})")
        if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise UserError(f"{broken[0]} in {ADAPTER_WEIGHTS} holds NaN or infinite numbers")
        return model
    except Exception as error:  # PEFT raises errors of many kinds
        raise UserError(
            f"{folder}: the adapter cannot be loaded: {one_line(error).rstrip('.')}; fetch it again, or train it anew."
        ) from None


def _read_json(file: Path) -> dict:
    content = file.read_bytes()
    try:
        return dict(json.loads(content))
    except (RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{file.name} is not an object of JSON ({one_line(error)})") from None


def adapter_size(folder: Path, trained: int, backbone: PreTrainedModel) -> dict[str, int | float]:
    """A saved adapter's size in parameters, percent and bytes. trained: the number of trained parameters."""
    size = (folder / ADAPTER_WEIGHTS).stat().st_size
    percent = 100 * trained / (trained + backbone.num_parameters())
    return {"trainable_params": trained, "trainable_percent": percent, "adapter_bytes": size}
