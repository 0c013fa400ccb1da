"""A search's spaces and settings, its trials that were cut short, and damaged journals."""

import os
import shutil

import pytest
from filelock import FileLock
from optuna.trial import TrialState
from ruamel.yaml import YAML

from experiments.trials import current_settings, edges, take_over
from experiments.tune import SEARCH, Range, Search, check, hold, main, open_study, put_back, suggest
from peftqa.config.params import check_params, read_yaml
from peftqa.errors import UserError
from tests.conftest import ROOT

SPACE = {"learning_rate": Range(low=0.001, high=1.0, log=True), "r": Range(low=1, high=100), "init": ["text", "random"]}


@pytest.fixture
def base():
    return check_params(YAML(typ="safe").load(ROOT / "params.yaml"))


@pytest.fixture
def new_study(tmp_path):
    return lambda: open_study(tmp_path / "study.journal", "mine", FileLock(tmp_path / "study.lock"))


def test_an_edge_is_of_the_scale_that_was_searched():
    assert edges({"learning_rate": 0.03, "r": 50, "init": "text"}, SPACE) == []
    assert edges({"learning_rate": 0.9, "r": 2, "init": "random"}, SPACE) == ["learning_rate", "r"]
    assert edges({"learning_rate": 0.01, "r": 100, "init": "random"}, SPACE) == ["r"]


def test_the_committed_settings_are_in_the_committed_spaces_and_not_at_an_end(base):
    search = Search.model_validate(read_yaml(ROOT / SEARCH))
    for name, adapter in base.adapters.items():
        space = search.spaces[adapter.method]
        settings = current_settings(base, name, space)
        assert all(settings[key] in choices for key, choices in space.items())
        assert edges(settings, space) == []


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ("../../evil", {}, "params.yaml lacks an adapter '../../evil'; it has: prompt, prefix."),
        ("prefix --experiment ../tuning", {}, "'../tuning' cannot be the name of an experiment"),
        ("prefix --trials 0", {}, "--trials is 0"),
        ("prefix", {"trials": 0}, "tuning.yaml: trials: "),
        ("prefix", {"spaces": {}}, "tuning.yaml lacks a space for kv_prefix"),
        ("prefix", {"spaces": {"kv_prefix": {"rank": [1, 2]}}}, "spaces.kv_prefix.rank: 1: "),
        ("prefix", {"spaces": {"kv_prefix": {"num_virtual_tokens": {"low": 0, "high": 9}}}}, "tokens: 0: "),
        ("prefix", {"spaces": {"kv_prefix": {"r": {"low": 4, "high": 2}}}}, "low must be less than high"),
        ("prefix", {"spaces": {"kv_prefix": {"r": {"low": 1, "high": 2.0}}}}, "must both be whole numbers"),
    ],
)
def test_a_search_that_cannot_run_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, arguments, changes, message
):
    for name in ("params.yaml", "tuning.yaml", "experiments/study.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    YAML().dump(read_yaml(ROOT / SEARCH) | changes, tmp_path / SEARCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tune", *arguments.split()])
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(UserError) as refusal:
        main()
    assert message in str(refusal.value)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_method_of_pefts_own_has_the_space_of_its_type(monkeypatch):
    monkeypatch.chdir(ROOT)
    lora = {"method": "peft", "config": {"peft_type": "LORA", "r": 8}, "learning_rate": 0.001}
    _, base, space = check(Search.model_validate(read_yaml(ROOT / SEARCH)), "lora", {"adapters.lora": lora})
    given = {"learning_rate": 0.001, "config.r": 8, "schedule": "constant"}
    assert current_settings(base, "lora", space) == given and all(given[key] in space[key] for key in space)
    # What differs is to be taken over, as options of DVC or as lines of the experiment.
    best = given | {"config.r": 16}
    assert take_over(best, base, "lora", 3, None).splitlines()[1:] == [
        "dvc exp run -S '++adapters.lora.config.r=16' \\",
        "  -S '++tuning.lora={trials: 3, protocol: random}'",
    ]
    lines = "\n".join(take_over(best, base, "lora", 3, "mine").splitlines()[1:])
    tuning = {"trials": 3, "protocol": "random"}
    assert YAML(typ="safe").load(lines) == {"adapters.lora.config.r": 16, "tuning.lora": tuning}


def test_half_a_line_at_the_end_of_a_journal_is_cut_off(new_study, tmp_path):
    new_study().ask()
    for half in (b'{"op_code":4,"wor', b"\0" * 4096, os.urandom(999).replace(b"\n", b"")):
        with (tmp_path / "study.journal").open("ab") as journal:
            journal.write(half)
        new_study().ask()
    assert len(new_study().trials) == 4


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\x00", b"{", b"null", b'{"op_code": 99}', b'{"op_code": 4}'])
def test_a_damaged_journal_is_refused_in_one_sentence_that_names_it(new_study, tmp_path, rubbish):
    new_study().ask()
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    for content in (rubbish + b"\n" + whole, whole + rubbish + b"\n"):
        journal.write_bytes(content)
        with pytest.raises(UserError, match=r"study\.journal is damaged"):
            new_study()


def test_what_was_cut_short_is_queued_again_once_and_what_runs_is_left_alone(new_study, tmp_path):
    """Trials of this worker, of one at work, of one that has ended, without a worker, and one that failed."""
    study = new_study()
    study.enqueue_trial({"learning_rate": 0.25, "r": 7, "init": "random"})
    running = [study.ask() for _ in range(5)]
    for trial, worker in zip(running, (0, 1, 2, None, 0), strict=True):
        if worker is not None:
            trial.set_user_attr("worker", worker)
            for key in SPACE if trial.number < 3 else ["r"]:
                suggest(trial, key, SPACE[key])
    study.tell(running[4], state=TrialState.FAIL)
    with FileLock(tmp_path / "worker-1.lock"):
        # As another process sees it.
        for _ in range(2):
            put_back(new_study(), SPACE, tmp_path, worker=0)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "RUNNING", "FAIL", "FAIL", "FAIL", "WAITING", "WAITING"]
    again = [trial.system_attrs["fixed_params"] for trial in study.trials[5:]]
    assert again == [study.trials[0].params, study.trials[2].params] and again[0]["learning_rate"] == 0.25
    assert hold(tmp_path / "worker-1.lock")
