"""`make demo` as a newcomer runs it, and what its adapters learned, judged on 2,000 questions made for that alone."""

import json
import shlex
import shutil

import pandas as pd
import pytest
from scipy.stats import binomtest

from embedded.generate import make_judge
from peftqa.ask.answer import Answerer
from peftqa.config.params import read_params
from peftqa.data.records import Record, to_table
from peftqa.evaluation.predictions import predict
from peftqa.model.adapters import load_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer
from peftqa.model.prompts import encode_prompts, first_token_ids
from peftqa.model.scoring import label_probabilities
from tests.clone import Clone, ran
from tests.conftest import ROOT

LABELS = ["yes", "no"]
MODEL = ROOT / "embedded/pico-t5"
JUDGE_SEED = 20_000
EXPECTED = json.loads((ROOT / "embedded/expected.json").read_text())
MAJORITY = 55 / 89
DEMO = ("make", "demo", "SETUP=")  # the environment of this test replaces the one that make sets up


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("demo") / "clone")
    clone.before = (clone.folder / "params.yaml").read_bytes()
    # An address that cannot be reached: the demo must not follow it.
    clone.output = clone(*DEMO, PUBMEDQA_SOURCE="http://localhost:9/ori_pqal.json")
    clone.results = clone.folder / "experiments/demo"
    return clone


def metrics_of(demo: Clone, variant: str) -> dict:
    return json.loads(demo("git", "show", f"{reference(demo)}:metrics/{variant}.json"))


