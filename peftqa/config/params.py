"""The schema of params.yaml, and its checks. It imports no torch, because light stages read it too.

Stages of dvc.yaml do not depend on this folder, because it cannot change a result: it has only a schema and checks, and
its only default is None, which means that the key is absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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
    REVISION: "must be a commit of the Hub (40 hexadecimal digits in lower case; a branch or tag can move), "
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
            raise ValueError(f"folds: fold {max(self.folds)} does not exist; protocol {self.protocol} has {last}")
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
        # White space makes the tokens of the parts, one by one, those of the whole.
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
            raise ValueError("may have braces only in {labels}")
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
            raise ValueError("seed and max_tokens are allowed only with few_shot examples")
        return self


class Evaluate(Settings):
    batch_size: Annotated[int, Field(ge=1, le=10_000)]
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)]
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    untrained: dict[Annotated[str, Field(pattern=NAME)], Untrained]
    variants: Annotated[list[str], Field(min_length=1), Distinct]


class Tuned(Settings):
    """How settings were chosen: by how many trials (null: by hand), on the validation questions of which protocol."""

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
        untrained = self.evaluate.untrained
        for group, names in (("adapters", self.adapters), ("evaluate.untrained", untrained)):
            for name in names:
                if name in RESERVED_NAMES:
                    raise ValueError(f"{group}.{name}: the name is taken; choose another")
        if both := self.adapters.keys() & untrained:
            raise ValueError(f"evaluate.untrained.{min(both)}: an adapter has this name already; choose another")
        if unknown := [name for name in self.tuning if name not in self.adapters]:
            known = ", ".join(self.adapters)
            raise ValueError(f"tuning: {unknown[0]!r} is not an adapter; there are: {known}")
        variants = [*BASELINES, *untrained, *self.adapters]
        if unknown := [name for name in self.evaluate.variants if name not in variants]:
            raise ValueError(f"evaluate.variants: {unknown[0]!r} is not a variant; there are: {', '.join(variants)}")
        if self.selected not in self.evaluate.variants:
            known = ", ".join(self.evaluate.variants)
            raise ValueError(f"selected: {self.selected!r} is not in evaluate.variants ({known})")
        return self


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params.yaml. Raises UserError with every wrong key's path, its value and what is allowed."""
    return check_params(read_yaml(path), str(path))


def read_yaml(path: Path) -> object:
    """What a file holds as YAML 1.2. Raises UserError if it is missing or not YAML.

    In YAML 1.2 an unquoted `yes` is a string. `dvc exp run -S` drops the quotes of labels, and a reader of YAML 1.1
    (PyYAML) would then see booleans.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the root of the repository.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None


def check_params(values: object, source: str = "params.yaml") -> Params:
    """The checked form of a plain dictionary of parameters. Raises UserError; `source` names it in the message."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        single = "{where} must be a list: -S '{where}=[{text}]'"
        lines = explain(error, lambda path: _allowed_keys(path, values), _location, PATTERNS, single)
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _location(path: list[str]) -> list[str]:
    """The path in the file: pydantic adds the chosen method to an adapter's, and `[key]` to that of a wrong name."""
    if path[:1] == ["adapters"]:
        path = path[:2] + path[3:]
    return [part for part in path if part != "[key]"]


def _allowed_keys(path: list[str], values: dict) -> Iterable[str]:
    """The keys that the group at `path` may have, or the methods if it is an adapter's method."""
    group = Params
    match path:
        case ["adapters", _, "method"]:
            return METHOD_BY_NAME
        case ["adapters", name]:
            named = {str(key): adapter for key, adapter in values["adapters"].items()}  # a key may be a number
            group = METHOD_BY_NAME[named[name]["method"]]
        case ["tuning", _]:
            group = Tuned
        case ["evaluate", "untrained", _]:
            group = Untrained
        case [name]:
            group = Params.model_fields[name].annotation
    return group.model_fields
