"""params.yaml's schema: what it accepts, and how it refuses the rest."""

import copy
from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from peftqa.errors import UserError
from peftqa.params import check_params, read_params

FILE = Path(__file__).parents[2] / "params.yaml"
MISSING = object()


@pytest.fixture
def values():
    """The committed params.yaml as a plain dictionary."""
    return YAML(typ="safe", pure=True).load(FILE)


def change(values, path, value):
    """A copy with the key at `path` set, or removed where value is MISSING."""
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


def test_the_committed_file_holds_the_documented_defaults():
    params = read_params(FILE)
    assert params.data.labels == ["yes", "no"]
    assert (params.split.train, params.split.val, params.split.test, params.split.seed) == (0.8, 0.1, 0.1, 42)
    assert params.model.name == "google/flan-t5-small"
    assert params.adapters["prompt"].num_virtual_tokens == 20
    assert params.adapters["prefix"].target == ["encoder", "decoder", "cross"]
    assert (params.train.epochs, params.train.seeds) == (3, [42])
    assert list(params.evaluate.variants) == ["base", "prompt", "prefix"]


def test_labels_survive_a_rewrite_by_dvc_that_drops_their_quotes(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(FILE.read_bytes())
    with modify_yaml(path) as params:  # what `dvc exp run -S` does
        params["data"]["labels"] = ["yes", "no", "maybe"]
    assert '"yes"' not in path.read_text()
    assert read_params(path).data.labels == ["yes", "no", "maybe"]


def test_numbers_in_the_notations_of_yaml_1_2_are_read(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(FILE.read_text().replace("learning_rate: 0.3", "learning_rate: 3e-1"))
    assert read_params(path).adapters["prompt"].learning_rate == 0.3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epoch", 3, "train.epoch: unknown key; did you mean epochs?"),
        ("trian", {}, "trian: unknown key; did you mean train?"),
        ("train.gpu", 1, "train.gpu: unknown key; allowed: epochs, batch_size"),
        ("adapters.prompt.num_tokens", 5, "adapters.prompt.num_tokens: unknown key; did you mean num_virtual_tokens?"),
        ("adapters.prefix.alpha", 5, "adapters.prefix.alpha: unknown key; allowed: learning_rate, init_text"),
        ("split.test", MISSING, "split.test: missing key"),
        ("data", MISSING, "data: missing key"),
        ("data", None, "data: must be a group of keys, not None"),
        ("train.epochs", "3", "train.epochs: '3' is not allowed"),
        ("train.epochs", 3.0, "train.epochs: 3.0 is not allowed"),
        ("train.epochs", True, "train.epochs: True is not allowed"),
        ("train.epochs", 0, "train.epochs: 0 is not allowed: Input should be greater than or equal to 1"),
        ("train.seeds", [], "train.seeds: [] is not allowed"),
        ("train.seeds", [1, 1], "train.seeds: [1, 1] is not allowed: each seed may stand here once"),
        ("train.seeds", [2**32], "train.seeds.0: 4294967296 is not allowed"),
        ("train.max_grad_norm", float("nan"), "train.max_grad_norm: nan is not allowed"),
        ("train.weight_decay", float("inf"), "train.weight_decay: inf is not allowed"),
        ("data.labels", [True, False], "data.labels.0: True is not allowed: Input should be 'yes', 'no' or 'maybe'"),
        ("data.labels", ["yes", "yes"], "data.labels: ['yes', 'yes'] is not allowed: each label"),
        ("data.labels", ["yes"], "data.labels: ['yes'] is not allowed"),
        ("data.labels", ["yes", "perhaps"], "data.labels.1: 'perhaps' is not allowed"),
        ("data.sha256", "8B" * 32, f"data.sha256: '{'8B' * 32}' is not allowed: must be 64 hexadecimal digits"),
        ("data.source", "", "data.source: '' is not allowed"),
        ("split.train", 0.9, "split: train + val + test must be 1, not 1.1"),
        ("split.val", 0.0, "split.val: 0.0 is not allowed"),
        (
            "split.protocol",
            "offical",
            "split.protocol: 'offical' is not allowed: Input should be 'random' or 'official'",
        ),
        ("model.revision", "main", "model.revision: 'main' is not allowed: must be a commit of the Hub"),
        ("model.revision", "sha256:12", "model.revision: 'sha256:12' is not allowed: must be a commit of the Hub"),
        ("model.dtype", "float16", "model.dtype: 'float16' is not allowed"),
        ("template.text", "{question}", "template.text: '{question}' is not allowed: must contain {context}"),
        ("template.instruction", "yes or no?", "template.instruction: 'yes or no?' is not allowed: must contain {lab"),
        ("template.instruction", "{labels} {x}", "is not allowed: may have no other braces than {labels}"),
        ("template.instruction", "{labels} {", "is not allowed: may have no other braces than {labels}"),
        (
            "adapters.prompt.method",
            "prompt",
            "adapters.prompt.method: 'prompt' is not allowed: must be one of 'prompt_t",
        ),
        ("adapters.prompt.method", MISSING, "adapters.prompt.method: missing key: must be one of 'prompt_tuning'"),
        ("adapters.prompt.init", "text", "adapters.prompt: init: text needs a non-empty init_text"),
        ("adapters.prefix.target", ["enc"], "adapters.prefix.target.0: 'enc' is not allowed"),
        (
            "adapters.my-prompt",
            {},
            "adapters.my-prompt: 'my-prompt' is not allowed: may have letters, digits and _ only",
        ),
        ("adapters.base", {"method": "ia3", "learning_rate": 0.1}, "the name 'base' is taken"),
        ("adapters.dataset", {"method": "ia3", "learning_rate": 0.1}, "the name 'dataset' is taken"),
        ("evaluate.variants.lora", "models/adapters/lora", "evaluate.variants.lora: no such adapter; known: prompt"),
        ("evaluate.variants.prompt", "elsewhere", "evaluate.variants.prompt: 'elsewhere' must be 'models/adapters/pro"),
        ("evaluate.variants.fewshot", "models/base/config.json", "evaluate.few_shot: 0 solved examples"),
        ("evaluate.variants", {}, "evaluate.variants:"),
        ("evaluate.coverage", 1.1, "evaluate.coverage: 1.1 is not allowed"),
        ("compare.confidence", 95, "compare.confidence: 95 is not allowed"),
        ("selected", "lora", "selected: 'lora' is not in evaluate.variants (base, prompt, prefix)"),
    ],
)
def test_a_bad_value_is_refused_with_its_path_and_what_is_allowed(values, path, value, message):
    assert message in refusal(change(values, path, value))


def test_all_faults_are_named_at_once(values):
    message = refusal(change(change(values, "train.epochs", 0), "model.dtype", "int8"))
    assert "train.epochs" in message and "model.dtype" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.revision", None),
        ("model.revision", "sha256:" + "0" * 64),
        ("train.patience", 2),
        ("split.protocol", "official"),
        ("adapters.lora", {"method": "lora", "learning_rate": 1e-3, "r": 8, "alpha": 16}),
        ("adapters.stock", {"method": "prefix_tuning", "learning_rate": 1, "num_virtual_tokens": 5}),
        ("adapters.ia3", {"method": "ia3", "learning_rate": 0.01}),
    ],
)
def test_documented_choices_are_accepted(values, path, value):
    check_params(change(values, path, value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "no valid YAML"),
        (b"a: 1\na: 2", "no valid YAML"),
        (b"a: \xff", "no valid YAML"),
        (b"", "must be a group of keys, not None"),
        (b"- 1", "must be a group of keys, not [1]"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml") as error:
        read_params(path)
    assert message in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        read_params(tmp_path / "params.yaml")
