"""The stage compare on prediction files whose outcome is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stages.compare
from peftqa import metrics
from peftqa.comparison import ONE_SEED, compare
from peftqa.errors import UserError
from peftqa.palette import variant_color
from peftqa.params import Params, read_params
from peftqa.predictions import SplitPredictions, prediction_table
from peftqa.significance import smallest_detectable_difference

LABELS = ["yes", "no"]
N = 89
TRUTH = np.resize(["yes", "no", "yes"], N)
BOOTSTRAPPED = {"accuracy", "macro_f1", "mcc", "log_loss", "brier"}


def with_errors(*wrong: int, n: int = N) -> np.ndarray:
    """Probabilities (n, 2) that are right but for the questions named."""
    p_true = np.where(np.isin(np.arange(n), wrong), 0.3, 0.9)
    p_yes = np.where(TRUTH[:n] == "yes", p_true, 1 - p_true)
    return np.stack([p_yes, 1 - p_yes], axis=1)


def predictions(*seeds: np.ndarray) -> SplitPredictions:
    n = len(seeds[0])
    return SplitPredictions(
        [str(i) for i in range(n)], list(TRUTH[:n]), list(range(1, len(seeds) + 1)), np.stack(seeds)
    )


@pytest.fixture
def params_of(workspace):
    """Parameters with the variants named, adapters but for base; written to the workspace too."""

    def params_of(*variants: str, **values: object) -> Params:
        adapters = {name: {"method": "ia3", "learning_rate": 0.1} for name in variants if name != "base"}
        paths = {name: "models/base/config.json" if name == "base" else f"models/adapters/{name}" for name in variants}
        workspace.set(adapters=adapters, evaluate__variants=paths, selected=variants[0], **values)
        return read_params(workspace.folder / "params.yaml")

    return params_of


def compare_errors(params: Params, **wrong: range) -> dict:
    """The comparison of variants that err on the questions given, validation equal for all."""
    test = {name: predictions(with_errors(*errors)) for name, errors in wrong.items()}
    return compare(test, dict.fromkeys(test, predictions(with_errors(0, 1))), params)


def test_a_difference_is_shown_where_the_corrected_p_is_small(params_of):
    result = compare_errors(params_of("base", "prompt"), base=range(20), prompt=range(4))
    (pair,) = result["pairs"]
    assert (pair["variant"], pair["reference"]) == ("prompt", "base")
    assert pair["differences"]["accuracy"] == pytest.approx(16 / N)
    low, high = pair["intervals"]["accuracy"]
    assert low < 16 / N < high
    assert pair["mcnemar"] == pytest.approx(
        {"only_variant_right": 16, "only_reference_right": 0, "p": 2**-15, "p_holm": 2**-15}
    )
    assert pair["difference_shown"] is True
    assert pair["verdict"] == "prompt answers more questions correctly than base (p < 0.001 after Holm's correction)"


def test_fewer_right_answers_are_called_fewer(params_of):
    (pair,) = compare_errors(params_of("base", "prompt"), base=range(4), prompt=range(20))["pairs"]
    assert pair["differences"]["accuracy"] == pytest.approx(-16 / N)
    assert pair["verdict"].startswith("prompt answers fewer questions correctly than base")


def test_the_verdict_follows_the_corrected_p_and_nothing_else(params_of):
    # Six questions of six: p is 1/32 and the interval leaves zero out, which is enough alone but not as one of three.
    alone = compare_errors(params_of("base", "prompt"), base=range(6), prompt=())
    assert alone["pairs"][0]["difference_shown"] is True
    result = compare_errors(params_of("base", "prompt", "prefix"), base=range(6), prompt=(), prefix=(0, 7, 8))
    pair = result["pairs"][0]
    assert pair["mcnemar"]["p"] == pytest.approx(2 / 2**6)
    assert pair["mcnemar"]["p_holm"] == pytest.approx(3 * 2 / 2**6)
    assert pair["intervals"]["accuracy"][0] > 0
    assert pair["difference_shown"] is False
    assert pair["verdict"] == "no difference was shown between prompt and base (p = 0.094 after Holm's correction)"


def test_every_two_variants_are_compared_once_with_base_as_the_reference(params_of):
    variants = {"prompt": range(9), "base": range(20), "prefix": range(3)}
    result = compare_errors(params_of(*variants), **variants)
    names = [(pair["variant"], pair["reference"]) for pair in result["pairs"]]
    assert names == [("prompt", "base"), ("prefix", "base"), ("prefix", "prompt")]
    assert list(result["variants"]) == ["prompt", "base", "prefix"]
    p = {pair: row["mcnemar"] for pair, row in zip(names, result["pairs"], strict=True)}
    smallest, middle, largest = (2**-16, 2**-10, 2**-5)  # 17, 11 and 6 discordant questions, all one way
    assert p["prefix", "base"]["p_holm"] == pytest.approx(3 * smallest)
    assert p["prompt", "base"]["p_holm"] == pytest.approx(2 * middle)
    assert p["prefix", "prompt"]["p_holm"] == pytest.approx(largest)


def test_equal_answers_show_no_difference_and_no_detectable_one(params_of):
    (pair,) = compare_errors(params_of("base", "prompt"), base=range(5), prompt=range(5))["pairs"]
    assert pair["mcnemar"] == {"only_variant_right": 0, "only_reference_right": 0, "p": 1.0, "p_holm": 1.0}
    assert pair["verdict"] == "no difference was shown between prompt and base (p = 1.000 after Holm's correction)"
    assert pair["intervals"]["accuracy"] == (0, 0)
    assert pair["smallest_detectable_difference"]["accuracy"] is None


def test_the_detectable_difference_is_that_of_holms_first_step(params_of):
    variants = {"base": range(20), "prompt": range(10, 25), "prefix": range(3)}
    detectable = compare_errors(params_of(*variants), **variants)["pairs"][0]["smallest_detectable_difference"]
    assert detectable["discordance"] == pytest.approx(15 / N)
    assert detectable["alpha"] == pytest.approx(0.05 / 3)
    assert detectable["accuracy"] == smallest_detectable_difference(15 / N, N, 0.05 / 3, 0.8)


def test_several_seeds_are_compared_by_means_and_tested_by_averaged_probabilities(params_of):
    params = params_of("base", "prompt")
    # Question 0 is right in one seed of two, with more confidence than it is wrong: right on average.
    seeds = with_errors(0, 1, 2), with_errors(1)
    test = {"base": predictions(with_errors(1, 2)), "prompt": predictions(*seeds)}
    result = compare(test, test, params)
    prompt, (pair,) = result["variants"]["prompt"], result["pairs"]
    assert prompt["per_seed"][1]["accuracy"] == pytest.approx(1 - 3 / N)
    assert prompt["per_seed"][2]["accuracy"] == pytest.approx(1 - 1 / N)
    assert prompt["metrics"]["accuracy"] == pytest.approx(1 - 2 / N)
    assert prompt["seed_averaged"]["accuracy"] == pytest.approx(1 - 1 / N)
    assert pair["differences"]["accuracy"] == pytest.approx(0)
    assert pair["mcnemar"]["only_variant_right"] == 1
    assert result["note"] is None


def test_one_seed_is_said_to_say_nothing_about_training(params_of):
    result = compare_errors(params_of("base", "prompt"), base=range(3), prompt=range(4))
    assert result["note"] == ONE_SEED == "one seed: says nothing about training variance"
    assert compare_errors(params_of("base"), base=range(3))["note"] is None


def test_one_variant_alone_has_no_pairs(params_of):
    result = compare_errors(params_of("base"), base=range(3))
    assert result["pairs"] == []
    assert result["variants"]["base"]["metrics"]["accuracy"] == pytest.approx(1 - 3 / N)


def test_intervals_of_a_pair_do_not_depend_on_other_variants(params_of):
    seeds = [with_errors(*range(k)) for k in (3, 5, 9)]
    test = {"base": predictions(with_errors(*range(8))), "prompt": predictions(*seeds), "prefix": predictions(*seeds)}
    three = compare(test, test, params_of(*test))
    # The same seeds, yet drawn for each by itself.
    low, high = three["pairs"][2]["intervals"]["accuracy"]
    assert low < 0 < high
    del test["prompt"]
    two = compare(test, test, params_of(*test))
    assert three["variants"]["prefix"] == two["variants"]["prefix"]
    assert three["pairs"][1]["intervals"] == two["pairs"][0]["intervals"]


def test_the_threshold_comes_from_validation_and_is_set_beside_a_half(params_of):
    truth = ["yes", "yes", "no", "no"]
    p_val, p_test = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.9, 0.7, 0.7, 0.2])
    val, test = (
        SplitPredictions(list("abcd"), truth, [0], np.stack([p, 1 - p], axis=1)[None]) for p in (p_val, p_test)
    )
    base = compare({"base": test}, {"base": val}, params_of("base", evaluate__coverage=0.5))["variants"]["base"]
    assert base["threshold"]["label"] == "yes"
    assert base["threshold"]["value"] == pytest.approx(0.75)
    assert base["threshold"]["at_half"]["accuracy"] == pytest.approx(3 / 4)
    assert base["threshold"]["at_value"]["accuracy"] == pytest.approx(3 / 4)
    assert base["threshold"]["at_value"]["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert base["abstention"] == {"coverage": 0.5, "accuracy": 1.0}  # .9 right, and .8 for no


def test_three_labels_have_no_threshold_and_one_absent_from_truth_has_no_auc_difference(params_of):
    params = params_of("base", "prompt", data__labels=["yes", "no", "maybe"])
    rng = np.random.default_rng(0)
    test = {name: predictions(rng.dirichlet(np.ones(3), N)) for name in ("base", "prompt")}
    result = compare(test, test, params)
    assert result["variants"]["base"]["threshold"] is None
    assert result["pairs"][0]["differences"]["roc_auc"] is None
    assert result["pairs"][0]["differences"]["f1_maybe"] == 0
    json.dumps(result, allow_nan=False)


# The stage itself.


def write_variant(folder: Path, name: str, seeds: dict[int, np.ndarray], truth: np.ndarray = TRUTH) -> None:
    """What evaluate and train leave of one variant."""
    ids = [f"{i:08}" for i in range(len(truth))]
    (folder / "predictions").mkdir(exist_ok=True)
    parts = [
        prediction_table(split, seed, ids, truth, p, LABELS) for seed, p in seeds.items() for split in ("val", "test")
    ]
    pd.concat(parts).to_csv(folder / f"predictions/{name}.csv", index=False)
    curves = folder / "plots/evaluation" / name
    curves.mkdir(parents=True, exist_ok=True)
    for curve, table in metrics.curves(np.mean(list(seeds.values()), axis=0), truth, LABELS, 10).items():
        table.assign(variant=name).to_csv(curves / f"{curve}.csv", index=False)
    for seed in seeds if name != "base" else ():
        live = folder / f"plots/training/{name}/seed-{seed}/plots/metrics"
        for path, values in {
            "epoch": [1, 2],
            "train/loss": ["0.750", "1e-3"],
            "val/loss": [0.7, 0.6],
            "val/macro_f1": [0.5, 0.6],
        }.items():
            (live / path).parent.mkdir(parents=True, exist_ok=True)
            table = pd.DataFrame({"step": [89, 178], path.split("/")[-1]: values})
            table.to_csv(live / f"{path}.tsv", sep="\t", index=False)


@pytest.fixture
def finished(workspace, params_of):
    """A workspace in which base and prompt are evaluated."""
    params_of("base", "prompt")
    write_variant(workspace.folder, "base", {0: with_errors(*range(20))})
    write_variant(workspace.folder, "prompt", {9: with_errors(*range(4)), 10: with_errors(*range(6))})
    return workspace


@pytest.fixture
def run_here(finished, monkeypatch):
    """The stage in this process, which saves the start of another."""
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr(sys, "argv", ["compare"])
    return stages.compare.main


def test_the_stage_writes_the_comparison_and_prints_it_with_the_reference_rows(finished):
    (finished.folder / "metrics").mkdir()
    rows = {"majority": {"n": N, "accuracy": 0.6179, "macro_f1": 0.3819}}
    (finished.folder / "metrics/baselines.json").write_text(json.dumps(rows))
    result = finished.run("compare")
    assert result.returncode == 0, result.stderr
    printed = result.stdout
    comparison = json.loads((finished.folder / "metrics/comparison.json").read_text())
    assert comparison["n"] == N
    assert comparison["variants"]["prompt"]["seeds"] == [9, 10]
    assert set(comparison["variants"]["prompt"]["per_seed"]) == {"9", "10"}
    assert comparison["variants"]["prompt"]["color"] == variant_color("prompt")
    assert comparison["variants"]["prompt"]["metrics"]["accuracy"] == round(1 - 5 / N, 6)
    assert set(comparison["pairs"][0]["intervals"]) == BOOTSTRAPPED
    assert comparison["pairs"][0]["mcnemar"]["p"] < 1e-4
    table = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line[:1].strip()}
    assert table["majority"] == ["0.618", "0.382", "-", "-"]
    assert table["base"][0] == "0.775" and len(table["base"]) == 4
    assert comparison["pairs"][0]["verdict"] in printed
    assert "accuracy  +0.169  95% interval" in printed


def test_curves_of_all_variants_stand_together_one_colour_each(finished, run_here):
    run_here()
    folder = finished.folder / "plots/comparison"
    assert sorted(path.stem for path in folder.iterdir()) == [
        *("confusion", "loss", "macro_f1", "precision_recall", "reliability", "risk_coverage", "roc"),
    ]
    for curve in ("confusion", "precision_recall", "reliability", "risk_coverage", "roc"):
        table = pd.read_csv(folder / f"{curve}.csv")
        assert dict(zip(table["variant"], table["color"], strict=True)) == {
            "base": variant_color("base"),
            "prompt": variant_color("prompt"),
        }
    loss = pd.read_csv(folder / "loss.csv", dtype=str).query("seed == '9'")
    assert loss[["split", "epoch", "loss"]].values.tolist() == [
        ["training", "1", "0.750"],
        ["training", "2", "1e-3"],
        ["validation", "1", "0.7"],
        ["validation", "2", "0.6"],
    ]
    assert pd.read_csv(folder / "macro_f1.csv")["seed"].tolist() == [9, 9, 10, 10]


def test_files_of_a_variant_that_is_not_listed_are_left_alone(finished, run_here, params_of):
    params_of("base")
    (finished.folder / "predictions/prompt.csv").write_text("nothing\n")
    run_here()
    assert list(json.loads((finished.folder / "metrics/comparison.json").read_text())["variants"]) == ["base"]
    assert set(pd.read_csv(finished.folder / "plots/comparison/roc.csv")["variant"]) == {"base"}


def test_two_runs_write_the_same_bytes(finished, run_here):
    written = []
    for _ in range(2):
        run_here()
        written.append((finished.folder / "metrics/comparison.json").read_bytes())
    assert written[0] == written[1]


def test_missing_predictions_are_named(finished, refused):
    (finished.folder / "predictions/prompt.csv").unlink()
    assert "predictions/prompt.csv is missing; run `dvc repro evaluate@prompt`." in refused(finished.run("compare"))


def test_missing_curves_are_named(finished, run_here):
    (finished.folder / "plots/evaluation/prompt/roc.csv").unlink()
    with pytest.raises(UserError, match=r"^plots/evaluation/prompt/roc\.csv is missing; run `dvc repro`\.$"):
        run_here()


def test_variants_on_other_questions_are_refused(finished, run_here):
    write_variant(finished.folder, "prompt", {9: with_errors(n=80)}, TRUTH[:80])
    with pytest.raises(
        UserError, match=r"prompt\.csv and predictions/base\.csv differ in the questions of split 'test'"
    ):
        run_here()


def test_variants_on_other_labels_of_the_same_questions_are_refused(finished, run_here):
    write_variant(finished.folder, "prompt", {9: with_errors()}, np.roll(TRUTH, 1))
    with pytest.raises(UserError, match=r"differ in the labels of their questions of split 'test'; run `dvc repro`\."):
        run_here()


def test_predictions_without_one_of_the_splits_are_refused(finished, run_here):
    path = finished.folder / "predictions/prompt.csv"
    table = pd.read_csv(path, dtype=str)
    table[table["split"] == "test"].to_csv(path, index=False)
    with pytest.raises(UserError, match=r"prompt\.csv: no predictions on split 'val'; run `dvc repro evaluate@prompt`"):
        run_here()


def test_predictions_for_other_labels_are_refused(finished, run_here):
    finished.set(data__labels=["yes", "no", "maybe"])
    with pytest.raises(UserError, match=r"predictions/base\.csv was not written for the labels yes, no, maybe"):
        run_here()


def test_a_colour_follows_from_the_name_alone():
    assert variant_color("mine") == "#24578f"  # in this process and in any other
    names = ["base", "fewshot", "prompt", "prefix", "lora", "mine", "other"]
    colors = {name: variant_color(name) for name in names}
    assert len(set(colors.values())) == len(names)
    assert all(len(color) == 7 and int(color[1:], 16) >= 0 for color in colors.values())
