"""All adapter methods: their settings in params.yaml, their PEFT configuration, and a description in a few words.

A new method is a new class here and its entry in `METHODS`. Importing this module imports neither torch nor PEFT, so
that params.yaml can be checked, and the report written, without them.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from peftqa.config.settings import Distinct, Positive, Schedule, Settings
from peftqa.errors import UserError, one_line
from peftqa.model.checkpoint import differences, tensor_shapes

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Target = Literal["encoder", "decoder", "cross"]  # kinds of attention
TokenCount = Annotated[int, Field(ge=1, le=1000)]  # far above what has been tried, far below what fills a memory


class AdapterSettings(Settings):
    """Settings that every method has. Good learning rates differ between methods by orders of magnitude."""

    method: str  # a Literal in each class
    learning_rate: Annotated[float, Field(gt=0)]
    # The learning rate's schedule; None means train.schedule. Methods differ in which one suits them.
    schedule: Schedule | None = None

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        """The PEFT configuration for this encoder-decoder model."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it is, in a few words."""
        raise NotImplementedError


class VirtualTokens(AdapterSettings):
    """Settings of the methods whose virtual tokens may start as a text, in which {labels} stands for the labels."""

    num_virtual_tokens: TokenCount
    init: str
    init_text: str | None = None

    @model_validator(mode="after")
    def _text_given(self) -> Self:
        if self.init == "text" and not self.init_text:
            raise ValueError("init: text needs a non-empty init_text")
        return self


class PromptTuning(VirtualTokens):
    """Lester et al. 2021, arXiv 2104.08691."""

    method: Literal["prompt_tuning"]
    init: Literal["text", "vocabulary", "random"]

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        from peft import PromptTuningConfig

        text = {"prompt_tuning_init_text": self.init_text, "tokenizer_name_or_path": tokenizer.name_or_path}
        return PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            # PEFT's default for an encoder-decoder, 2, makes a second set of virtual tokens, counted but never used.
            num_transformer_submodules=1,
            prompt_tuning_init={"text": "TEXT", "vocabulary": "SAMPLE_VOCAB", "random": "RANDOM"}[self.init],
            **(text if self.init == "text" else {}),
        )

    def describe(self) -> str:
        return f"prompt tuning, {self.num_virtual_tokens} tokens"


class KVPrefix(VirtualTokens):
    """Li and Liang 2021, arXiv 2101.00190: keys and values in front of every attention module (kv_prefix.py)."""

    method: Literal["kv_prefix"]
    init: Literal["random", "text"]
    target: Annotated[list[Target], Field(min_length=1), Distinct] = ["encoder", "decoder", "cross"]
    init_scale: Annotated[float, Field(ge=0)] = 0.02
    reparametrization: Positive | None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.reparametrization is not None and self.reparametrization < self.num_virtual_tokens:
            raise ValueError("reparametrization: the MLP must be at least as wide as num_virtual_tokens")
        return self

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        from peftqa.kv_prefix import KVPrefixConfig

        as_text = self.init == "text"
        return KVPrefixConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            target=self.target,
            init=self.init,
            init_scale=self.init_scale,
            init_token_ids=tokenizer(self.init_text, add_special_tokens=False)["input_ids"] if as_text else None,
            reparametrization=self.reparametrization,
        )

    def describe(self) -> str:
        return f"prefix tuning, {self.num_virtual_tokens} tokens ({', '.join(self.target)})"


class PEFTPrefixTuning(AdapterSettings):
    """PEFT's own prefix tuning; on T5 it reaches decoder self-attention only (docs/questions.md)."""

    method: Literal["prefix_tuning"]
    num_virtual_tokens: TokenCount

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            # PEFT would take d_model, which need not be the width of T5's keys (peft issue 385).
            token_dim=backbone.config.num_heads * backbone.config.d_kv,
        )

    def describe(self) -> str:
        return f"PEFT's prefix tuning, {self.num_virtual_tokens} tokens"


class LoRA(AdapterSettings):
    """Hu et al. 2021, arXiv 2106.09685."""

    method: Literal["lora"]
    r: Positive
    alpha: Positive
    target_modules: list[str] = Field(default=["q", "v"], min_length=1)

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(task_type="SEQ_2_SEQ_LM", r=self.r, lora_alpha=self.alpha, target_modules=self.target_modules)

    def describe(self) -> str:
        return f"LoRA of rank {self.r}"