def reference(demo: Clone) -> str:
    refs = demo("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (found,) = [ref for ref in refs if ref.endswith("/demo")]
    return found


def test_the_demo_prints_its_table_once_and_where_to_look_next(demo):
    assert demo.output.count("test questions\n") == 1
    shown = demo.output[demo.output.rindex("test questions\n") :]
    for word in ("majority", "tfidf", "base", "prompt", "prefix", "points of accuracy", "report/index.html"):
        assert word in shown
    assert "No file hash info" not in demo.output
    assert len(demo.output.splitlines()) <= 80 and "skipping" not in demo.output and "git add" not in demo.output


def test_the_demo_ends_with_a_command_that_asks_a_question_of_ones_own(demo):
    command = shlex.split(demo.output.splitlines()[-1])
    assert command[:4] == ["python", "-m", "peftqa", "ask"] and "/release/" in command[5]
    answers = {}
    for name in ("prompt", "prefix"):
        command[5] = f"experiments/demo/release/{name}"
        shown = demo(*command)
        answers[name] = shown.splitlines()[0].split()
    assert answers == {name: ["answer", "yes"] for name in answers}  # as the abstract in the command has it


def test_asked_by_themselves_and_in_a_table_the_adapters_answer_as_predictions_say(demo):
    asked = pd.read_csv(demo.results / "data/split/fold-0/test.csv", dtype=str, keep_default_na=False)
    asked.head(20).to_csv(demo.folder / "asked.csv", index=False)
    for name in ("prompt", "prefix"):
        table = pd.read_csv(demo.results / f"predictions/{name}/fold-0/seed-42.csv", dtype={"id": str})
        expected = table[table["split"] == "test"].head(20).reset_index(drop=True)
        adapter = demo.results / f"models/adapters/{name}/fold-0/seed-42"
        demo("python", "-m", "peftqa", "ask", "--adapter", str(adapter), "--csv", "asked.csv", "--out", "answers.csv")
        answers = pd.read_csv(demo.folder / "answers.csv", dtype={"id": str})
        answerer = Answerer(adapter)
        alone = [answerer.answer([answerer.encode(row.question, row.context)])[0] for row in answers.itertuples()]
        assert list(answers["id"]) == list(expected["id"])
        assert list(answers["answer"]) == [answer.label for answer in alone] == list(expected["prediction"])
        for given in (answers["p_yes"], pd.Series([answer.probabilities["yes"] for answer in alone])):
            assert (given - expected["p_yes"]).abs().max() < 1e-5
        (demo.folder / "answers.csv").unlink()
    (demo.folder / "asked.csv").unlink()


def test_the_demo_leaves_the_workspace_as_it_was_but_for_its_own_ignored_folder(demo):
    assert demo("git", "status", "--porcelain") == ""
    assert (demo.folder / "params.yaml").read_bytes() == demo.before
    where = ("--dry-run", "--eval", "where: check; @echo $(VENV)", "where")
    shown = demo("make", "--directory", "experiments/demo", *where)
    assert "../../.venv" in shown and "install" not in shown
    assert "data:image/svg+xml" in (demo.results / "report/index.html").read_text()


def test_the_demo_is_an_experiment_that_dvc_can_show_and_compare(demo):
    assert "demo" in demo("dvc", "exp", "show", "--csv")
    shown = demo("dvc", "metrics", "diff", "HEAD", "demo", "--json")
    difference, _ = json.JSONDecoder().raw_decode(shown, shown.index("{"))  # DVC also warns that HEAD lacks metrics
    assert {f"metrics/{variant}.json" for variant in ("base", "prompt", "prefix", "selected")} <= difference.keys()


def test_a_second_demo_runs_nothing_and_without_its_folder_is_restored_by_dvc(demo):
    before = {variant: metrics_of(demo, variant) for variant in ("base", "prompt", "prefix")}
    shown = demo(*DEMO)
    assert ran(shown) == [] and "epoch 1/" not in shown
    shutil.move(demo.results, demo.folder / "experiments/kept")
    shown = demo(*DEMO)
    shutil.rmtree(demo.folder / "experiments/kept")
    assert ran(shown) == [] and "epoch 1/" not in shown
    assert {variant: metrics_of(demo, variant) for variant in before} == before


def test_the_metrics_are_the_expected_ones(demo):
    """Expected is the mean of two builds of torch, which round differently; the tolerance includes both."""
    for variant, expected in EXPECTED.items():
        metrics = metrics_of(demo, variant)
        for name in ("accuracy", "macro_f1", "log_loss"):
            assert metrics[name] == pytest.approx(expected[name], abs=expected["tolerance"]), f"{variant}: {name}"


@pytest.fixture(scope="module")
def judged(demo) -> pd.DataFrame:
    """Whether base, prompt and prefix are right on each of the 2,000 questions."""
    raw = make_judge(JUDGE_SEED, json.loads((ROOT / "embedded/ori_pqal.json").read_text()))
    table = to_table({pmid: Record.model_validate(record) for pmid, record in raw.items()})
    params = read_params(demo.results / "params.yaml")
    tokenizer = load_tokenizer(MODEL)
    prompts = encode_prompts(tokenizer, table, params.template, LABELS)
    label_token_ids = first_token_ids(tokenizer, LABELS)
    right = {}
    for variant in ("base", "prompt", "prefix"):
        model = load_backbone(MODEL, params.model)
        if variant != "base":
            model = load_adapter(model, demo.results / f"models/adapters/{variant}/fold-0/seed-42")
        probabilities = label_probabilities(model, prompts, label_token_ids, batch_size=64)
        right[variant] = predict(probabilities, LABELS) == table["label"].to_numpy()
    return pd.DataFrame(right)


def test_judged_on_2000_questions_both_adapters_learned(judged):
    accuracy = judged.mean()
    print(accuracy.to_string())
    assert len(judged) == 2000
    assert 0.40 <= accuracy["base"] <= 0.70
    for adapter in ("prompt", "prefix"):
        assert accuracy[adapter] >= accuracy["base"] + 0.15 and accuracy[adapter] >= 0.75


def test_judged_on_2000_questions_neither_gain_is_chance(judged):
    for adapter in ("prompt", "prefix"):
        won = int((judged[adapter] & ~judged["base"]).sum())
        lost = int((judged["base"] & ~judged[adapter]).sum())
        assert won > lost and binomtest(won, won + lost).pvalue < 0.001
