"""`make demo` as a newcomer runs it, and what its adapters learned, judged on 2,000 questions made for that alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from embedded.demo import EXPERIMENT, MODEL, OVERRIDES, REPORT
from ruamel.yaml import YAML
from scipy.stats import binomtest

from embedded.generate import make_judge
from peftqa.adapters import load_adapters
from peftqa.backbone import load_backbone, load_tokenizer
from peftqa.metrics import predict
from peftqa.params import read_params
from peftqa.prompts import encode_prompts, first_token_ids
from peftqa.records import Record, to_table
from peftqa.scoring import label_probabilities
from tests.conftest import ROOT
from tests.pipeline.conftest import Clone

LABELS = ["yes", "no"]
JUDGE_SEED = 20_000
EXPECTED = json.loads((ROOT / "embedded/expected.json").read_text())
MAJORITY = 55 / 89
DEMO = ("make", "demo", "SETUP=")  # the environment that runs this test stands in for the one that make sets up


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("demo") / "clone", source=None)
    clone.before = (clone.folder / "params.yaml").read_bytes()
    # An address that cannot be reached: the demo must not follow it.
    clone.output = clone(*DEMO, PUBMEDQA_SOURCE="http://localhost:9/ori_pqal.json")
    return clone


def metrics_of(demo: Clone, variant: str) -> dict:
    return json.loads(demo("git", "show", f"{reference(demo)}:metrics/{variant}.json"))


def reference(demo: Clone) -> str:
    refs = demo("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (found,) = [ref for ref in refs if ref.endswith(f"/{EXPERIMENT}")]
    return found


def test_the_demo_prints_the_table_and_where_to_look_next(demo):
    shown = demo.output[demo.output.rindex("test questions") :]
    for word in ("majority", "tfidf_logistic_regression", "base", "prompt", "prefix", "against base", "make repro"):
        assert word in shown
    assert str(REPORT / "index.html") in shown


def test_the_demo_leaves_the_workspace_as_it_was_but_for_the_ignored_report(demo):
    assert demo("git", "status", "--porcelain") == ""
    assert (demo.folder / "params.yaml").read_bytes() == demo.before
    assert "<svg" in (demo.folder / REPORT / "index.html").read_text()


def test_the_demo_is_an_experiment_that_dvc_can_show_and_compare(demo):
    assert EXPERIMENT in demo("dvc", "exp", "show", "--csv")
    shown = demo("dvc", "metrics", "diff", "HEAD", EXPERIMENT, "--json")
    difference, _ = json.JSONDecoder().raw_decode(shown, shown.index("{"))  # DVC also warns that HEAD has no metrics
    assert {f"metrics/{variant}.json" for variant in ("base", "prompt", "prefix", "selected")} <= difference.keys()


def test_a_second_demo_does_not_train_again(demo):
    before = {variant: metrics_of(demo, variant) for variant in ("base", "prompt", "prefix")}
    shown = demo(*DEMO)
    assert "epoch 1/" not in shown
    assert {variant: metrics_of(demo, variant) for variant in before} == before


def test_the_metrics_are_the_expected_ones(demo):
    """Expected is the mean of a run with one thread and one with two, and the tolerance holds both: rounding differs
    with the number of threads as with the processor, and training on 712 questions makes much of it."""
    for variant, expected in EXPECTED.items():
        metrics = metrics_of(demo, variant)
        for name in ("accuracy", "macro_f1", "log_loss"):
            assert metrics[name] == pytest.approx(expected[name], abs=expected["tolerance"]), f"{variant}: {name}"


@pytest.fixture(scope="module")
def judged(demo) -> pd.DataFrame:
    """Whether base, prompt and prefix are right on each of the 2,000 questions."""
    raw = make_judge(JUDGE_SEED, json.loads((ROOT / "embedded/ori_pqal.json").read_text()))
    table = to_table({pmid: Record.model_validate(record) for pmid, record in raw.items()})
    params = read_params(ROOT / "params.yaml")
    settings = params.model.model_copy(update={"dtype": "float32"})
    tokenizer = load_tokenizer(ROOT / MODEL)
    prompts, label_token_ids = (
        encode_prompts(tokenizer, table, params.template, LABELS),
        first_token_ids(tokenizer, LABELS),
    )
    right = {}

    def judge(variant, model):
        probabilities = label_probabilities(model, prompts, label_token_ids, batch_size=64)
        right[variant] = predict(probabilities, LABELS) == table["label"].to_numpy()

    judge("base", load_backbone(ROOT / MODEL, settings))
    for adapter in ("prompt", "prefix"):
        out = demo.folder / "brought" / adapter
        demo("dvc", "get", "--quiet", ".", f"models/adapters/{adapter}", "--rev", EXPERIMENT, "--out", str(out))
        (folder,) = out.iterdir()
        judge(adapter, load_adapters(load_backbone(ROOT / MODEL, settings), {"0": folder}))
    return pd.DataFrame(right)


def test_judged_on_2000_questions_both_adapters_learned_and_prefix_learned_more(judged):
    accuracy = judged.mean()
    print(accuracy.to_string())
    assert len(judged) == 2000
    assert 0.40 <= accuracy["base"] <= 0.70
    assert accuracy["prompt"] >= accuracy["base"] + 0.12
    assert accuracy["prefix"] >= 0.80


def test_judged_on_2000_questions_neither_gain_is_chance(judged):
    for adapter in ("prompt", "prefix"):
        won = int((judged[adapter] & ~judged["base"]).sum())
        lost = int((judged["base"] & ~judged[adapter]).sum())
        assert won > lost and binomtest(won, won + lost).pvalue < 0.001


def test_with_shuffled_training_labels_nothing_is_learned(demo, tmp_path):
    """The same training on the same questions with the answers of others."""
    work = tmp_path / "shuffled"
    (work / "data").mkdir(parents=True)
    demo("dvc", "get", "--quiet", ".", "data/split", "--rev", EXPERIMENT, "--out", str(work / "data/split"))
    path = work / "data/split/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["label"] = np.random.default_rng(0).permutation(table["label"])
    table.to_csv(path, index=False)
    (work / "models").mkdir()
    (work / "models/base").symlink_to(ROOT / MODEL)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in YAML(typ="safe").load(ROOT / OVERRIDES).items():
        *groups, last = key.split(".")
        group = params
        for name in groups:
            group = group[name]
        group[last] = value
    yaml.dump(params, work / "params.yaml")
    for stage in ("train", "evaluate"):
        for adapter in ("prompt", "prefix"):
            command = [sys.executable, "-m", f"stages.{stage}", adapter]
            demo("env", "-C", str(work), f"PYTHONPATH={ROOT}", *command)
    for adapter in ("prompt", "prefix"):
        metrics = json.loads(Path(work / f"metrics/{adapter}.json").read_text())
        assert metrics["accuracy"] <= MAJORITY + 0.10