class IA3(AdapterSettings):
    """Liu et al. 2022, arXiv 2205.05638."""

    method: Literal["ia3"]

    def peft_config(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PeftConfig:
        from peft import IA3Config

        return IA3Config(task_type="SEQ_2_SEQ_LM")

    def describe(self) -> str:
        return "IA3"


METHODS = (PromptTuning, KVPrefix, PEFTPrefixTuning, LoRA, IA3)


# ---------------------------------------------------------------------------------------------------------------------
# On a model, and in a folder

ADAPTER_WEIGHTS = "adapter_model.safetensors"
REMAKE = "run `dvc repro` to train it anew."
# Fields that differ after saving: PEFT sets inference_mode, save_adapter the tokenizer's name, and a prefix that was
# trained through an MLP is saved without it.
CHANGED_WHEN_SAVED = {"inference_mode", "reparametrization", "tokenizer_name_or_path"}


def add_adapter(backbone: PreTrainedModel, adapter: AdapterSettings, tokenizer: PreTrainedTokenizerBase) -> PeftModel:
    """A new adapter on a frozen backbone, ready to train; its weights are float32 under a bfloat16 backbone.

    Random initialisations draw from torch's global generator: seed it before.
    """
    from peft import get_peft_model

    return get_peft_model(backbone, adapter.peft_config(backbone, tokenizer))


def save_adapter(model: PeftModel, folder: Path, model_name: str, revision: str | None) -> None:
    """Save the adapter in PEFT's format, with the name and revision of its base model as params.yaml has them.

    PEFT's model card is left out: it is a form that nobody filled in.
    """
    config = model.active_peft_config
    config.base_model_name_or_path, config.revision = model_name, revision
    if getattr(config, "tokenizer_name_or_path", None):
        config.tokenizer_name_or_path = model_name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def load_adapter(backbone: PreTrainedModel, folder: Path, expected: PeftConfig | None = None) -> PeftModel:
    """A saved adapter on its backbone, in evaluation mode.

    expected: the configuration that it was trained with, where that is known. Raises UserError where the folder is of
    another one, and where its tensors are not those of its own configuration: PEFT would leave out what does not fit
    and keep random numbers where something is missing.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict

    import peftqa.kv_prefix  # noqa: F401  registers KV_PREFIX with PEFT

    found = adapter_shapes(folder)
    try:
        with warnings.catch_warnings(action="ignore"):  # they are of what is refused here
            config = PeftConfig.from_pretrained(folder)
            if expected is not None:
                check_config(config, expected)
            model = PeftModel.from_pretrained(backbone, folder, config=config).eval()
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # of a folder that is not its own, PEFT raises whatever it stumbles over
        raise UserError(f"{folder}: this is no adapter of this model ({one_line(error)}); {REMAKE}") from None
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)  # else PEFT asks the Hub for the model
    if problems := differences({name: tuple(tensor.shape) for name, tensor in tensors.items()}, found):
        raise UserError(f"{folder}: {ADAPTER_WEIGHTS} does not fit adapter_config.json ({problems}); {REMAKE}")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UserError(f"{folder}: {broken[0]} in {ADAPTER_WEIGHTS} holds NaN or infinite numbers; {REMAKE}")
    return model


def adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors, as saved. Raises UserError where its file cannot be opened."""
    try:
        return tensor_shapes(folder / ADAPTER_WEIGHTS)
    except UserError as error:
        raise UserError(f"{folder}: {error.args[0].rstrip('.')}; {REMAKE}") from None


def check_config(config: PeftConfig, expected: PeftConfig) -> None:
    """Raise UserError where a saved configuration is of another method, or differs from a value that is expected."""
    if type(config) is not type(expected):
        names = type(config).__name__, type(expected).__name__
        raise UserError(f"adapter_config.json is a {names[0]}, but params.yaml makes it a {names[1]}; {REMAKE}")
    for field in dataclasses.fields(expected):
        saved, wanted = getattr(config, field.name), getattr(expected, field.name)
        if wanted is not None and saved != wanted and field.name not in CHANGED_WHEN_SAVED:
            raise UserError(f"{field.name} is {saved}, but params.yaml makes it {wanted}; {REMAKE}")


def adapter_size(folder: Path, backbone: PreTrainedModel) -> dict[str, int | float]:
    """`trainable_params`, `trainable_percent` (of backbone and adapter together), `adapter_bytes`, as saved.

    A network that only training needs, as that of a reparametrized prefix, is not saved and does not count.
    """
    count = sum(map(math.prod, adapter_shapes(folder).values()))
    total = count + backbone.num_parameters()
    size = (folder / ADAPTER_WEIGHTS).stat().st_size
    return {"trainable_params": count, "trainable_percent": 100 * count / total, "adapter_bytes": size}
