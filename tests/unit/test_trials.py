"""What a search's scores come to: best so far, its expectation, edges, and what is to be taken over."""

import itertools

import numpy as np
import pytest
from ruamel.yaml import YAML

from experiments.trials import best_so_far, edges, take_over
from experiments.tune import Range, Search, read_search
from peftqa.config.params import check_params
from tests.conftest import ROOT


def base():
    return check_params(YAML(typ="safe").load(ROOT / "params.yaml"))


def test_the_expected_best_of_k_is_the_mean_over_all_draws_of_k():
    scores = [0.7, 0.4, 0.9, 0.5]
    curves = best_so_far(scores).groupby("variant")["val_log_loss"].apply(list)
    assert curves["found"] == [0.7, 0.4, 0.4, 0.4]
    drawn = [np.mean([min(draw) for draw in itertools.product(scores, repeat=k)]) for k in (1, 2, 3, 4)]
    assert curves["expected"] == pytest.approx(drawn)


def test_a_training_that_diverged_counts_as_the_worst_that_did_not():
    with_inf, with_worst = best_so_far([np.inf, 0.4, 0.9]), best_so_far([0.9, 0.4, 0.9])
    assert with_inf.equals(with_worst)


def test_an_edge_is_of_the_scale_that_was_searched():
    space = {
        "learning_rate": Range(low=0.001, high=1.0, log=True),
        "r": Range(low=1, high=100),
        "init": ["text", "random"],
    }
    assert edges({"learning_rate": 0.03, "r": 50, "init": "text"}, space) == []
    assert edges({"learning_rate": 0.9, "r": 2, "init": "random"}, space) == ["learning_rate", "r"]
    assert edges({"learning_rate": 0.01, "r": 100, "init": "random"}, space) == ["r"]


def test_only_what_differs_is_to_be_taken_over():
    settings = {"learning_rate": 0.02, "num_virtual_tokens": 5, "init": "text", "schedule": "constant"}
    text = take_over(settings, base(), "prefix", 12, None)
    assert text.splitlines()[1:] == [
        "dvc exp run -S '++adapters.prefix.learning_rate=0.02' \\",
        "  -S '++tuning.prefix={trials: 12, protocol: random}'",
    ]
    lines = take_over(settings | {"schedule": "linear"}, base(), "prefix", 12, "mine").splitlines()[1:]
    assert YAML(typ="safe").load("\n".join(lines)) == {
        "adapters.prefix.learning_rate": 0.02,
        "adapters.prefix.schedule": "linear",
        "tuning.prefix": {"trials": 12, "protocol": "random"},
    }


def test_the_committed_spaces_hold_the_committed_settings_away_from_their_edges(monkeypatch):
    monkeypatch.chdir(ROOT)
    search, params = read_search(), base()
    assert isinstance(search, Search)
    for adapter in params.adapters.values():
        space = search.spaces[adapter.method]
        settings = adapter.model_dump() | {"schedule": params.train.schedule}
        assert all(settings[key] in choices for key, choices in space.items())
        assert edges(settings, space) == []
