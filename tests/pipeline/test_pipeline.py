"""The whole pipeline on the real records, run by the real DVC."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import accuracy_score, f1_score, log_loss

from peftqa.digest import file_sha256
from tests.conftest import ROOT
from tests.pipeline.conftest import SHORT

VARIANTS = ("base", "prompt", "prefix")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_stage_writes_what_the_design_names(finished):
    for variant in VARIANTS:
        for path in (
            f"metrics/{variant}.json",
            f"metrics/per_seed/{variant}.json",
            f"predictions/{variant}.csv",
            f"runtime/evaluate-{variant}.json",
        ):
            assert (finished.folder / path).is_file(), path
    for adapter in ("prompt", "prefix"):
        assert (finished.folder / f"models/adapters/{adapter}/seed-42/adapter_model.safetensors").is_file()
        assert (finished.folder / f"runtime/train-{adapter}.json").is_file()
    assert not (finished.folder / ".checkpoints").exists() or not list((finished.folder / ".checkpoints").iterdir())


def test_metrics_show_prints_base_prompt_and_prefix(finished):
    shown = finished("dvc", "metrics", "show")
    for variant in (*VARIANTS, "selected"):
        assert f"metrics/{variant}.json" in shown
    assert "per_seed" not in shown and "comparison" not in shown


def test_a_second_repro_does_nothing(finished):
    before = finished.bytes()
    shown = finished("dvc", "repro")
    assert "Data and pipelines are up to date." in shown
    assert "Running stage" not in shown
    assert finished.bytes() == before


def test_git_sees_only_parameters_the_lock_file_and_metrics(finished):
    changed = {line[3:] for line in finished("git", "status", "--porcelain", "--untracked-files=all").splitlines()}
    assert {"params.yaml", "dvc.lock"} <= changed
    assert all(path in ("params.yaml", "dvc.lock") or path.startswith("metrics/") for path in changed)


def test_an_output_that_is_no_terminal_has_one_line_an_epoch_and_no_bar(finished):
    assert len(re.findall(r"prefix, seed 42 epoch 1/1: loss ", finished.output)) == 1
    assert "it/s" not in finished.output and "\r" not in finished.output and "Warning" not in finished.output


def test_the_split_is_the_known_one(finished):
    counts = {
        name: pd.read_csv(finished.folder / f"data/split/{name}.csv")["label"].value_counts().to_dict()
        for name in ("train", "val", "test")
    }
    assert counts == {"train": {"yes": 442, "no": 270}, "val": {"yes": 55, "no": 34}, "test": {"yes": 55, "no": 34}}


def test_no_conclusion_is_in_any_table(finished, real_file):
    records = json.loads(real_file.read_text(encoding="utf-8"))
    for name in ("train", "val", "test"):
        table = pd.read_csv(finished.folder / f"data/split/{name}.csv", dtype={"id": str}, keep_default_na=False)
        assert list(table.columns) == ["id", "question", "context", "label"]
        for row in table.itertuples():
            conclusion = " ".join(records[row.id]["LONG_ANSWER"].split())
            assert conclusion not in row.context or conclusion in " ".join(
                " ".join(records[row.id]["CONTEXTS"]).split()
            )


def test_metrics_agree_with_the_predictions(finished):
    for variant in VARIANTS:
        metrics = read_json(finished.folder / f"metrics/{variant}.json")
        table = pd.read_csv(finished.folder / f"predictions/{variant}.csv", dtype={"id": str}, keep_default_na=False)
        assert list(table.columns) == ["split", "seed", "id", "label", "prediction", "p_yes", "p_no"]
        assert table.groupby("split").size().to_dict() == {"test": 89, "val": 89}
        for split, prefix in (("test", ""), ("val", "val_")):
            rows = table[table["split"] == split]
            ids = pd.read_csv(finished.folder / f"data/split/{split}.csv", dtype=str)["id"]
            assert list(rows["id"]) == list(ids)
            wanted = {
                "accuracy": accuracy_score(rows["label"], rows["prediction"]),
                "macro_f1": f1_score(
                    rows["label"], rows["prediction"], average="macro", labels=["yes", "no"], zero_division=0
                ),
                "log_loss": log_loss(rows["label"] == "yes", rows["p_yes"]),
            }
            for name, value in wanted.items():
                assert metrics[prefix + name] == pytest.approx(value, abs=1e-6)
        assert np.allclose(table["p_yes"] + table["p_no"], 1)
        assert read_json(finished.folder / f"metrics/per_seed/{variant}.json").keys() == {
            "0" if variant == "base" else "42"
        }


def test_adapters_report_their_size_and_base_has_none(finished):
    assert "trainable_params" not in read_json(finished.folder / "metrics/base.json")
    for adapter in ("prompt", "prefix"):
        metrics = read_json(finished.folder / f"metrics/{adapter}.json")
        weights = finished.folder / f"models/adapters/{adapter}/seed-42/adapter_model.safetensors"
        assert metrics["adapter_bytes"] == weights.stat().st_size
        assert metrics["trainable_params"] > 0 and 0 < metrics["trainable_percent"] < 100


def test_curves_have_a_row_an_epoch_and_nothing_that_varies(finished):
    for adapter in ("prompt", "prefix"):
        folder = finished.folder / f"plots/training/{adapter}/seed-42"
        names = ("train/loss", "val/loss", "val/log_loss", "val/accuracy", "val/macro_f1")
        for name in names:
            table = pd.read_csv(folder / f"plots/metrics/{name}.tsv", sep="\t")
            assert list(table.columns) == ["step", name.split("/")[1]] and list(table["step"]) == [23]


def test_two_clones_give_the_same_bytes(finished, new_clone, model_params):
    other = new_clone("other")
    other.exp_run(*model_params, *SHORT)
    ours, theirs = finished.bytes(), other.bytes()
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path] and not path.startswith("report/")] == []


def test_nothing_that_is_hashed_names_a_path_of_this_machine(finished, tiny_model):
    for path, content in finished.bytes().items():
        if path.startswith(("metrics/", "predictions/", "plots/", "models/adapters/")):
            text = content.replace(str(tiny_model).encode(), b"")  # the model's name, as params.yaml gives it
            assert str(finished.folder).encode() not in text and str(finished.home).encode() not in text, path


def test_compare_records_variants_as_experiments_that_metrics_diff_sets_side_by_side(finished):
    before = (finished.folder / "params.yaml").read_bytes(), finished("git", "status", "--porcelain")
    # The environment that runs this test stands in for the one that make would set up.
    for _ in range(2):  # the second time replaces the first
        shown = finished("make", "compare", "SETUP=")
        assert "Running stage 'train" not in shown and "Running stage 'evaluate" not in shown
    shown = finished("dvc", "metrics", "diff", "base", "prefix", "--json", "--targets", "metrics/selected.json")
    difference = json.loads(shown)["metrics/selected.json"]
    for name in ("accuracy", "log_loss"):
        old, new = (read_json(finished.folder / f"metrics/{variant}.json")[name] for variant in ("base", "prefix"))
        if old != new:
            assert difference[name]["old"] == pytest.approx(old) and difference[name]["new"] == pytest.approx(new)
    assert ((finished.folder / "params.yaml").read_bytes(), finished("git", "status", "--porcelain")) == before


def test_plots_show_draws_every_curve_with_one_colour_a_variant(finished):
    shown = json.loads(finished("dvc", "plots", "show", "--json"))["data"]
    names = ("loss", "macro_f1", "roc", "precision_recall", "reliability", "confusion", "risk_coverage")
    assert {f"plots/comparison/{name}.csv" for name in names} <= shown.keys()
    colors = {}
    for name in names:
        for row in pd.read_csv(finished.folder / f"plots/comparison/{name}.csv").itertuples():
            colors.setdefault(row.variant, set()).add(row.color)
    assert colors.keys() == set(VARIANTS) and all(len(color) == 1 for color in colors.values())
    assert len(set.union(*colors.values())) == len(VARIANTS)


def test_a_changed_number_reruns_what_depends_on_it_and_no_more(finished):
    assert json.loads(finished("dvc", "status", "--json", "dvc.yaml")) == {}
    params = finished.folder / "params.yaml"
    text = params.read_text()
    try:
        params.write_text(text.replace("calibration_bins: 10", "calibration_bins: 5"))
        stale = set(json.loads(finished("dvc", "status", "--json", "dvc.yaml")))
    finally:
        params.write_text(text)
    assert {"evaluate@base", "evaluate@prompt", "evaluate@prefix", "compare"} <= stale
    assert not any(stage.startswith(("train", "split", "clean", "download", "fetch_model")) for stage in stale)


def test_other_methods_are_new_keys_and_no_new_code(finished, new_clone, model_params):
    clone = new_clone("methods")
    methods = {
        "lora": "{method: lora, r: 2, alpha: 4, learning_rate: 0.01}",
        "peft_prefix": "{method: prefix_tuning, num_virtual_tokens: 5, learning_rate: 0.01}",
    }
    path, yaml = clone.folder / "params.yaml", YAML()
    params = yaml.load(path)
    for name, adapter in methods.items():
        params["adapters"][name] = YAML(typ="safe").load(adapter)
        params["evaluate"]["variants"][name] = f"models/adapters/{name}"
    params["evaluate"]["variants"]["fewshot"] = "models/base/config.json"
    params["evaluate"]["few_shot"] = 2
    params["data"]["labels"] = ["yes", "no", "maybe"]
    params["split"]["protocol"] = "official"
    params["train"]["seeds"] = [1, 2]
    yaml.dump(params, path)
    clone.exp_run(*model_params, *SHORT)
    dataset = read_json(clone.folder / "metrics/dataset.json")
    assert dataset["labels"] == {"yes": 552, "no": 338, "maybe": 110}
    for variant in (*VARIANTS, "fewshot", *methods):
        metrics = read_json(clone.folder / f"metrics/{variant}.json")
        assert metrics["n"] == 500
        assert {"f1_maybe", "precision_maybe", "recall_maybe", "roc_auc", "brier"} <= metrics.keys()
        seeds = read_json(clone.folder / f"metrics/per_seed/{variant}.json")
        assert set(seeds) == ({"0"} if variant in ("base", "fewshot") else {"1", "2"})
        assert metrics["accuracy"] == pytest.approx(np.mean([seed["accuracy"] for seed in seeds.values()]), abs=1e-6)
        submission = read_json(clone.folder / f"predictions/{variant}.leaderboard.json")
        official = json.loads(clone.source.with_name("test_ground_truth.json").read_text())
        assert submission.keys() == official.keys() and set(submission.values()) <= {"yes", "no", "maybe"}
    assert len(read_json(clone.folder / "metrics/comparison.json")["pairs"]) == 6 * 5 // 2


def test_the_committed_lock_file_holds_the_data_stages_as_they_ran_on_the_real_file(real_file):
    stages = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert {"download", "clean", "split"} <= stages.keys()
    for name in ("download", "clean", "split"):
        for group in stages[name]["params"]["params.yaml"].items():
            key, value = group
            wanted = params
            for part in key.split("."):
                wanted = wanted[part]
            assert value == wanted, f"{name}: {key}"
    outs = {out["path"]: out for name in ("download", "clean", "split") for out in stages[name]["outs"]}
    assert outs["data/raw/ori_pqal.json"]["size"] == real_file.stat().st_size
    assert file_sha256(real_file) == params["data"]["sha256"]


def test_the_committed_lock_file_is_up_to_date(new_clone):
    clone = new_clone("lock")
    shown = clone("dvc", "repro", "split")
    assert "Updating lock file" not in shown, "run `dvc repro split` and commit dvc.lock"
    assert clone("git", "status", "--porcelain") == ""
