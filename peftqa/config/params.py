"""The settings of params.yaml, typed and checked. Imports no torch: every stage reads it, light ones too.

No stage of dvc.yaml depends on this folder, because it decides no result: it has a schema and checks, no behaviour, and
no default but None, which means that the key is absent.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from peftqa.config.adapters import KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.errors import explain
from peftqa.config.settings import Baseline, Distinct, Dtype, Label, Positive, Schedule, Settings
from peftqa.errors import UserError, one_line

BASELINES = get_args(Baseline)
# Names that are taken: the baselines are variants already, and metrics/ has files of the other two names.
RESERVED_NAMES = (*BASELINES, "selected", "pairs")
FOLDS_BY_PROTOCOL = {"random": 1, "official": 10, "cross_validation": 10}

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Protocol = Literal["random", "official", "cross_validation"]
DIGEST = r"^[0-9a-f]{64}$"
REVISION = r"^([0-9a-f]{40}|sha256:[0-9a-f]{64})$"
NAME = r"^[A-Za-z0-9_]+$"
# What the patterns ask for, in words.
PATTERNS = {
    DIGEST: "must be 64 hexadecimal digits in lower case",
    REVISION: "must be a commit of the Hub (40 hexadecimal digits in lower case; no branch or tag, which can move), "
    "`sha256:` and the digest of a local folder's files, or null",
    NAME: "may have letters, digits and _ only",
}
Sha256 = Annotated[str, Field(pattern=DIGEST)]
AnyAdapter = Annotated[PromptTuning | KVPrefix | PEFTMethod, Field(discriminator="method")]
METHOD_BY_NAME = {"prompt_tuning": PromptTuning, "kv_prefix": KVPrefix, "peft": PEFTMethod}


class Data(Settings):
    name: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    test_ids_sha256: Sha256
    labels: Annotated[list[Label], Field(min_length=2), Distinct]


class Split(Settings):
    protocol: Protocol
    folds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Distinct]
    seed: Seed
    train: Fraction
    val: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _folds_exist(self) -> Split:
        known = FOLDS_BY_PROTOCOL[self.protocol]
        if max(self.folds) >= known:
            last = f"the folds 0 to {known - 1}" if known > 1 else "one fold, 0"
            raise ValueError(f"folds: there is no fold {max(self.folds)}; protocol {self.protocol} has {last}")
        return self

    @model_validator(mode="after")
    def _sum_to_one(self) -> Split:
        if not math.isclose(self.train + self.val + self.test, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + val + test must be 1, not {self.train + self.val + self.test:g}")
        return self


class ModelSettings(Settings):
    name: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(pattern=REVISION)] | None
    dtype: Dtype
    fast: bool
    attention: Literal["auto", "fused", "sdpa", "eager"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    threads: Annotated[int, Field(ge=1, le=1024)]


class Template(Settings):
    """How a question and its abstract become the text that the model reads."""

    text: str
    instruction: str
    max_tokens: Annotated[int, Field(ge=1, le=100_000)]
    truncation_side: Literal["left", "right"]

    @field_validator("text")
    @classmethod
    def _has_fields(cls, text: str) -> str:
        for field in ("{question}", "{context}", "{instruction}"):
            if text.count(field) != 1:
                raise ValueError(f"must contain {field} exactly once")
        # The parts around the abstract are tokenised by themselves, which white space makes the same as all at once.
        before, after = text.split("{context}")
        if (before and not before[-1].isspace()) or (after and not after[0].isspace()):
            raise ValueError("must have white space around {context}")
        return text

    @field_validator("instruction")
    @classmethod
    def _has_labels_field(cls, instruction: str) -> str:
        if "{labels}" not in instruction:
            raise ValueError("must contain {labels}, which becomes the list of labels in use")
        if set("{}") & set(instruction.replace("{labels}", "")):
            raise ValueError("may have no other braces than {labels}")
        return instruction


class TrainSettings(Settings):
    epochs: Positive
    batch_size: Annotated[int, Field(ge=1, le=10_000)]
    batches: Literal["similar_length", "random"]
    optimizer: Literal["adamw", "adafactor"]
    schedule: Schedule
    warmup_steps: Annotated[int, Field(ge=0, le=10**7)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    patience: Positive | None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), Distinct]


class Untrained(Settings):
    """A variant without training: the frozen model, asked in another way or with its answers corrected."""

    few_shot: Annotated[int, Field(ge=0, le=1000)] | None = None
    context: bool | None = None
    calibrated: bool | None = None
    seed: Seed | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _examples_described(self) -> Untrained:
        if self.few_shot and (self.seed is None or self.max_tokens is None):
            raise ValueError("few_shot examples need a seed to draw them and max_tokens, the most they may take")
        if not self.few_shot and (self.seed is not None or self.max_tokens is not None):
            raise ValueError("seed and max_tokens are of few_shot examples, of which there are none")
        return self


class Evaluate(Settings):
    batch_size: Annotated[int, Field(ge=1, le=10_000)]
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)]
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    untrained: dict[Annotated[str, Field(pattern=NAME)], Untrained]
    variants: Annotated[list[str], Field(min_length=1), Distinct]


class Tuned(Settings):
    """By how many trials (null: by hand, not counted), and under which protocol's validation questions, settings were
    chosen."""

    trials: Positive | None
    protocol: Protocol


class Compare(Settings):
    margin: Fraction
    resamples: Annotated[int, Field(ge=1, le=100_000)]
    confidence: Fraction
    power: Fraction
    seed: Seed


class Params(Settings):
    data: Data
    split: Split
    model: ModelSettings
    template: Template
    adapters: dict[Annotated[str, Field(pattern=NAME)], AnyAdapter]
    tuning: dict[str, Tuned]
    train: TrainSettings
    evaluate: Evaluate
    compare: Compare
    selected: str

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        for group, names in (("adapters", self.adapters), ("evaluate.untrained", self.evaluate.untrained)):
            for name in names:
                if name in RESERVED_NAMES:
                    raise ValueError(f"{group}.{name}: the name {name!r} is taken; choose another")
        both = set(self.adapters) & set(self.evaluate.untrained)
        if both:
            raise ValueError(f"evaluate.untrained.{min(both)}: there is an adapter of this name; choose another")
        for name in self.tuning:
            if name not in self.adapters:
                raise ValueError(f"tuning: no adapter {name!r}; there are: {', '.join(self.adapters)}")
        known = [*BASELINES, *self.evaluate.untrained, *self.adapters]
        for name in self.evaluate.variants:
            if name not in known:
                raise ValueError(f"evaluate.variants: no variant {name!r}; known: {', '.join(known)}")
        if self.selected not in self.evaluate.variants:
            raise ValueError(
                f"selected: {self.selected!r} is not in evaluate.variants ({', '.join(self.evaluate.variants)})"
            )
        return self


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params.yaml. Raises UserError with every offending key's path, its value and what is allowed."""
    return check_params(read_yaml(path), str(path))


