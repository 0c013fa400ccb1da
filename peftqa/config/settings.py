"""What every group of settings is made of, and the choices that several of them share. Imports no torch."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A group of settings, immutable. Unknown keys are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: object) -> object:
        for key in map(str, values if isinstance(values, dict) else ()):
            if key not in cls.model_fields:
                close = get_close_matches(key, cls.model_fields, n=1)
                hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "unknown key; {hint}", {"key": key, "hint": hint})
        return values


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("nothing may be listed twice")
    return values


Distinct = AfterValidator(_distinct)
Positive = Annotated[int, Field(ge=1, le=100_000)]
Label = Literal["yes", "no", "maybe"]
Baseline = Literal["majority", "tfidf"]  # variants without a language model
Dtype = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["constant", "linear", "cosine"]
