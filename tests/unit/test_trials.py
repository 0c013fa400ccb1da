"""A search's spaces and settings, its trials that were cut short, and damaged journals."""

import os
import shutil

import pytest
from filelock import FileLock
from optuna.trial import create_trial
from ruamel.yaml import YAML

from experiments.tune import (
    SEARCH,
    Search,
    check,
    current_settings,
    distribution,
    hold,
    main,
    on_edge,
    open_study,
    put_back,
    take_over,
)
from peftqa.config.params import check_params, read_yaml
from peftqa.errors import UserError
from tests.conftest import ROOT

RATE, RANK = {"low": 0.001, "high": 1.0, "log": True}, {"low": 1, "high": 100}
SPACE = {key: distribution(choices) for key, choices in {"rate": RATE, "r": RANK, "init": ["text", "random"]}.items()}


@pytest.fixture
def base():
    return check_params(YAML(typ="safe").load(ROOT / "params.yaml"))


@pytest.fixture
def new_study(tmp_path):
    return lambda: open_study(tmp_path / "study.journal", "mine", FileLock(tmp_path / "study.lock"))


@pytest.mark.parametrize(
    ("key", "value", "edge"),
    [
        ("rate", 0.01, False),
        ("rate", 0.9, True),
        ("r", 50, False),
        ("r", 2, True),
        ("r", 100, True),
        ("init", "text", False),
    ],
)
def test_a_value_near_an_end_on_the_scale_that_is_searched_is_on_the_edge(key, value, edge):
    assert on_edge(SPACE[key], value) == edge


def test_the_committed_settings_are_in_the_committed_spaces_and_not_at_an_end(base):
    search = Search.model_validate(read_yaml(ROOT / SEARCH))
    for name, adapter in base.adapters.items():
        space = search.spaces[adapter.method]
        settings = current_settings(base, name, space)
        create_trial(params=settings, distributions=space, value=0)  # Optuna refuses a value that is not in the space
        assert not any(on_edge(space[key], settings[key]) for key in space)


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
        ("prefix", {"spaces": {"kv_prefix": {"r": {"low": 4, "high": 2}}}}, "spaces.kv_prefix.r: "),
        ("prefix", {"spaces": {"kv_prefix": {"r": {"low": 4}}}}, "or a range with low and high"),
        ("prefix", {"spaces": {"kv_prefix": {"r": []}}}, "must be a list of choices"),
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
    base, space = check(Search.model_validate(read_yaml(ROOT / SEARCH)), "lora", {"adapters.lora": lora})
    given = {"learning_rate": 0.001, "config.r": 8, "schedule": "constant"}
    assert current_settings(base, "lora", space) == given
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
    """Trials of this worker, of one that works, of one that has ended, and of one that has not said its number."""
    study = new_study()
    study.enqueue_trial({"rate": 0.25, "r": 7, "init": "random"})
    running = [study.ask(SPACE) for _ in range(4)]
    for worker in range(3):
        running[worker].set_user_attr("worker", worker)
    with FileLock(tmp_path / "worker-1.lock"):
        for _ in range(2):
            put_back(new_study(), tmp_path, worker=0)  # as another process sees it
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "RUNNING", "FAIL", "FAIL", "WAITING", "WAITING", "WAITING"]
    again = [trial.system_attrs["fixed_params"] for trial in study.trials[4:]]
    assert again == [study.trials[number].params for number in (0, 2, 3)] and again[0]["rate"] == 0.25
    assert hold(tmp_path / "worker-1.lock")
