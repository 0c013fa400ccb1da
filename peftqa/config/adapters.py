"""What an entry of `adapters:` in params.yaml may contain: a class per method. Schema and checks only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from peftqa.config.settings import Distinct, Positive, Schedule, Settings

Target = Literal["encoder", "decoder", "cross"]  # kinds of attention
TokenCount = Annotated[int, Field(ge=1, le=1000)]  # far above what has been tried, far below what fills a memory
# What the project itself gives to every PEFT configuration.
SET_BY_PROJECT = ("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version")
PLAIN = str | int | float | None  # bool is an int
OWN_METHODS = {"PROMPT_TUNING": "prompt_tuning", "KV_PREFIX": "kv_prefix"}


class AdapterSettings(Settings):
    """Settings that every method has. Good learning rates differ between methods by orders of magnitude."""

    method: str  # a Literal in each class
    learning_rate: Annotated[float, Field(gt=0)]
    # The learning rate's schedule; None means train.schedule. Methods differ in which one suits them.
    schedule: Schedule | None = None


class VirtualTokens(AdapterSettings):
    """Settings of the methods whose virtual tokens may start as a text, in which {labels} becomes the labels in use."""

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


class KVPrefix(VirtualTokens):
    """Li and Liang 2021, arXiv 2101.00190: keys and values in front of every attention module (kv_prefix.py)."""

    method: Literal["kv_prefix"]
    init: Literal["random", "text"]
    init_scale: Annotated[float, Field(ge=0)] | None = None  # needed for init: random
    target: Annotated[list[Target], Field(min_length=1), Distinct]
    reparametrization: Positive | None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.init == "random" and self.init_scale is None:
            raise ValueError("init: random needs init_scale, the standard deviation of its random numbers (0.02)")
        if self.reparametrization is not None and self.reparametrization < self.num_virtual_tokens:
            raise ValueError("reparametrization: the MLP must be at least as wide as num_virtual_tokens")
        return self


class PEFTMethod(AdapterSettings):
    """Any other method of PEFT that needs only a forward pass and a loss. `config` is its configuration.

    The keys beside peft_type are checked against PEFT's own configuration class when the adapter is made
    (peftqa/model/adapters.py), because importing PEFT takes seconds.
    """

    method: Literal["peft"]
    config: dict[str, object]

    @field_validator("config")
    @classmethod
    def _is_the_users(cls, config: dict) -> dict:
        kind = config.get("peft_type")
        if not isinstance(kind, str):
            raise ValueError("peft_type is missing: the method's name in PEFT, such as LORA")
        if kind in OWN_METHODS:
            raise ValueError(f"peft_type {kind} has settings of its own here: use method: {OWN_METHODS[kind]}")
        for name, value in config.items():
            if name in SET_BY_PROJECT:
                raise ValueError(f"{name} is set by this project; leave it out")
            if not all(isinstance(item, PLAIN) for item in (value if isinstance(value, list) else [value])):
                raise ValueError(f"{name}: must be a number, a word, true, false, or a list of numbers or words")
        return config
