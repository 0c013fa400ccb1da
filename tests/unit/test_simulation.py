"""The simulation of benchmarks/simulation.py: its situation is the one described, and what must hold does."""

import json
import sys

import numpy as np
import pytest

from benchmarks import simulation as sim
from peftqa.statistics.bootstrap import bootstrap_scores, bootstrap_weights, percentile_interval
from peftqa.statistics.significance import run_accuracies

FOLD = np.repeat(np.arange(sim.FOLDS), sim.QUESTIONS // sim.FOLDS)


def test_the_simulated_runs_are_as_described():
    situation = sim.Situation(difference=0.04)
    runs = list(sim.simulate(situation, 300, np.random.default_rng(0)))
    first, second = (np.stack(method) for method in zip(*runs, strict=True))
    assert first.shape == second.shape == (300, 5, 890)
    assert (first.mean(), second.mean()) == pytest.approx((0.74, 0.70), abs=0.005)
    differing = [(a[0] != b[0]).mean() for a, b in sim.simulate(sim.Situation(), 300, np.random.default_rng(0))]
    assert np.mean(differing) == pytest.approx(0.22, abs=0.01)  # run noise adds half a point


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_runs_vary_as_described(share):
    data = sim.simulate(sim.Situation(common_share=share), 400, np.random.default_rng(0))
    accuracies = np.stack([run_accuracies(first, FOLD) - run_accuracies(first, FOLD).mean() for first, _ in data])
    # Two runs of a seed in different folds share only the common component.
    covariance = np.mean(accuracies[:, :, 0] * accuracies[:, :, 1])
    other_seeds = np.mean(accuracies[:, :-1, 0] * accuracies[:, 1:, 1])
    assert covariance - other_seeds == pytest.approx(share * sim.RUN_SD**2, abs=2.5e-4)


@pytest.mark.slow
def test_what_must_hold():
    primary = {"primary": sim.PROCEDURES["primary"]}
    null = sim.rejection_rates(sim.Situation(), 2000, primary)["primary"]
    common = sim.rejection_rates(sim.Situation(common_share=sim.COMMON_SHARE), 2000, primary)["primary"]
    for setting in null:
        if "1 seed" not in setting:
            assert null[setting] <= 0.06 and common[setting] <= 0.06
    assert null["1 seed, 890 questions"] <= 0.07
    power = sim.rejection_rates(sim.Situation(sim.DIFFERENCE), 2000, primary)["primary"]
    assert power["3 seeds, 890 questions"] >= 0.45
    own = sim.rejection_rates(sim.Situation(run_sd=0.0), 2000, primary)["primary"]
    assert own["1 seed, 89 questions"] <= 0.05


@pytest.mark.parametrize("seeds", [1, 3])
def test_its_bootstrap_is_the_projects(seeds):
    first, second = next(sim.simulate(sim.Situation(0.1), 1, np.random.default_rng(0)))
    weights = bootstrap_weights(FOLD, sim.RESAMPLES, sim.SEED, draw_folds=seeds == 1)
    values = [
        bootstrap_scores(
            np.where(correct[:seeds, :, None], [0.9, 0.1], [0.1, 0.9]),
            np.zeros(sim.QUESTIONS, dtype=int),
            FOLD,
            weights,
            10,
            [sim.SEED, method],
        )["accuracy"]
        for method, correct in enumerate((first, second))
    ]
    low, high = percentile_interval(values[0] - values[1], sim.ALPHA)
    assert sim.Bootstrap().interval(first[:seeds], second[:seeds], FOLD) == pytest.approx((low, high), abs=0.005)


def test_the_command_prints_a_table_and_writes_the_rates(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["simulation", "--repetitions", "4", "--json", str(tmp_path / "rates.json")])
    sim.main()
    printed = capsys.readouterr().out
    assert printed.count("| primary test |") == 4 and "these two trained adapters" in printed
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert rates["repetitions"] == 4
    assert rates["common"]["null"]["sceptic"]["1 seed, 89 questions"] is None
    sim.main()
    assert json.loads((tmp_path / "rates.json").read_text()) == rates