def read_yaml(path: Path) -> object:
    """What a file holds as YAML 1.2, in which an unquoted `yes` is a string: `dvc exp run -S` drops the quotes of
    labels, and a YAML 1.1 reader (PyYAML) would then see booleans. Raises UserError where it is missing or no YAML."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the root of the repository.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {one_line(error)}") from None


def check_params(values: object, source: str = "params.yaml") -> Params:
    """The checked form of a plain dictionary of parameters. Raises UserError; `source` names it in the message."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = explain(
            error,
            allowed=lambda path: _allowed_keys(path, values),
            location=lambda path: _in_file(path, values),
            patterns=PATTERNS,
            single="{where} must be a list: -S '{where}=[{text}]'",
        )
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _in_file(path: list[str], values: dict) -> list[str]:
    """A path without the method that pydantic names inside an adapter's path, if the file has no such key."""
    named = path[:1] == ["adapters"] and len(path) > 2 and path[2] not in _adapter(path[1], values)
    return path[:2] + path[3:] if named else path


def _adapter(name: str, values: dict) -> dict:
    return {str(key): value for key, value in values["adapters"].items()}[name]


def _allowed_keys(path: list[str], values: dict) -> list[str]:
    """The keys that the group at `path` may have."""
    if not path:
        return list(Params.model_fields)
    if path[0] == "adapters":
        method = _adapter(path[1], values).get("method")
        return list(METHOD_BY_NAME[method].model_fields)
    if path[0] == "tuning":
        return list(Tuned.model_fields)
    if path[:2] == ["evaluate", "untrained"]:
        return list(Untrained.model_fields)
    return list(Params.model_fields[path[0]].annotation.model_fields)
