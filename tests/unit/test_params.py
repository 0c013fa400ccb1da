"""params.yaml's schema: what it accepts, and how it refuses the rest."""

import copy
from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from peftqa.config.params import check_params, read_params
from peftqa.errors import UserError

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


def test_dvc_writes_the_committed_file_as_it_is_with_its_comments(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(FILE.read_bytes())
    with modify_yaml(path) as params:
        params["selected"] = params["selected"]
    assert path.read_bytes() == FILE.read_bytes()


def test_numbers_in_the_notations_of_yaml_1_2_are_read(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(FILE.read_text().replace("learning_rate: 0.3", "learning_rate: 3e-1"))
    assert read_params(path).adapters["prompt"].learning_rate == 0.3


FEW = "evaluate.untrained.few"
WRONG = [
    ("train.epoch", 3, "train.epoch: unknown key; did you mean epochs?"),
    ("train.gpu", 1, "train.gpu: unknown key; allowed: epochs, batch_size"),
    ("adapters.prompt.num_tokens", 5, "adapters.prompt.num_tokens: unknown key; did you mean num_virtual_tokens?"),
    ("evaluate.untrained.base.fewshot", 3, "evaluate.untrained.base.fewshot: unknown key; did you mean few_shot?"),
    ("adapters", {7: IA3 | {"rate": 1}}, "adapters.7.rate: unknown key"),
    ("split.test", MISSING, "split.test: missing key"),
    ("data", None, "data: must be a group of keys, not None"),
    ("adapters.prompt.method", "prompt", "adapters.prompt.method: 'prompt' is not allowed: must be one of 'prompt_t"),
    ("adapters.prompt.method", MISSING, "adapters.prompt.method: missing key"),
    ("adapters.prompt", 3, "adapters.prompt: must be a group of keys, not 3"),
    ("adapters.prefix.num_virtual_tokens", 0, "0 is not allowed: Input should be greater than or equal to 1"),
    ("train.epochs", True, "train.epochs: True is not allowed"),
    ("train.epochs", 10**9, "train.epochs: 1000000000 is not allowed: Input should be less than or equal to 100000"),
    ("train.batch_size", 10**30, "train.batch_size: 1000000000000000000000000000000 is not allowed"),
    ("evaluate.batch_size", 10**30, "is not allowed: Input should be less than or equal to 10000"),
    ("evaluate.calibration_bins", 10**12, "is not allowed: Input should be less than or equal to 1000"),
    ("compare.resamples", 10**12, "is not allowed: Input should be less than or equal to 100000"),
    ("model.threads", 500_000, "is not allowed: Input should be less than or equal to 1024"),
    ("template.max_tokens", 10**9, "is not allowed: Input should be less than or equal to 100000"),
    (FEW, {"few_shot": 10**30, "seed": 1, "max_tokens": 9}, "evaluate.untrained.few.few_shot: 10000000000000000000000"),
    ("train.seeds", 43, "train.seeds: must be a list, such as [43], not 43"),
    ("train.seeds", [1, 1], "train.seeds: [1, 1] is not allowed: nothing may be listed twice"),
    ("train.seeds", [2**32], "train.seeds.0: 4294967296 is not allowed"),
    ("train.max_grad_norm", float("nan"), "train.max_grad_norm: nan is not allowed"),
    ("data.labels", [True, False], "data.labels.0: True is not allowed: Input should be 'yes', 'no' or 'maybe'"),
    ("data.sha256", "8B" * 32, f"data.sha256: '{'8B' * 32}' is not allowed: must be 64 hexadecimal digits"),
    ("split.train", 0.9, "split: train + val + test must be 1, not 1.1"),
    ("split.folds", [0, 1], "split: folds: fold 1 does not exist; protocol random has 0 to 0"),
    ("model.revision", "main", "model.revision: 'main' is not allowed: must be null, a commit of the Hub"),
    ("template.text", "{question}", "template.text: '{question}' is not allowed: must contain {context}"),
    ("template.text", "{question} ({context}) {instruction}", "is not allowed: must have white space around {con"),
    ("template.instruction", "yes or no?", "template.instruction: 'yes or no?' is not allowed: must contain {lab"),
    ("template.instruction", "{labels} {", "is not allowed: must contain {labels}, which becomes the list of labels"),
    ("adapters.prefix.init_text", None, "adapters.prefix: init: text needs a non-empty init_text"),
    ("adapters.prefix.reparametrization", 4, "adapters.prefix: reparametrization: the MLP must be at least as wi"),
    ("adapters.ia3", IA3 | {"config": {"r": 8}}, "adapters.ia3.config: peft_type is missing"),
    ("adapters.ia3", IA3 | {"config": {"peft_type": "IA3", "r": {"a": 1}}}, "adapters.ia3.config: r: must be a number"),
    ("adapters._prompt", IA3, "adapters._prompt: '_prompt' is not allowed: may have letters, digits and _ only, and n"),
    ("adapters.my-prompt", IA3, "adapters.my-prompt: 'my-prompt' is not allowed: may have letters, digits and _ only"),
    ("evaluate.untrained", {2: {"few_shot": 0}}, "evaluate.untrained.2: 2 is not allowed: Input should be a valid str"),
    ("adapters.majority", IA3, "adapters.majority: the name is taken"),
    ("adapters.base", IA3, "evaluate.untrained.base: the name is taken"),
    (FEW, {"few_shot": 4, "seed": 1}, "evaluate.untrained.few: few_shot, seed (which draws the examples) and max_toke"),
    (FEW, {"few_shot": 4, "max_tokens": 9}, "evaluate.untrained.few: few_shot, seed"),
    (FEW, {"seed": 1}, "evaluate.untrained.few: few_shot, seed"),
    ("evaluate.variants", ["base", "lora"], "evaluate.variants: 'lora' is not one of majority"),
    ("evaluate.variants", {"prefix": "models"}, "evaluate.variants: must be a list, not {'prefix': 'models'}"),
    ("tuning", {"lora": {"trials": 3, "protocol": "random"}}, "tuning: 'lora' is not one of prompt,"),
    ("selected", "lora", "selected: 'lora' is not one of majority, tfidf, base, "),
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
    assert f"folds: fold 10 does not exist; protocol {protocol} has 0 to 9" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"a: 1\na: 2", "is not valid YAML"),
        (b"a: \xff", "is not valid YAML"),
        (b"", "the file: must be a group of keys, not None"),
        (b"- 1", "the file: must be a group of keys, not [1]"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "is not valid YAML"),
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
