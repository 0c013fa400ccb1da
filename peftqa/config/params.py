"""The settings of params.yaml, typed and checked. Imports no torch: every stage reads it, light ones too."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Union, get_args

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from peftqa.config.settings import Distinct, Dtype, Label, Positive, Schedule, Settings
from peftqa.errors import UserError, one_line
from peftqa.model.adapters import METHODS, AdapterSettings
from peftqa.model.prompts import Template, join_labels

BASELINES = ("majority", "tfidf")
# Names that are taken: the baselines are variants already, and metrics/ has files of the other two names.
RESERVED_NAMES = (*BASELINES, "selected", "pairs")
UNTRAINED_SEED = 0  # what stands for the seed of a variant without training
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
# The union of all classes in the tuple; pydantic chooses one by its `method`.
AnyAdapter = Annotated[Union[METHODS], Field(discriminator="method")]  # noqa: UP007
METHOD_BY_NAME = {get_args(method.model_fields["method"].annotation)[0]: method for method in METHODS}


class Data(Settings):
    name: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    test_ids_sha256: Sha256
    labels: Annotated[list[Label], Field(min_length=2), Distinct]

    @property
    def synthetic(self) -> bool:
        """Whether the data are made up: no person has answered them, and a model card says so."""
        return "synthetic" in self.name.lower()


class Split(Settings):
    protocol: Protocol
    folds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Distinct]
    seed: Seed
    train: Fraction
    val: Fraction
    test: Fraction

    @property
    def same_test_questions(self) -> bool:
        """Whether every fold tests on the same questions: each run is then a replicate."""
        return self.protocol == "official"

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
    threads: Positive


class TrainSettings(Settings):
    epochs: Positive
    batch_size: Positive
    processes: Positive
    batches: Literal["similar_length", "random"]
    encode_once: bool
    optimizer: Literal["adamw", "adafactor"]
    schedule: Schedule
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    patience: Positive | None
    seeds: Annotated[list[Seed], Field(min_length=1), Distinct]

    @model_validator(mode="after")
    def _batch_divides(self) -> TrainSettings:
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size: {self.batch_size} cannot be divided among {self.processes} processes")
        return self


class Untrained(Settings):
    """A variant without training: the frozen model, asked in another way or with its answers corrected."""

    few_shot: Annotated[int, Field(ge=0)] | None = None
    context: bool | None = None
    calibrated: bool | None = None
    seed: Seed | None = None
    max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _examples_described(self) -> Untrained:
        if self.few_shot and (self.seed is None or self.max_tokens is None):
            raise ValueError("few_shot examples need a seed to draw them and max_tokens, the most they may take")
        if not self.few_shot and (self.seed is not None or self.max_tokens is not None):
            raise ValueError("seed and max_tokens are of few_shot examples, of which there are none")
        return self


class Evaluate(Settings):
    batch_size: Positive
    max_new_tokens: Positive
    calibration_bins: Positive
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
    resamples: Positive
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

    def runs(self, name: str) -> list[tuple[int, int]]:
        """(fold, seed) of every run of a variant; seed 0 where nothing is trained."""
        seeds = self.train.seeds if name in self.adapters else [UNTRAINED_SEED]
        return [(fold, seed) for fold in self.split.folds for seed in seeds]

    def named_runs(self, variants: Iterable[str]) -> dict[str, tuple[str, int, int]]:
        """Variant, fold and seed by the name that dvc.yaml gives a run: `prompt-0-42`; `base-0` without training."""
        return {
            f"{name}-{fold}-{seed}" if name in self.adapters else f"{name}-{fold}": (name, fold, seed)
            for name in variants
            for fold, seed in self.runs(name)
        }


def read_params(path: Path) -> Params:
    """Read and check a params.yaml. Raises UserError with every offending key's path, its value and what is allowed."""
    return check_params(read_yaml(path), str(path))


def read_yaml(path: Path) -> object:
    """What a file holds as YAML 1.2, in which an unquoted `yes` is a string: `dvc exp run -S` drops the quotes of
    labels, and a YAML 1.1 reader (PyYAML) would then see booleans. Raises UserError where it is missing or no YAML."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the root of the repository.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {one_line(error)}") from None


def check_params(values: object, source: str = "params.yaml") -> Params:
    """The checked form of a plain dictionary of parameters. Raises UserError; `source` names it in the message."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, values) for problem in error.errors()]
        raise UserError(f"{source}: " + "; ".join(lines)) from None
    # So that whoever reads an adapter's settings sees the text that training starts from.
    adapters = {name: _fill_init_text(adapter, params.data.labels) for name, adapter in params.adapters.items()}
    return params.model_copy(update={"adapters": adapters})


def _fill_init_text(adapter: AdapterSettings, labels: list[str]) -> AdapterSettings:
    """The adapter with "yes or no", the labels in use, in the place of {labels} in its init_text, where it has one."""
    text = getattr(adapter, "init_text", None)
    return adapter.model_copy(update={"init_text": text.replace("{labels}", join_labels(labels))}) if text else adapter


def _explain(problem: dict, values: object) -> str:
    """One pydantic error as `key.path: value: what is allowed`."""
    # pydantic names the chosen method inside an adapter's path; the file has no such level.
    location = [str(part) for part in problem["loc"]]
    if location[:1] == ["adapters"] and len(location) > 2 and not _exists(values, location[:3]):
        location.pop(2)
    where = ".".join(location)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(location[:-1], values)
        close = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(allowed)}"
        return f"{where}: unknown key{hint if allowed else ''}"
    if problem["type"] == "missing":
        return f"{where}: missing key"
    if problem["type"].startswith("union_tag"):
        tag = problem["ctx"].get("tag")
        expected = problem["ctx"].get("expected_tags") or ", ".join(repr(kind) for kind in METHOD_BY_NAME)
        return f"{where}.method: {f'{tag!r} is not allowed' if tag else 'missing key'}: must be one of {expected}"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where or 'the file'}: must be a group of keys, not {problem['input']!r}"
    if problem["type"] == "list_type":
        return f"{where}: must be a list, not {problem['input']!r}"
    if problem["type"] == "string_pattern_mismatch":
        message = PATTERNS[problem["ctx"]["pattern"]]
    if not where:
        return message
    value = problem["input"]
    shown = "" if isinstance(value, dict) else f" {value!r} is not allowed:"
    return f"{where}:{shown} {message}"


def _exists(values: object, path: list[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _allowed_keys(path: list[str], values: dict) -> list[str]:
    """The keys that the group at `path` may have."""
    if not path:
        return list(Params.model_fields)
    if path[0] == "adapters":
        method = values["adapters"][path[1]].get("method")
        return list(METHOD_BY_NAME[method].model_fields)
    if path[0] == "tuning":
        return list(Tuned.model_fields)
    if path[:2] == ["evaluate", "untrained"]:
        return list(Untrained.model_fields)
    return list(Params.model_fields[path[0]].annotation.model_fields)
