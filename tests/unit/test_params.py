"""params.yaml's schema: what it accepts, and how it refuses the rest."""

import copy
import difflib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from peftqa.config.params import check_params, read_params
from peftqa.errors import UserError
from stages.runs import runs_of

FILE = Path(__file__).parents[2] / "params.yaml"
MISSING = object()
IA3 = {"method": "peft", "config": {"peft_type": "IA3"}, "learning_rate": 0.1}


@pytest.fixture
def values():
    """The committed params.yaml as a plain dictionary."""
    return YAML(typ="safe", pure=True).load(FILE)


def change(values, path, value):
    """A copy with the key at `path` set, or removed if value is MISSING."""
    values = copy.deepcopy(values)
    *groups, last = path.split(".")
    group = values
    for name in groups:
        group = group[name]
    if value is MISSING:
        del group[last]
    else:
        group[last] = value
    return values


def refusal(values):
    with pytest.raises(UserError) as error:
        check_params(values)
    return str(error.value)


def test_labels_survive_a_rewrite_by_dvc_that_drops_their_quotes(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(FILE.read_bytes())
    with modify_yaml(path) as params:  # what `dvc exp run -S` does
        params["data"]["labels"] = ["yes", "no", "maybe"]
    assert '"yes"' not in path.read_text()
    assert read_params(path).data.labels == ["yes", "no", "maybe"]


def entries(group, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Every key that holds a single value or a list, with its path."""
    for key, value in group.items():
        yield from entries(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


ENTRIES = dict(entries(YAML(typ="safe", pure=True).load(FILE)))
SINGLE = [path for path, value in ENTRIES.items() if not isinstance(value, list)]
LISTS = [path for path, value in ENTRIES.items() if isinstance(value, list)]


@pytest.fixture
def set_by_dvc(tmp_path):
    """Sets a value in a copy of params.yaml as `dvc exp run -S` does; returns the lines removed and added so far."""
    path = tmp_path / "params.yaml"
    path.write_bytes(FILE.read_bytes())

    def set_value(keys: tuple, value: object) -> tuple[list[str], list[str]]:
        with modify_yaml(path) as params:
            group = params
            for key in keys[:-1]:
                group = group[key]
            group[keys[-1]] = value
        lines = list(difflib.ndiff(FILE.read_text().splitlines(), path.read_text().splitlines()))
        return tuple([line[2:] for line in lines if line.startswith(sign)] for sign in ("- ", "+ "))

    return set_value


def test_dvc_writes_the_committed_file_as_it_is(set_by_dvc):
    for _ in range(2):
        assert set_by_dvc(("selected",), ENTRIES["selected",]) == ([], [])


@pytest.mark.parametrize("path", SINGLE, ids=".".join)
def test_setting_one_value_changes_one_line(set_by_dvc, path):
    text = [] if isinstance(ENTRIES[path], int | float) else ["abc", "x y z"]
    numbers = [] if isinstance(ENTRIES[path], str) else [7, 0.25]
    for value in (*text, *numbers):
        removed, added = set_by_dvc(path, value)
        assert len(removed) == len(added) == 1
        assert str(value) in added[0]


@pytest.mark.parametrize("path", LISTS, ids=".".join)
def test_setting_a_list_changes_its_items_alone(set_by_dvc, path):
    for items in (["abc", "xyz"], ["uvw", "abc", "xyz"], [7]):
        removed, added = set_by_dvc(path, items)
        assert [line.strip().removeprefix("- ") for line in removed] == [str(item) for item in ENTRIES[path]]
        assert [line.strip().removeprefix("- ") for line in added] == [str(item) for item in items]


def test_numbers_in_the_notations_of_yaml_1_2_are_read(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(FILE.read_text().replace("learning_rate: 0.3", "learning_rate: 3e-1"))
    assert read_params(path).adapters["prompt"].learning_rate == 0.3


FEW = "evaluate.untrained.few"
WRONG = [
    ("train.epoch", 3, "train.epoch: unknown key; did you mean epochs?"),
    ("trian", {}, "trian: unknown key; did you mean train?"),
    ("train.gpu", 1, "train.gpu: unknown key; allowed: epochs, batch_size"),
    ("adapters.prompt.num_tokens", 5, "adapters.prompt.num_tokens: unknown key; did you mean num_virtual_tokens?"),
    ("adapters.prefix.alpha", 5, "adapters.prefix.alpha: unknown key; allowed: method, learning_rate, schedule,"),
    ("tuning", {"prompt": {"trial": 3, "protocol": "random"}}, "tuning.prompt.trial: unknown key; did you mean trials"),
    ("evaluate.untrained.base.fewshot", 3, "evaluate.untrained.base.fewshot: unknown key; did you mean few_shot?"),
    ("split.test", MISSING, "split.test: missing key"),
    ("data", MISSING, "data: missing key"),
    ("data", None, "data: must be a group of keys, not None"),
    ("adapters.prompt.method", "prompt", "adapters.prompt.method: 'prompt' is not allowed: must be one of 'prompt_t"),
    ("adapters.prompt.method", MISSING, "adapters.prompt.method: missing key: must be one of 'prompt_tuning'"),
    (
        "adapters.prompt.num_virtual_tokens",
        100_000,
        "100000 is not allowed: Input should be less than or equal to 1000",
    ),
    ("adapters.prefix.num_virtual_tokens", 0, "0 is not allowed: Input should be greater than or equal to 1"),
    ("train.epochs", "3", "train.epochs: '3' is not allowed"),
    ("train.epochs", 3.0, "train.epochs: 3.0 is not allowed"),
    ("train.epochs", True, "train.epochs: True is not allowed"),
    ("train.seeds", [], "train.seeds: [] is not allowed"),
    ("train.seeds", [1, 1], "train.seeds: [1, 1] is not allowed: nothing may be listed twice"),
    ("train.seeds", [2**32], "train.seeds.0: 4294967296 is not allowed"),
    ("train.max_grad_norm", float("nan"), "train.max_grad_norm: nan is not allowed"),
    ("train.weight_decay", float("inf"), "train.weight_decay: inf is not allowed"),
    ("data.labels", [True, False], "data.labels.0: True is not allowed: Input should be 'yes', 'no' or 'maybe'"),
    ("data.labels", ["yes"], "data.labels: ['yes'] is not allowed"),
    ("data.sha256", "8B" * 32, f"data.sha256: '{'8B' * 32}' is not allowed: must be 64 hexadecimal digits"),
    ("data.source", "", "data.source: '' is not allowed"),
    ("split.train", 0.9, "split: train + val + test must be 1, not 1.1"),
    ("split.val", 0.0, "split.val: 0.0 is not allowed"),
    ("split.protocol", "offical", "split.protocol: 'offical' is not allowed: Input should be 'random', 'official' or"),
    ("split.folds", [0, 1], "split: folds: fold 1 does not exist; protocol random has one fold, 0"),
    ("split.folds", [-1], "split.folds.0: -1 is not allowed"),
    ("model.revision", "main", "model.revision: 'main' is not allowed: must be a commit of the Hub"),
    ("model.revision", "sha256:12", "model.revision: 'sha256:12' is not allowed: must be a commit of the Hub"),
    ("model.dtype", "float16", "model.dtype: 'float16' is not allowed"),
    ("template.text", "{question}", "template.text: '{question}' is not allowed: must contain {context}"),
    ("template.text", "{question} ({context}) {instruction}", "is not allowed: must have white space around {con"),
    ("template.instruction", "yes or no?", "template.instruction: 'yes or no?' is not allowed: must contain {lab"),
    ("template.instruction", "{labels} {x}", "is not allowed: may have braces only in {labels}"),
    ("template.instruction", "{labels} {", "is not allowed: may have braces only in {labels}"),
    ("adapters.prefix.init_text", None, "adapters.prefix: init: text needs a non-empty init_text"),
    (
        "adapters.prefix.target",
        ["cross", "cross"],
        "adapters.prefix.target: ['cross', 'cross'] is not allowed: nothing",
    ),
    ("adapters.prefix.target", ["enc"], "adapters.prefix.target.0: 'enc' is not allowed"),
    ("adapters", {7: IA3 | {"rate": 1}}, "adapters.7.rate: unknown key"),
    ("adapters.my-prompt", {}, "adapters.my-prompt: 'my-prompt' is not allowed: may have letters, digits and _ only"),
    ("evaluate.untrained.a-b", {}, "evaluate.untrained.a-b: 'a-b' is not allowed: may have letters, digits and _ only"),
    ("adapters.majority", IA3, "adapters.majority: the name is taken"),
    ("adapters.selected", IA3, "adapters.selected: the name is taken"),
    ("adapters.base", IA3, "evaluate.untrained.base: an adapter has this name already"),
    ("evaluate.untrained.tfidf", {"few_shot": 0}, "evaluate.untrained.tfidf: the name is taken"),
    (FEW, {"few_shot": -1}, "evaluate.untrained.few.few_shot: -1 is not allowed"),
    (FEW, {"few_shot": 4, "seed": 1}, "few_shot examples need a seed to draw them and max_to"),
    (FEW, {"few_shot": 4, "max_tokens": 9}, "few_shot examples need a seed to draw them"),
    (FEW, {"seed": 1}, "evaluate.untrained.few: seed and max_tokens are allowed only with few_shot examples"),
    (FEW, {"context": "no"}, "evaluate.untrained.few.context: 'no' is not allowed"),
    (
        "evaluate.variants",
        ["base", "lora", "prefix"],
        "evaluate.variants: 'lora' is not a variant; there are: majority",
    ),
    ("evaluate.variants", {"prefix": "models"}, "evaluate.variants: must be a list, not {'prefix': 'models'}"),
    ("compare.margin", 5, "compare.margin: 5 is not allowed"),
    ("tuning", {"lora": {"trials": 3, "protocol": "random"}}, "tuning: 'lora' is not an adapter; there are: prompt,"),
    ("selected", "lora", "selected: 'lora' is not in evaluate.variants (majority, tfidf, base, "),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_bad_value_is_refused_with_its_path_and_what_is_allowed(values, path, value, message):
    assert message in refusal(change(values, path, value))


def test_all_faults_are_named_at_once(values):
    message = refusal(change(change(values, "train.epochs", 0), "model.dtype", "int8"))
    assert "train.epochs" in message and "model.dtype" in message


LORA = {"method": "peft", "learning_rate": 1, "config": {"peft_type": "LORA", "target_modules": ["q"]}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.revision", None),
        ("model.revision", "sha256:" + "0" * 64),
        ("train.patience", 2),
        (FEW, {"few_shot": 4, "seed": 42, "max_tokens": 2048}),
        (FEW, {"calibrated": True, "context": False}),
        ("tuning.prompt", {"trials": None, "protocol": "random"}),
        ("adapters.lora", LORA),
    ],
)
def test_documented_choices_are_accepted(values, path, value):
    check_params(change(values, path, value))


@pytest.mark.parametrize("protocol", ["official", "cross_validation"])
def test_a_protocol_with_ten_folds_has_the_folds_0_to_9(values, protocol):
    values = change(values, "split.protocol", protocol)
    assert check_params(change(values, "split.folds", list(range(10)))).split.folds == list(range(10))
    assert check_params(change(values, "split.folds", [7, 3])).split.folds == [7, 3]
    message = refusal(change(values, "split.folds", [3, 10]))
    assert f"folds: fold 10 does not exist; protocol {protocol} has the folds 0 to 9" in message


def test_an_adapter_runs_once_a_fold_and_seed_and_everything_else_once_a_fold(values):
    values = change(change(values, "split.protocol", "official"), "split.folds", [2, 5])
    params = check_params(change(values, "train.seeds", [7, 1]))
    assert runs_of("prompt", params) == [(2, 7), (2, 1), (5, 7), (5, 1)]
    for name in ("base", "majority", "tfidf"):
        assert runs_of(name, params) == [(2, 0), (5, 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"a: 1\na: 2", "is not valid YAML"),
        (b"a: \xff", "is not valid YAML"),
        (b"", "the file: must be a group of keys, not None"),
        (b"- 1", "the file: must be a group of keys, not [1]"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "is nested too deeply"),
        (None, "is missing"),
    ],
)
def test_a_file_that_does_not_hold_a_group_of_keys_is_refused(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml") as error:
        read_params(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("compare.resamples", 10**12),
        ("evaluate.calibration_bins", 10**12),
        ("evaluate.batch_size", 10**30),
        ("model.threads", 500_000),
        ("train.batch_size", 10**30),
        ("train.epochs", 10**9),
        ("template.max_tokens", 10**9),
        ("evaluate.untrained.few", {"few_shot": 10**30, "seed": 1, "max_tokens": 100}),
        ("adapters", {1: {"method": "prompt_tuning"}}),
        ("adapters.mine", {"method": "peft", "config": {"peft_type": "LORA", "r": {"a": 1}}, "learning_rate": 0.1}),
        ("evaluate.untrained", {2: {"few_shot": 0}}),
        ("tuning", {1: 3}),
    ],
)
def test_a_number_without_bounds_or_a_key_that_is_not_text_is_refused_by_its_path(values, path, value):
    message = refusal(change(values, path, value))
    assert path in message and "\n" not in message
