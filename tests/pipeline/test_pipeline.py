"""The whole pipeline on the embedded records, run by the real DVC."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import accuracy_score, f1_score, log_loss

from peftqa.config.params import read_params
from peftqa.data.digest import folder_digest
from peftqa.model.task import confidence_quantiles, read_task
from tests.clone import ran
from tests.conftest import ROOT

VARIANTS = {"majority": 0, "tfidf": 0, "base": 0, "calibrated": 0, "question_only": 0, "prompt": 42, "prefix": 42}
ADAPTERS = ("prompt", "prefix")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_predictions(clone, variant, fold=0, seed=None):
    path = clone.folder / f"predictions/{variant}/fold-{fold}/seed-{VARIANTS[variant] if seed is None else seed}.csv"
    return pd.read_csv(path, dtype={"id": str}, keep_default_na=False)


def test_an_adapter_has_its_task_its_curve_its_size_and_a_release(finished):
    params = read_params(finished.folder / "params.yaml")
    assert not list((finished.folder / ".checkpoints").iterdir())
    assert "trainable_params" not in read_json(finished.folder / "metrics/base.json")
    for adapter in ADAPTERS:
        for stage in ("train", "predict"):
            assert (finished.folder / f"runtime/{stage}/{adapter}/fold-0/seed-42.json").is_file()
        for name in ("adapter_config.json", "adapter_model.safetensors", "task.json", "README.md"):
            assert (finished.folder / f"release/{adapter}/{name}").is_file()
        about = read_json(finished.folder / f"predictions/{adapter}/fold-0/seed-42.json")
        weights = finished.folder / f"models/adapters/{adapter}/fold-0/seed-42/adapter_model.safetensors"
        assert about["adapter_bytes"] == weights.stat().st_size
        trained = read_json(finished.folder / f"metrics/{adapter}.json")["trainable_params"]
        assert trained == about["trainable_params"] > 0
        curve = pd.read_csv(finished.folder / f"plots/training/{adapter}/fold-0/seed-42/epochs.csv")
        values = ["loss", "val_loss", "val_log_loss", "val_accuracy", "val_macro_f1"]
        assert list(curve.columns) == ["epoch", "step", *values]
        assert curve[["epoch", "step"]].values.tolist() == [[1, 12]]
        task = read_task(finished.folder / f"models/adapters/{adapter}/fold-0/seed-42")
        assert (task.labels, task.template) == (params.data.labels, params.template)
        assert (task.base_model.name, task.base_model.revision) == (params.model.name, None)
        assert task.base_model.digest == folder_digest(finished.folder / "models/base")
        table = read_predictions(finished, adapter)
        answers = table.loc[table["split"] == "val", ["p_yes", "p_no"]].to_numpy()
        assert np.allclose(task.confidence, confidence_quantiles(answers), atol=1e-3)  # other batches, other rounding


def test_metrics_show_is_one_table_of_120_columns(finished):
    shown = finished("dvc", "metrics", "show")
    rows = [line.split()[0] for line in shown.splitlines()[1:]]
    assert sorted(rows) == sorted(f"metrics/{name}.json" for name in (*VARIANTS, "selected"))
    columns = {"Path", "n", "accuracy", "macro_f1", "log_loss", "val_log_loss", "trainable_params"}
    assert set(shown.splitlines()[0].split()) == columns
    assert max(map(len, shown.splitlines())) <= 120


def test_a_second_repro_does_nothing_and_git_sees_only_parameters_the_lock_file_and_metrics(finished):
    before = finished.bytes()
    shown = finished("dvc", "repro")
    assert "Data and pipelines are up to date." in shown
    assert not ran(shown) and finished.bytes() == before
    assert finished("git", "status", "--porcelain") == ""
    changed = finished("git", "show", "--name-only", "--format=").split()
    assert {"params.yaml", "dvc.lock", "metrics/pairs.csv"} <= set(changed)
    assert all(path in ("params.yaml", "dvc.lock") or path.startswith("metrics/") for path in changed)


def test_output_to_a_file_has_one_line_per_epoch_and_no_bar(finished):
    assert len(re.findall(r"prefix, fold 0, seed 42 epoch 1/1: loss ", finished.output)) == 1
    assert "it/s" not in finished.output and "\r" not in finished.output and "Warning" not in finished.output


def test_metrics_agree_with_the_predictions(finished):
    for variant in VARIANTS:
        metrics = read_json(finished.folder / f"metrics/{variant}.json")
        table = read_predictions(finished, variant)
        assert list(table.columns) == ["split", "fold", "seed", "id", "label", "prediction", "p_yes", "p_no"]
        assert table.groupby("split").size().to_dict() == {"test": 89, "val": 89}
        for split, prefix in (("test", ""), ("val", "val_")):
            rows = table[table["split"] == split]
            ids = pd.read_csv(finished.folder / f"data/split/fold-0/{split}.csv", dtype=str)["id"]
            assert list(rows["id"]) == list(ids)
            wanted = {
                "accuracy": accuracy_score(rows["label"], rows["prediction"]),
                "macro_f1": f1_score(
                    rows["label"], rows["prediction"], average="macro", labels=["yes", "no"], zero_division=0
                ),
                "log_loss": log_loss(rows["label"] == "yes", rows["p_yes"]),
            }
            everything = read_json(finished.folder / f"evaluation/{variant}/metrics.json")["mean"]
            for name, value in wanted.items():
                assert everything[prefix + name] == pytest.approx(value, abs=1e-6)
                assert metrics.get(prefix + name, everything[prefix + name]) == everything[prefix + name]
        assert np.allclose(table["p_yes"] + table["p_no"], 1)


def test_training_and_prediction_give_the_same_bytes_in_another_folder(finished, new_clone, tiny_model):
    other = new_clone("other")
    other("dvc", "repro", "predict@prefix-0-42", "predict@prompt-0-42", "predict_untrained@base-0")
    ours, theirs = finished.bytes(), other.bytes()
    theirs = {path: content for path, content in theirs.items() if not path.startswith("metrics/")}  # git's
    assert {path.split("/")[0] for path in theirs} == {"data", "models", "plots", "predictions"}
    assert [path for path in theirs if ours[path] != theirs[path]] == []
    for path, content in ours.items():  # nor is a path of this machine in the other files
        if not path.startswith(("data/", "models/base/")):
            text = content.replace(str(tiny_model).encode(), b"")  # the model's name, as params.yaml gives it
            assert str(finished.folder).encode() not in text and str(finished.home).encode() not in text, path


def test_a_second_clone_takes_all_from_a_remote_and_runs_nothing(finished, tmp_path):
    remote = tmp_path / "remote"
    finished("dvc", "remote", "add", "--force", "--local", "--default", "lab", str(remote))
    finished("dvc", "push", "--quiet", "--run-cache")
    committed, fresh = tmp_path / "committed", tmp_path / "fresh"
    for folder in (committed, fresh):
        finished("git", "clone", "--quiet", str(finished.folder), str(folder))
        finished("sh", "-c", 'cd "$0" && dvc remote add -q --local -d lab "$1"', str(folder), str(remote))
    # One clone has dvc.lock and metrics/ as committed. The other has neither, as a colleague who only shares a remote.
    for path in ("dvc.lock", "metrics"):
        target = fresh / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    for folder in (committed, fresh):
        shown = finished("sh", "-c", 'cd "$0" && dvc repro --pull', str(folder))
        allowed = {"evaluate", "compare", "select"} if folder == fresh else set()  # they write what git should have
        assert {stage.partition("@")[0] for stage in ran(shown)} <= allowed, shown
        for path, content in finished.bytes().items():
            assert (folder / path).read_bytes() == content, path


def test_compare_records_variants_as_experiments_that_metrics_diff_compares(finished):
    before = (finished.folder / "params.yaml").read_bytes(), finished("git", "status", "--porcelain")
    for variants in (["base", "prefix"], ["base"]):  # the second replaces the first
        assert set(ran(finished("python", "-m", "experiments.compare", *variants))) <= {"select"}
    shown = finished("dvc", "metrics", "diff", "base", "prefix", "--json", "--targets", "metrics/selected.json")
    difference = json.loads(shown)["metrics/selected.json"]
    for name in ("accuracy", "log_loss"):
        old, new = (read_json(finished.folder / f"metrics/{variant}.json")[name] for variant in ("base", "prefix"))
        if old != new:
            assert difference[name]["old"] == pytest.approx(old) and difference[name]["new"] == pytest.approx(new)
    assert ((finished.folder / "params.yaml").read_bytes(), finished("git", "status", "--porcelain")) == before


def test_plots_show_draws_every_curve_with_one_colour_per_variant(finished):
    shown = json.loads(finished("dvc", "plots", "show", "--json"))["data"]
    names = ("loss", "log_loss", "roc", "precision_recall", "reliability", "confusion", "risk_coverage")
    assert {f"comparison/{name}.csv" for name in names} | {"metrics/pairs.csv"} <= shown.keys()
    colors = {}
    for name in names:
        for row in pd.read_csv(finished.folder / f"comparison/{name}.csv").itertuples():
            colors.setdefault(row.variant, set()).add(row.color)
    assert colors.keys() == set(VARIANTS) and all(len(color) == 1 for color in colors.values())
    assert len(set.union(*colors.values())) == len(VARIANTS)


@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("peftqa/config/params.py", set()),
        ("peftqa/program.py", set()),
        ("peftqa/report/wording.py", {"report", "publish"}),
        ("peftqa/data/records.py", {"clean", "split", "compare"}),
        ("peftqa/model/fast/kernels.cpp", {"train", "predict", "predict_untrained"}),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it_and_no_more(finished, path, stale):
    file = finished.folder / path
    before = file.read_text()
    try:
        file.write_text(before + ("// a word\n" if path.endswith(".cpp") else "# a word\n"))
        found = {stage.partition("@")[0] for stage in finished.status()}
    finally:
        file.write_text(before)
    # A report and a card also depend on what the other stages write; only what the edit itself reaches matters here.
    assert stale <= found and not found & ({"train", "predict"} - stale)
    assert stale or not found


@pytest.mark.parametrize(
    ("key", "value", "stale"),
    [
        ("evaluate.coverage", 0.5, {"evaluate", "compare", "report"}),
        ("train.epochs", 2, {"train", "report", "publish"}),
        ("selected", "base", {"select"}),
    ],
)
def test_a_changed_number_makes_stale_what_reads_it(finished, key, value, stale):
    try:
        finished.set({key: value})
        found = finished.status()
    finally:
        finished("git", "checkout", "--quiet", "params.yaml")
    assert {stage.partition("@")[0] for stage in found} == stale


def test_other_methods_are_new_keys_and_no_new_code(new_clone):
    adapters = {
        "lora": {"method": "peft", "config": {"peft_type": "LORA", "r": 2}, "learning_rate": 0.01},
        "p_tuning": {
            "method": "peft",
            "config": {"peft_type": "P_TUNING", "num_virtual_tokens": 5},
            "learning_rate": 0.01,
        },
    }
    variants = ["majority", "tfidf", "base", "fewshot", *adapters]
    clone = new_clone(
        "methods",
        **{
            "adapters": adapters,
            "evaluate.untrained.fewshot": {"few_shot": 2, "seed": 1, "max_tokens": 200},
            "evaluate.variants": variants,
            "data.labels": ["yes", "no", "maybe"],
            "split.protocol": "official",
            "split.folds": [3],
            "selected": "lora",
        },
    )
    clone("dvc", "repro")
    assert read_json(clone.folder / "data/clean/counts.json")["labels"] == {"yes": 552, "no": 338, "maybe": 110}
    official = read_json(ROOT / "embedded/test_ground_truth.json")
    report = (clone.folder / "report/report.md").read_text()
    for variant in variants:
        metrics = read_json(clone.folder / f"metrics/{variant}.json")
        everything = read_json(clone.folder / f"evaluation/{variant}/metrics.json")
        assert metrics["n"] == 500 and variant in report
        assert {"f1_maybe", "precision_maybe", "recall_maybe", "roc_auc", "brier"} <= everything["mean"].keys()
        assert set(everything["replicates"]) == {f"fold 3, seed {42 if variant in adapters else 0}"}
        submission = read_json(clone.folder / f"evaluation/{variant}/leaderboard.json")
        assert submission.keys() == official.keys() and set(submission.values()) <= {"yes", "no", "maybe"}
    assert len(read_json(clone.folder / "comparison/comparison.json")["pairs"]) == 2 * 4 + 1


def test_the_committed_lock_file_and_metrics_are_up_to_date(new_clone, real_file):
    """Code, data and numbers; the last digits of a regression are this processor's."""
    clone = new_clone("lock")
    clone("git", "checkout", "--quiet", "params.yaml")
    stages = ("download", "clean", "split", "baselines", "evaluate@majority", "evaluate@tfidf")

    def known() -> dict:
        lock = YAML(typ="safe").load(clone.folder / "dvc.lock")["stages"]
        code = {
            (stage, dep["path"]): dep["md5"]
            for stage in stages
            for dep in lock[stage]["deps"]
            if dep["path"].startswith(("peftqa/", "stages/", "data/"))
        }
        return code | {stage: lock[stage]["params"] for stage in stages if "params" in lock[stage]}

    def metrics() -> list[dict]:
        return [read_json(clone.folder / f"metrics/{name}.json") for name in ("majority", "tfidf")]

    before = known(), metrics()
    clone("dvc", "repro", *stages[-2:], PUBMEDQA_SOURCE=str(real_file))
    told = "run `dvc repro evaluate@majority evaluate@tfidf` and commit dvc.lock and metrics/"
    assert known() == before[0], told
    assert [pytest.approx(row, abs=1e-3) for row in before[1]] == metrics(), told
