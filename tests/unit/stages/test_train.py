"""A run of training: its name, what its checkpoints depend on, and what it leaves behind."""

import json
from pathlib import Path

import pytest

from peftqa.data.files import write_csv
from stages.train import run_digest, stopwatch
from tests.unit.made_up import params_with
from tests.unit.test_records import table_of

CROSSED = params_with(split__protocol="official", split__folds=[0, 3], train__seeds=[42, 7])


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """A repository's folder with what two folds train on."""
    monkeypatch.chdir(tmp_path)
    for fold in (0, 3):
        for split in ("train", "val"):
            write_csv(tmp_path / f"data/split/fold-{fold}/{split}.csv", table_of(yes=3, no=2))
    for file in ("peftqa/module.py", "peftqa/room/module.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x = 1")
    deps = ["models/base", "peftqa/module.py", "peftqa/room"]
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"deps": deps}}}))
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_changed_row_of_a_folds_tables_makes_another_run(inputs, split):
    before, other_fold = run_digest("prompt", 0, CROSSED), run_digest("prompt", 3, CROSSED)
    path = inputs / f"data/split/fold-0/{split}.csv"
    path.write_text(path.read_text().replace("1002,1002,1002,", "1002,1002,1003,"))
    assert run_digest("prompt", 0, CROSSED) != before
    assert run_digest("prompt", 3, CROSSED) == other_fold


def test_another_model_makes_another_run(inputs):
    before = run_digest("prompt", 0, CROSSED)
    (inputs / "models/base/config.json").write_text("{ }")
    assert run_digest("prompt", 0, CROSSED) != before


@pytest.mark.parametrize(
    "change",
    [
        {"adapters__prompt__num_virtual_tokens": 21},
        {"adapters__prompt__learning_rate": 0.31},
        {"train__epochs": 9},
        {"template__max_tokens": 100},
        {"model__dropout": 0.1},
        {"model__threads": 1},
        {"data__labels": ["no", "yes"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_settings_make_another_run(inputs, change):
    assert run_digest("prompt", 0, params_with(**change)) != run_digest("prompt", 0, params_with())


@pytest.mark.parametrize(
    "change",
    [
        {"train__seeds": [1, 2, 42]},
        {"adapters__prefix__num_virtual_tokens": 9},
        {"evaluate__batch_size": 3},
        {"compare__resamples": 10},
        {"data__name": "another name"},
        {"selected": "base"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_training_does_not_read_makes_no_other_run(inputs, change):
    assert run_digest("prompt", 0, params_with(**change)) == run_digest("prompt", 0, params_with())


def test_adapters_have_runs_of_their_own(inputs):
    assert run_digest("prompt", 0, CROSSED) != run_digest("prefix", 0, CROSSED)


@pytest.mark.parametrize("file", ["peftqa/module.py", "peftqa/room/module.py"])
def test_changed_code_that_dvc_names_makes_another_run(inputs, file):
    before = run_digest("prompt", 0, CROSSED)
    (inputs / file).write_text("x = 2")
    assert run_digest("prompt", 0, CROSSED) != before


def test_another_version_of_a_library_makes_another_run(inputs, monkeypatch):
    before = run_digest("prompt", 0, CROSSED)
    monkeypatch.setattr("stages.train.version", lambda name: "another")
    assert run_digest("prompt", 0, CROSSED) != before


def test_the_time_before_an_interruption_counts(tmp_path, monkeypatch):
    clock = iter([10.0, 14.0, 100.0, 103.0])
    monkeypatch.setattr("stages.train.time.perf_counter", lambda: next(clock))
    assert stopwatch(tmp_path / "run/seconds.json")() == 4.0
    assert stopwatch(tmp_path / "run/seconds.json")() == 7.0
