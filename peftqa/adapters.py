"""From an entry of params.yaml's `adapters` to a PEFT model, and to a folder that PEFT users can load elsewhere."""

from __future__ import annotations

import math
from pathlib import Path

from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peftqa import params
from peftqa.kv_prefix import KVPrefixConfig

TASK = TaskType.SEQ_2_SEQ_LM


def peft_config(adapter: params.Adapter, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
    """The PEFT configuration of an adapter for this encoder-decoder model."""
    match adapter:
        case params.PromptTuning():
            init = {"text": "TEXT", "vocabulary": "SAMPLE_VOCAB", "random": "RANDOM"}[adapter.init]
            text = {"prompt_tuning_init_text": adapter.init_text, "tokenizer_name_or_path": tokenizer.name_or_path}
            return PromptTuningConfig(
                task_type=TASK,
                num_virtual_tokens=adapter.num_virtual_tokens,
                # PEFT's default for an encoder-decoder, 2, makes and counts as many rows again that nothing reads.
                num_transformer_submodules=1,
                prompt_tuning_init=init,
                **(text if adapter.init == "text" else {}),
            )
        case params.KVPrefix():
            ids = (
                tokenizer(adapter.init_text, add_special_tokens=False)["input_ids"] if adapter.init == "text" else None
            )
            return KVPrefixConfig(
                task_type=TASK,
                num_virtual_tokens=adapter.num_virtual_tokens,
                target=adapter.target,
                init=adapter.init,
                init_scale=adapter.init_scale,
                init_token_ids=ids,
                reparametrization=adapter.reparametrization,
            )
        case params.StockPrefixTuning():
            return PrefixTuningConfig(
                task_type=TASK,
                num_virtual_tokens=adapter.num_virtual_tokens,
                # PEFT would take d_model, which need not be the width of T5's keys (peft issue 385).
                token_dim=backbone.config.num_heads * backbone.config.d_kv,
            )
        case params.LoRA():
            return LoraConfig(
                task_type=TASK, r=adapter.r, lora_alpha=adapter.alpha, target_modules=adapter.target_modules
            )
        case params.IA3():
            return IA3Config(task_type=TASK)
    raise TypeError(f"no PEFT configuration for {type(adapter).__name__}")


def add_adapter(backbone: PreTrainedModel, adapter: params.Adapter, tokenizer: PreTrainedTokenizerBase) -> PeftModel:
    """A new adapter on a frozen backbone, ready to train; its weights are float32 under a bfloat16 backbone.

    Random initialisations draw from torch's global generator: seed it before.
    """
    return get_peft_model(backbone, peft_config(adapter, backbone, tokenizer))


def save_adapter(model: PeftModel, folder: Path, model_name: str, revision: str | None) -> None:
    """Save the adapter in PEFT's format, naming the model it belongs to as others will find it.

    Without PEFT's model card, an empty form.
    """
    config = model.active_peft_config
    config.base_model_name_or_path, config.revision = model_name, revision
    if getattr(config, "tokenizer_name_or_path", None):
        config.tokenizer_name_or_path = model_name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def load_adapters(backbone: PreTrainedModel, folders: dict[str, Path]) -> PeftModel:
    """Saved adapters under their names on one backbone; `set_adapter(name)` chooses the one in use."""
    (first, folder), *rest = folders.items()
    model = PeftModel.from_pretrained(backbone, folder, adapter_name=first)
    for name, folder in rest:
        model.load_adapter(folder, name)
    return model.eval()


def adapter_size(folder: Path, backbone: PreTrainedModel) -> dict[str, int | float]:
    """`trainable_params`, `trainable_percent` (of backbone and adapter together), `adapter_bytes`, as saved."""
    file = folder / "adapter_model.safetensors"
    with safe_open(file, framework="numpy") as tensors:
        count = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    total = count + backbone.num_parameters()
    return {"trainable_params": count, "trainable_percent": 100 * count / total, "adapter_bytes": file.stat().st_size}
