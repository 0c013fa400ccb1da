"""How a stage knows what to run, and what it writes and deletes."""

import errno
import os
import sys

import pandas as pd
import pytest

from peftqa.data.files import atomic_write, read_json, write_csv, write_json
from peftqa.errors import UserError
from stages.runs import epochs_table, find_run, stage_key
from stages.stale import remove_stale
from stages.summary import training_summary
from stages.workspace import check_inside
from tests.unit.made_up import params_with


@pytest.fixture
def called(monkeypatch):
    """Makes it look as if stages/train.py had been called in this way."""

    def call(*arguments: str, dvc_stage: str | None = None) -> None:
        monkeypatch.setattr(sys, "argv", ["/somewhere/stages/train.py", *arguments])
        monkeypatch.delenv("DVC_STAGE", raising=False)
        if dvc_stage is not None:
            monkeypatch.setenv("DVC_STAGE", dvc_stage)

    return call


def test_dvc_names_the_run_unless_an_argument_does(called):
    called(dvc_stage="train@prompt-0-42")
    assert stage_key() == "prompt-0-42"
    for dvc_stage in (None, "train@prompt-0-42"):
        called("prefix-3-1", dvc_stage=dvc_stage)
        assert stage_key() == "prefix-3-1"


@pytest.mark.parametrize(
    ("arguments", "dvc_stage"),
    [((), None), ((), "train"), (("prompt-0-42", "prefix-0-42"), None), (("--help",), "train@prompt-0-42")],
)
def test_a_stage_without_a_run_says_how_to_name_one(called, arguments, dvc_stage):
    called(*arguments, dvc_stage=dvc_stage)
    with pytest.raises(UserError, match=r"python -m stages\.train NAME") as error:
        stage_key()
    assert "\n" not in str(error.value)


