"""The comparison of answers whose outcome is known, and the stage on the files of a made-up run."""

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import stages.compare
from peftqa.config.params import check_params
from peftqa.errors import UserError
from peftqa.evaluation.metrics import evaluate
from peftqa.evaluation.palette import variant_color
from peftqa.statistics.comparison import as_text, compare, detectable, family, p_text, pair_table
from peftqa.statistics.power import runs_power
from peftqa.statistics.significance import mcnemar
from tests.conftest import Workspace
from tests.finished_run import (
    crafted_comparison,
    crafted_params,
    crafted_replicates,
    right_where,
    run_stages,
    write_run,
)

N = 90
LABELS = ["yes", "no"]
TRUTH = ["yes", "no", "yes"] * 30
VARIANTS = ["majority", "tfidf", "base", "prompt"]


def with_errors(*wrong: int) -> list[str]:
    return right_where(TRUTH, ~np.isin(np.arange(N), wrong))


def compare_errors(**wrong: range) -> dict:
    """One training of variants that err on the questions given."""
    return crafted_comparison(TRUTH, {name: [with_errors(*errors)] for name, errors in wrong.items()})


def test_a_difference_is_shown_if_the_corrected_p_is_small():
    (pair,) = compare_errors(base=range(20), prompt=range(4))["pairs"]
    assert (pair["variant"], pair["reference"]) == ("prompt", "base")
    assert pair["test"]["name"] == "mcnemar"
    assert pair["test"]["p"] == pair["test"]["p_holm"] == pytest.approx(2**-15)
    assert pair["test"]["difference"] == pytest.approx(16 / N)
    low, high = pair["test"]["interval"]
    assert 0 < low < 16 / N < high and pair["test"]["interval_holm"] == pair["test"]["interval"]
    assert (pair["only_variant_right"], pair["only_reference_right"]) == (16, 0)
    assert pair["difference_shown"] is True
    assert (pair["verdict"], pair["scope"]) == ("prompt is more accurate than base", "about this one trained adapter")


def test_the_family_is_every_adapter_against_every_other_variant_but_diagnostic_ones():
    kinds = {"prompt": "adapter", "majority": "baseline", "base": "untrained", "prefix": "adapter"}
    kinds["question_only"] = "diagnostic"
    variants = {name: {"kind": kind} for name, kind in kinds.items()}
    assert family(variants) == [
        *(("prompt", "majority"), ("prompt", "base"), ("prefix", "majority"), ("prefix", "base")),
        ("prefix", "prompt"),
    ]
    assert family({name: variants[name] for name in ("majority", "base", "question_only")}) == [("base", "majority")]
    assert family({"base": variants["base"]}) == []


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((20, 20), "prompt and base differ by less than 5 points"),
        ((20, 24), "prompt and base differ by less than 5 points"),
        ((150, 170), "prompt against base: undecided"),
        ((20, 60), "prompt is less accurate than base"),
    ],
)
def test_the_verdict_is_a_difference_or_equivalence_or_neither(errors, verdict):
    truth = ["yes", "no"] * 400
    right = np.ones((2, 800), dtype=bool)
    right[0, : errors[0]], right[1, 400 : 400 + errors[1]] = False, False
    answers = {name: [right_where(truth, row)] for name, row in zip(("base", "prompt"), right, strict=True)}
    (pair,) = crafted_comparison(truth, answers)["pairs"]
    assert pair["verdict"] == verdict
    # Two one-sided tests at 5% are within the margin if an interval of 90% is.
    low, high = mcnemar(*(np.array(row) for row in right[::-1])).interval(0.1)
    assert pair["equivalent"] == (low > -0.05 and high < 0.05)


def test_official_folds_without_an_adapter_are_compared_on_all_folds():
    # Few-shot prompting beats base by 18 points in the first of ten folds, and by two over all of them.
    runs = {"base": [with_errors(*range(30))] * 10}
    runs["fewshot"] = [with_errors(*range(14)), *runs["base"][1:]]
    test = {name: crafted_replicates(TRUTH, given, LABELS, np.zeros(N, int)) for name, given in runs.items()}
    params = crafted_params(["base"], LABELS, 10, 1).model_dump()
    params["split"]["protocol"] = "official"
    params["evaluate"]["untrained"]["fewshot"] = {"few_shot": 4, "seed": 1, "max_tokens": 900}
    params["evaluate"]["variants"] = ["base", "fewshot"]
    evaluation = {name: evaluate(one, one, LABELS, 10, 0.8) for name, one in test.items()}
    (pair,) = compare(test, evaluation, {}, 700, 90, check_params(params))["pairs"]
    assert pair["test"]["difference"] == pytest.approx(16 / N / 10)
    assert (pair["verdict"], pair["scope"]) == ("fewshot against base: undecided", "about the methods")
    assert pair["test"]["p"] > 0.3


