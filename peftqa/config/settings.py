"""What every group of settings is made of, and the choices that several of them share. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A group of settings, immutable. Unknown keys are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


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
