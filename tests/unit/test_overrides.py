"""experiments/NAME.yaml: names, what the files may contain, and what they change in params.yaml."""

import json
import shutil

import pytest

from experiments.overrides import files_of, read_overrides, write_params
from experiments.runs import train_and_predict
from peftqa.config.params import read_params
from peftqa.data.digest import folder_digest
from peftqa.errors import UserError
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository with params.yaml and an empty experiments/, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "experiments").mkdir()
    return tmp_path / "experiments"


@pytest.mark.parametrize("name", ["my exp", "a..b", "../tuning", "/etc/passwd", "--jobs", "a.lock", "a:b", "a\nb", ""])
@pytest.mark.parametrize("place", ["name", "include"])
def test_a_name_that_git_or_dvc_would_refuse_at_the_end_is_refused_at_the_start(folder, name, place):
    (folder / "sub").mkdir()
    if name and not name.startswith("/"):
        (folder / f"{name}.yaml").write_text("train.epochs: 2\n")
    (folder / "outer.yaml").write_text(f"include: {json.dumps(name)}\n")
    with pytest.raises(UserError, match="cannot be the name of an experiment"):
        read_overrides(name if place == "name" else "outer")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train.epoch: 3", "train.epoch: unknown key; did you mean epochs"),
        ("trian.epochs: 3", "params.yaml lacks a group 'trian'"),
        ("train.epochs: three", "train.epochs: 'three' is not allowed"),
        ("train.seeds: 43", "train.seeds: must be a list"),
        ("- 3", "must have lines like"),
        ("", "must have lines like"),
        ("5: 3", "must have lines like"),
        ("a: [", "is not valid YAML"),
        ("train.seeds: " + 20_000 * "[" + 20_000 * "]", "is not valid YAML"),
        ("include: nothing", "there is no experiments/nothing.yaml; there are: mine"),
        ("include: mine", "includes itself .mine -> mine"),
        ("include: [other]", "includes itself .mine -> other -> mine"),
        ("include: 5", "there is no experiments/5.yaml"),
    ],
)
def test_a_file_that_is_not_one_of_overrides_is_refused(folder, content, message):
    (folder / "mine.yaml").write_text(content)
    if "other" in content:
        (folder / "other.yaml").write_text("include: mine\n")
    with pytest.raises(UserError, match=message):
        write_params(folder / "params.yaml", read_overrides("mine"))


def test_what_a_file_includes_comes_first(folder):
    (folder / "base.yaml").write_text("train.epochs: 2\ntrain.batch_size: 4\n")
    (folder / "mine.yaml").write_text("include: base\ntrain.epochs: 5\n")
    assert read_overrides("mine") == {"train.epochs": 5, "train.batch_size": 4}
    assert [path.name for path in files_of("mine")] == ["base.yaml", "mine.yaml"]
    write_params(folder / "params.yaml", read_overrides("mine"))
    before = (folder / "params.yaml").stat().st_mtime_ns
    write_params(folder / "params.yaml", read_overrides("mine"))
    assert (folder / "params.yaml").stat().st_mtime_ns == before
    train = read_params(folder / "params.yaml").train
    assert (train.epochs, train.batch_size) == (5, 4)


@pytest.mark.parametrize("jobs", [0, -1, 10**9, 10**30])
def test_a_number_of_jobs_that_no_machine_can_run_is_refused(jobs):
    with pytest.raises(UserError, match="it must be from 1 to"):
        train_and_predict(jobs)


def test_the_files_of_overrides_name_the_embedded_data_and_model_as_they_are(monkeypatch):
    from pooch import file_hash

    monkeypatch.chdir(ROOT)
    overrides = read_overrides("embedded")
    assert overrides["data.sha256"] == file_hash(ROOT / "embedded/ori_pqal.json")
    assert overrides["data.test_ids_sha256"] == file_hash(ROOT / "embedded/test_ground_truth.json")
    assert overrides["model.revision"] == folder_digest(ROOT / "embedded/pico-t5")
