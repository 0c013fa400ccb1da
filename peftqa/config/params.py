"""The schema of params.yaml, and its checks. It imports no torch, because light stages read it too.

Stages of dvc.yaml do not depend on this folder, because it cannot change a result: it has only a schema and checks, and
its only default is None, which means that the key is absent.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from peftqa.config.adapters import KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.errors import explain
from peftqa.config.settings import Baseline, Distinct, Dtype, Label, Positive, Schedule, Settings
from peftqa.errors import UserError, one_line

BASELINES = get_args(Baseline)
# The baselines are variants already, and metrics/ has files of the other two names.
RESERVED_NAMES = (*BASELINES, "selected", "pairs")
FOLDS_BY_PROTOCOL = {"random": 1, "official": 10, "cross_validation": 10}

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Protocol = Literal["random", "official", "cross_validation"]
AnyAdapter = Annotated[PromptTuning | KVPrefix | PEFTMethod, Field(discriminator="method")]


def _matching(pattern: str, wanted: str) -> AfterValidator:
    """Refuses a text that does not match the pattern. wanted: what the pattern asks for, in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(wanted)
        return text

    return AfterValidator(check)


Name = Annotated[
    str, _matching("[A-Za-z0-9][A-Za-z0-9_]*", "may have letters, digits and _ only, and not begin with _")
]
Sha256 = Annotated[str, _matching("[0-9a-f]{64}", "must be 64 hexadecimal digits in lower case")]
PINNED = "must be null, a commit of the Hub (40 hexadecimal digits in lower case), or `sha256:` with a folder's digest"
Revision = Annotated[str, _matching("([0-9a-f]{40}|sha256:[0-9a-f]{64})", PINNED)]


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
    def _folds_exist_and_fractions_sum_to_one(self) -> Split:
        last, known = max(self.folds), FOLDS_BY_PROTOCOL[self.protocol]
        if last >= known:
            raise ValueError(f"folds: fold {last} does not exist; protocol {self.protocol} has 0 to {known - 1}")
        if not math.isclose(self.train + self.val + self.test, 1.0, abs_tol=1e-9):
            raise ValueError(f"train + val + test must be 1, not {self.train + self.val + self.test:g}")
        return self


class ModelSettings(Settings):
    name: Annotated[str, Field(min_length=1)]
    revision: Revision | None
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
        # With white space, the parts, tokenised one by one, give the tokens of the whole text.
        if not re.fullmatch(r"(.*\s)?\{context\}(\s.*)?", text, re.DOTALL):
            raise ValueError("must have white space around {context}")
        return text

    @field_validator("instruction")
    @classmethod
    def _has_labels_field(cls, instruction: str) -> str:
        if "{labels}" not in instruction or set("{}") & set(instruction.replace("{labels}", "")):
            raise ValueError("must contain {labels}, which becomes the list of labels in use, and no other braces")
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
        if not bool(self.few_shot) == (self.seed is not None) == (self.max_tokens is not None):
            raise ValueError("few_shot, seed (which draws the examples) and max_tokens (of all examples) go together")
        return self


class Evaluate(Settings):
    batch_size: Annotated[int, Field(ge=1, le=10_000)]
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)]
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    untrained: dict[Name, Untrained]
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
    adapters: dict[Name, AnyAdapter]
    tuning: dict[str, Tuned]
    train: TrainSettings
    evaluate: Evaluate
    compare: Compare
    selected: str

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        untrained = self.evaluate.untrained
        for where, names, taken in (
            ("adapters", self.adapters, RESERVED_NAMES),
            ("evaluate.untrained", untrained, [*RESERVED_NAMES, *self.adapters]),
        ):
            if both := [name for name in names if name in taken]:
                raise ValueError(f"{where}.{both[0]}: the name is taken; choose another")
        for where, names, known in (
            ("tuning", self.tuning, self.adapters),
            ("evaluate.variants", self.evaluate.variants, [*BASELINES, *untrained, *self.adapters]),
            ("selected", [self.selected], self.evaluate.variants),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{where}: {unknown[0]!r} is not one of {', '.join(known)}")
        return self


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params.yaml. Raises UserError with the path of what is wrong, its value and what is allowed."""
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
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None


def check_params(values: object, source: str = "params.yaml") -> Params:
    """The checked form of a plain dictionary of parameters. Raises UserError; `source` names it in the message."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(explain(error))}") from None