@pytest.mark.parametrize(
    ("folds", "seeds", "protocol"), [(1, 3, "random"), (10, 1, "cross_validation"), (10, 3, "official")]
)
def test_detectable_is_planned_for_the_runs_that_there_are(folds, seeds, protocol):
    params = crafted_params(["base", "prompt"], LABELS, folds, seeds)
    params = params.model_copy(update={"split": params.split.model_copy(update={"protocol": protocol})})
    design = {"folds": folds, "seeds": seeds, "shared": protocol == "official"}
    planned = detectable(890, 0.01, params)
    assert [plan["run_sd"] for plan in planned] == [0.02, 0.05]
    for plan in planned:
        for discordance, smallest in plan["differences"].items():
            tried = smallest or 0.99 * float(discordance)
            reached = runs_power(tried, float(discordance), 890, 0.01, run_sd=plan["run_sd"], **design)
            assert reached == pytest.approx(0.8) if smallest else reached < 0.8


def test_as_text_has_verdicts_with_corrected_intervals_and_the_flags():
    comparison = compare_errors(base=range(20), prompt=range(4), prefix=range(6))
    text = as_text(comparison)
    for pair in comparison["pairs"]:
        difference, (low, high) = 100 * pair["test"]["difference"], (100 * end for end in pair["test"]["interval_holm"])
        numbers = f"(95% interval {low:+.1f} to {high:+.1f}, {p_text(pair['test']['p_holm'], 0.05)})"
        assert f"{pair['verdict']}, {difference:+.1f} points of accuracy {numbers}\n" in text
    assert "The tests are about these trained adapters; p and intervals are corrected for 3 tests:\n" in text
    # A single pair has nothing to be corrected for.
    assert "The tests are about this one trained adapter:\n" in as_text(compare_errors(base=range(20), prompt=range(4)))
    assert [f"note: {flag['text']}" for flag in comparison["flags"]] == text.splitlines()[-len(comparison["flags"]) :]


def test_pair_table_has_the_primary_test_of_each_pair():
    (pair,) = compare_errors(base=range(20), prompt=range(4))["pairs"]
    test = pair["test"] = pair["test"] | {"interval_holm": (0.1, 0.2), "p_holm": 0.3}
    (row,) = pair_table({"pairs": [pair]}).to_dict("records")
    assert (row["pair"], row["decided_by"]) == ("prompt - base", "mcnemar")
    assert (row["low"], row["high"], row["p"]) == (*test["interval"], test["p"])
    assert (row["low_holm"], row["high_holm"], row["p_holm"]) == (0.1, 0.2, 0.3)
    assert row["error_questions"] == test["standard_errors"]["questions"]


@pytest.mark.parametrize(
    ("p", "alpha", "text"),
    [
        (0.0004, 0.05, "p < 0.001"),
        (0.0123, 0.05, "p = 0.012"),
        (0.0496, 0.05, "p = 0.04960"),  # three digits would put it on the level
        (0.0504, 0.05, "p = 0.05040"),
        (0.0998, 1 - 0.9, "p = 0.09980"),
        (1.0, 0.05, "p = 1.000"),
    ],
)
def test_p_text_keeps_p_on_its_side_of_the_level(p, alpha, text):
    assert p_text(p, alpha) == text


# ---------------------------------------------------------------------------------------------------------------------
# The stage


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A workspace in which two folds and two seeds are evaluated; tests copy it."""
    workspace = Workspace(tmp_path_factory.mktemp("run") / "workspace")
    workspace.set(split__protocol="cross_validation", split__folds=[0, 1], train__seeds=[9, 10])
    workspace.set(evaluate__variants=VARIANTS, selected="base", compare__resamples=200)
    write_run(workspace.folder, ["yes", "no"], [9, 10], VARIANTS, folds=[0, 1], questions=20)
    run_stages(workspace.folder, VARIANTS, ())
    return workspace


@pytest.fixture
def finished(evaluated, workspace):
    """The same in a folder of the test's own."""
    shutil.copytree(evaluated.folder, workspace.folder, dirs_exist_ok=True)
    return workspace


