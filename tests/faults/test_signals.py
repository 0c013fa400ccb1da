"""Ctrl-C, a closed terminal and kills while runs are under way: nothing goes on alone, and the bytes are the same."""

import signal
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.clone import ran
from tests.faults.drill import Copy, commands, send, sentence, wait_for

pytestmark = pytest.mark.drill
REPRO, RUNS = ("dvc", "repro", "predict@prefix-0-42"), ("make", "runs", "SETUP=")
INTERRUPTED = "interrupted; type the same command to go on."


@pytest.fixture
def untrained(clone) -> Copy:
    """A copy in which the prefix was never trained: not in the lock file, not in the cache, not in the workspace."""
    lock, yaml = clone.folder / "dvc.lock", YAML()
    values = yaml.load(lock)
    for stage in [name for name in values["stages"] if "prefix-0-42" in name]:
        for out in values["stages"].pop(stage)["outs"]:
            clone("rm", "-r", out["path"])
    yaml.dump(values, lock)
    clone("rm", "-r", ".dvc/cache/runs")
    return clone


def training(clone: Copy) -> bool:
    """Whether one epoch is safe and another under way."""
    epoch = ".checkpoints/prefix-*/checkpoint-12/trainer_state.json"
    return any(list(folder.glob(epoch)) for folder in (clone.folder, clone.folder / "experiments/mine"))


def at(stage: str):
    """Whether a stage is importing its libraries, which takes it seconds."""

    def begun(clone: Copy) -> bool:
        found = [pid for pid, command in commands(clone.running.pid).items() if f"-m stages.{stage}" in command]
        return any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in found)

    return begun


@pytest.mark.parametrize(
    ("command", "number", "victim", "moment"),
    [
        (REPRO, signal.SIGINT, None, training),
        (REPRO, signal.SIGINT, None, at("train")),
        (REPRO, signal.SIGTERM, "stages.train", training),
        (REPRO, signal.SIGTERM, "dvc repro", training),
        (REPRO, signal.SIGHUP, None, training),
        (REPRO, signal.SIGKILL, "stages.predict", at("predict")),
        (RUNS, signal.SIGINT, None, training),
        (RUNS, signal.SIGTERM, "experiments.runs", training),
        (RUNS, signal.SIGKILL, None, training),
        (RUNS, signal.SIGKILL, "-m experiments.runs", at("train")),
        (RUNS, signal.SIGKILL, "repro", training),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else None,
)
def test_a_run_that_ends_too_early(whole, untrained, command, number, victim, moment):
    untrained.running = process = untrained.start(*command)
    wait_for(lambda: moment(untrained), process)
    send(process, number, victim)
    printed, _ = process.communicate()
    wait_for(lambda: not commands(process.pid))
    assert process.returncode
    if number == signal.SIGINT:
        assert INTERRUPTED in sentence(printed)
    assert "Traceback" not in printed
    untrained.unharmed(whole)
    printed = untrained("dvc", "repro")
    assert ("resumed after epoch" in printed) == (moment is training)
    assert untrained.bytes() == whole.bytes()


def test_a_suspended_training_goes_on(whole, untrained):
    process = untrained.start(*REPRO)
    wait_for(lambda: training(untrained), process)
    send(process, signal.SIGSTOP, None)
    send(process, signal.SIGCONT, None)
    printed, _ = process.communicate()
    assert process.returncode == 0 and "resumed" not in printed
    untrained.recovers(whole)


@pytest.mark.parametrize(("number", "victim"), [(signal.SIGINT, None), (signal.SIGKILL, "-m experiments mine")])
def test_an_experiment_that_ends_too_early_goes_on_from_the_stages_that_finished(whole, untrained, number, victim):
    """`make demo` is such an experiment too."""
    prefix = YAML(typ="safe").load(untrained.folder / "params.yaml")["adapters"]["prefix"]
    mine = {"adapters": {"prefix": prefix}, "evaluate.variants": ["majority", "prefix"]}
    YAML().dump(mine, untrained.folder / "experiments/mine.yaml")
    command = ("make", "experiment", "NAME=mine", "SETUP=")
    process = untrained.start(*command)
    wait_for(lambda: training(untrained), process)
    send(process, number, victim)
    printed, _ = process.communicate()
    wait_for(lambda: not commands(process.pid))
    assert "Traceback" not in printed and process.returncode
    if number == signal.SIGINT:
        assert INTERRUPTED in sentence(printed)
    untrained.unharmed(whole)

    printed = untrained(*command)
    assert not {"download", "clean", "split", "fetch_model"} & set(ran(printed))
    folder = Path("experiments/mine/predictions/prefix/fold-0/seed-42.csv")
    assert (untrained.folder / folder).read_bytes() == whole.bytes()[str(folder.relative_to("experiments/mine"))]
    untrained.recovers(whole)
