"""The simulation of benchmarks/simulation.py: its situation is the one described, and what must hold does."""

import json
import sys

import numpy as np
import pytest

from benchmarks import simulation as sim
from peftqa.statistics.significance import answers_by_fold, answers_to_the_same, primary_test

CROSS_VALIDATION, OFFICIAL = sim.Design(3, 10), sim.Design(3, 10, shared=True)


def simulated(design: sim.Design, common: sim.Common = sim.COMMON[0], **how) -> dict[str, np.ndarray]:
    return sim.simulate(design, common, 400, np.random.default_rng(0), **how)


@pytest.mark.parametrize("design", [CROSS_VALIDATION, OFFICIAL])
def test_the_simulated_answers_are_as_described(design):
    variants = simulated(design, difference=0.04)
    accuracies = {name: correct.mean() for name, correct in variants.items()}
    assert accuracies.pop("first") == pytest.approx(0.74, abs=0.01)
    assert accuracies == pytest.approx(dict.fromkeys(accuracies, 0.7), abs=0.01)
    assert variants["second"].shape == (400, 3, 10, 445 if design.shared else 89)
    quiet = simulated(design, run_sd=0.0)
    assert (quiet["first"][:, 0] != quiet["second"][:, 0]).mean() == pytest.approx(0.22, abs=0.01)
    assert (quiet["first"][:, 0] != quiet["majority"][:, 0]).mean() == pytest.approx(0.35, abs=0.01)


@pytest.mark.parametrize("common", [sim.Common(), sim.Common(seed=0.3), sim.Common(fold=0.5), sim.Common(0.2, 0.2)])
def test_the_runs_vary_as_described(common):
    accuracies = simulated(CROSS_VALIDATION, common)["first"].mean(axis=3)
    accuracies = accuracies - accuracies.mean()
    seed = np.mean(accuracies[:, :, :5] * accuracies[:, :, 5:]) - np.mean(accuracies[:, 0, :5] * accuracies[:, 1, 5:])
    assert seed == pytest.approx(common.seed * sim.RUN_SD**2, abs=2.5e-4)
    # Under official all folds ask the same questions, so that only the component makes seeds of a fold alike.
    accuracies = simulated(OFFICIAL, common)["first"].mean(axis=3)
    accuracies = accuracies - accuracies.mean()
    fold = np.mean(accuracies[:, 0] * accuracies[:, 1]) - np.mean(accuracies[:, 0, :5] * accuracies[:, 1, 5:])
    assert fold == pytest.approx(common.fold * sim.RUN_SD**2, abs=2.5e-4)


@pytest.mark.parametrize("design", [sim.Design(2, 3), sim.Design(2, 3, True), sim.Design(1, 1)])
def test_the_p_values_are_those_of_the_primary_test(design):
    correct = sim.simulate(design, sim.Common(), 5, np.random.default_rng(1))
    for pair in sim.FAMILY:
        p = sim.p_values(*(sim.as_answers(correct[name], design.shared) for name in pair))
        for row in range(5):
            runs = [correct[name][row] for name in pair]
            if design.shared:
                both = [answers_to_the_same(one.swapaxes(0, 1)) for one in runs]
            else:
                fold = np.repeat(np.arange(design.folds), sim.OWN)
                both = [answers_by_fold(one.reshape(len(one), -1), fold) for one in runs]
            assert p[row] == pytest.approx(primary_test(*both).p)


@pytest.mark.slow
@pytest.mark.parametrize("design", sim.KEPT)
@pytest.mark.parametrize("common", sim.COMMON)
def test_the_level_is_kept(design, common):
    # 6% with 10,000 repetitions; a thousand have a standard error of 0.7 points.
    rates = sim.rejection_rates(design, common, 1000)
    assert max(rate for name, rate in rates.items() if name != "sceptic") <= 0.08


def test_the_command_prints_tables_and_writes_the_rates(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["simulation", "--repetitions", "4", "--json", str(tmp_path / "rates.json")])
    sim.main()
    printed = capsys.readouterr().out
    assert printed.count("| 3 seeds, 10 folds, 890 questions |") == 6 and "these two trained adapters" in printed
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert [len(rows) for rows in rates.values()] == [10, sum(map(len, sim.FEWER.values())), 1, len(sim.POWER)]