@pytest.fixture
def run_here(finished, monkeypatch):
    """The stage in this process, which saves the start of another."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(sys, "argv", ["compare"])
    return stages.compare.main


def read(finished: Workspace) -> dict:
    return json.loads((finished.folder / "comparison/comparison.json").read_text())


def test_the_stage_writes_the_comparison_and_prints_it(finished):
    result = finished.run("compare")
    assert result.returncode == 0, result.stderr
    comparison = read(finished)
    assert comparison["n"] == 40 and comparison["n_train"] == 20
    prompt = comparison["variants"]["prompt"]
    assert set(prompt["replicates"]) == {"9", "10"}
    assert prompt["color"] == variant_color("prompt")
    assert prompt["epochs"] == [
        {"fold": fold, "seed": seed, "kept": 2, "last": 3} for fold in (0, 1) for seed in (9, 10)
    ]
    metrics = json.loads((finished.folder / "metrics/prompt.json").read_text())
    assert prompt["metrics"]["accuracy"] == metrics["accuracy"]
    assert set(prompt["intervals"]) == {"accuracy", "macro_f1", "mcc", "log_loss", "brier"}
    interval = pytest.approx(binomtest(32, 40).proportion_ci(method="wilson"), abs=1e-6)
    assert comparison["humans"]["human_unaided"] == {
        "n": 40,
        "accuracy": 0.8,
        "interval": interval,
        "other_answers": 0.2,
    }
    table = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line[:1].strip()}
    assert len(table["base"]) == 4 and table["human_unaided"] == ["0.800", "-", "-", "-"]
    assert all(pair["verdict"] in result.stdout for pair in comparison["pairs"])
    assert comparison["flags"] and all(f"note: {flag['text']}\n" in result.stdout for flag in comparison["flags"])


def test_curves_of_all_variants_are_in_one_table_with_a_colour_each(finished, run_here):
    run_here()
    folder = finished.folder / "comparison"
    curves = ("confusion", "precision_recall", "reliability", "risk_coverage", "roc")
    assert sorted(path.stem for path in folder.glob("*.csv")) == sorted(["log_loss", "loss", *curves])
    for curve in curves:
        table = pd.read_csv(folder / f"{curve}.csv")
        assert dict(zip(table["variant"], table["color"], strict=True)) == {
            name: variant_color(name) for name in VARIANTS
        }
    loss = pd.read_csv(folder / "loss.csv", dtype=str).query("seed == '9' and fold == '1'")
    assert loss[["variant", "split", "epoch", "loss"]].values.tolist()[:3] == [
        ["prompt", "training", "1", "1.500"],
        ["prompt", "training", "2", "1e0"],
        ["prompt", "training", "3", "0.8"],
    ]
    log_loss = pd.read_csv(folder / "log_loss.csv")
    assert log_loss[["fold", "seed"]].drop_duplicates().values.tolist() == [[0, 9], [0, 10], [1, 9], [1, 10]]


def test_files_of_dropped_seeds_and_variants_are_deleted(finished, run_here):
    finished.set(train__seeds=[9], evaluate__variants=["base", "prompt"])
    run_here()
    assert list(read(finished)["variants"]) == ["base", "prompt"]
    assert finished.files("predictions/prompt") == [
        f"fold-{fold}/seed-9.{kind}" for fold in (0, 1) for kind in ("csv", "json")
    ]
    assert {name.split("/")[0] for name in finished.files("evaluation")} == {"base", "prompt"}
    assert {name.split("/")[2] for name in finished.files("plots/training")} == {"seed-9"}


@pytest.mark.parametrize("path", ["evaluation/prompt/roc.csv", "plots/training/prompt/fold-0/seed-10/epochs.csv"])
def test_a_missing_file_is_named(finished, run_here, path):
    (finished.folder / path).unlink()
    with pytest.raises(UserError, match=rf"^{re.escape(path)} is missing; run `dvc repro`\.$"):
        run_here()


def edit(finished: Workspace, run: str, change) -> None:
    path = finished.folder / f"predictions/{run}.csv"
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def test_variants_on_other_questions_are_refused(finished, run_here):
    for seed in (9, 10):
        edit(finished, f"prompt/fold-0/seed-{seed}", lambda table: table.iloc[:-1])
    with pytest.raises(UserError, match=r"^prompt and majority answer different questions of split 'test'"):
        run_here()


def test_runs_on_other_questions_or_labels_are_refused(finished, run_here):
    edit(finished, "prompt/fold-0/seed-9", lambda table: table.assign(label=np.roll(table["label"], 1)))
    with pytest.raises(
        UserError,
        match=r"^predictions/prompt: runs differ in the questions or labels of split 'test', or in their order; run",
    ):
        run_here()


def test_variant_color_follows_from_the_name_alone():
    assert variant_color("mine") == "#24578f"  # in this process and in any other
    names = ["base", "fewshot", "prompt", "prefix", "lora", "mine", "other"]
    assert len({variant_color(name) for name in names}) == len(names)