def test_only_what_is_not_expected_is_removed(tmp_path):
    kept = [
        "prompt/fold-0/seed-42.csv",
        "prompt/fold-0/seed-42.json",
        "majority/fold-0/seed-0.csv",
        "majority/more.txt",
    ]
    stale = ["prompt/fold-0/seed-7.csv", "prompt/fold-1/seed-42.csv", "lora/a/b/c", "majority_2/file", ".hidden"]
    for name in [*kept, *stale]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty/deep").mkdir(parents=True)
    remove_stale(tmp_path, [tmp_path / name for name in (*kept[:2], "majority", "prompt/fold-0/never-written.csv")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert {path.name for path in tmp_path.iterdir()} == {"prompt", "majority"}  # no empty folder is left
    assert {path.name for path in (tmp_path / "prompt").iterdir()} == {"fold-0"}
    remove_stale(tmp_path / "none", [])


def test_links_of_dvcs_cache_are_removed_and_what_they_lead_to_stays(tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "predictions"
    (cache / "folder").mkdir(parents=True)
    (cache / "file").touch()
    (cache / "folder/file").touch()
    folder.mkdir()
    (folder / "file").symlink_to(cache / "file")
    (folder / "folder").symlink_to(cache / "folder")
    remove_stale(folder, [])
    assert list(folder.iterdir()) == []
    assert (cache / "file").exists() and (cache / "folder/file").exists()


def test_the_epoch_kept_is_the_first_of_lowest_log_loss(tmp_path):
    table = tmp_path / epochs_table("prompt", (0, 42))
    log_losses = [0.5, 0.1 + 0.2, 0.4, 0.1 + 0.2]
    write_csv(table, pd.DataFrame({"epoch": [1, 2, 3, 4], "step": [10, 20, 30, 40], "val_log_loss": log_losses}))
    summary = training_summary("prompt", (0, 42), tmp_path)
    assert summary == {"epoch": 4, "best": {"epoch": 2, "step": 20, "val_log_loss": 0.1 + 0.2}}
    assert type(summary["best"]["epoch"]) is type(summary["epoch"]) is int


@pytest.mark.parametrize("content", ["", "epoch,val_log_loss\n", "epoch,loss\n1,2\n", "epoch,val_log_loss\n1\n", "\0"])
def test_a_damaged_table_of_epochs_is_refused_in_a_sentence(tmp_path, content):
    table = tmp_path / epochs_table("prompt", (0, 42))
    with pytest.raises(UserError, match=r"epochs\.csv is missing; run `dvc repro`"):
        training_summary("prompt", (0, 42), tmp_path)
    table.parent.mkdir(parents=True)
    table.write_text(content)
    with pytest.raises(UserError, match=r"epochs\.csv is damaged .*run `dvc repro`"):
        training_summary("prompt", (0, 42), tmp_path)


def test_paths_out_of_the_repository_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for inside in ("embedded/pico-t5", "a/../b", "/anywhere/else"):
        check_inside("model.name", inside)
    for outside in ("../model", "a/../../b"):
        with pytest.raises(UserError, match=r"model\.name: .* is outside the repository"):
            check_inside("model.name", outside)


def test_json_keeps_floats_and_text_and_refuses_what_is_no_number(tmp_path):
    values = {"x": 0.1 + 0.2, "name": "β", "list": [1, None]}
    write_json(tmp_path / "new" / "file.json", values)
    assert read_json(tmp_path / "new" / "file.json") == values
    assert "β" in (tmp_path / "new" / "file.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(tmp_path / "nan.json", {"x": float("nan")})
    with pytest.raises(UserError, match=r"none\.json is missing; run `dvc repro`"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("content", ["", '{"accuracy": 0.', "3", '["x"]', "\udcff"])
def test_json_that_is_no_object_is_said_to_be_damaged(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"metrics\.json is damaged .* run `dvc repro`"):
        read_json(tmp_path / "metrics.json")


def test_a_file_or_folder_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_csv(path, pd.DataFrame({"x": [1]}))
    before = path.read_bytes()
    with pytest.raises(OSError) as caught, atomic_write(path) as partial:
        partial.write_text("half")
        assert path.read_bytes() == before
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(path)  # which the system does not say of a write
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    for name in ("old", "new"):
        with atomic_write(tmp_path / "seed-42") as partial:
            partial.mkdir()
            (partial / name).touch()
    assert [path.name for path in (tmp_path / "seed-42").iterdir()] == ["new"]


FEW_SHOT = {"base": {"few_shot": 0}, "fewshot": {"few_shot": 2, "seed": 1, "max_tokens": 200}}
CROSSED = params_with(
    split__protocol="official",
    split__folds=[0, 3],
    train__seeds=[42, 7],
    evaluate__variants=["base", "fewshot", "prompt", "prefix"],
    evaluate__untrained=FEW_SHOT,
)


def test_a_run_is_an_adapter_with_fold_and_seed_or_an_untrained_variant_with_a_fold():
    everything = [*CROSSED.adapters, *CROSSED.evaluate.untrained]
    assert find_run("prompt-0-42", CROSSED, CROSSED.adapters) == ("prompt", 0, 42)
    assert find_run("prefix-3-7", CROSSED, everything) == ("prefix", 3, 7)
    assert find_run("base-3", CROSSED, everything) == ("base", 3, 0)
    assert find_run("fewshot-0", CROSSED, everything) == ("fewshot", 0, 0)


@pytest.mark.parametrize(
    "key",
    [
        *("prompt", "prompt-0", "prompt-1-42", "prompt-0-1", "prompt-00-42", "prompt-0-42-1", ""),
        *("base", "base-1", "base-0-0", "majority-0", "lora-0-42"),
    ],
)
def test_a_run_that_params_do_not_list_is_refused_with_what_they_do(key):
    everything = [*CROSSED.adapters, *CROSSED.evaluate.untrained]
    with pytest.raises(UserError, match=r"prompt, prefix.* base, fewshot, .*\[0, 3\].*\[42, 7\]") as error:
        find_run(key, CROSSED, everything)
    assert f"no run {key!r}" in str(error.value)
    with pytest.raises(UserError, match="with one of prompt, prefix, a fold"):
        find_run("base-0", CROSSED, CROSSED.adapters)  # which is not trained
