"""Two processes on one search, one of which is killed."""

import os
import re
import signal

from ruamel.yaml import YAML

from tests.faults.drill import wait_for
from tests.long.test_tune import TUNE, kill, recorded, trials, write_space


def test_no_trial_is_lost_or_run_twice_and_one_process_finishes_what_a_killed_one_began(study_clone):
    clone = study_clone("two", **{"train.epochs": 15})
    write_space(clone, trials=4)
    folder = clone.folder / "experiments/tune-prefix"

    def begun() -> set:
        return {path.parents[1] for path in folder.glob("checkpoints/*/checkpoint-*/trainer_state.json")}

    first = clone.start(*TUNE)
    wait_for(begun, first, 600)
    os.killpg(first.pid, signal.SIGSTOP)  # in its first trial, until the second process has been killed in its own
    second = clone.start(*TUNE)
    wait_for(lambda: len(begun()) == 2, second, 600)
    kill(second)
    settings = YAML(typ="safe").load(folder / "worker-1/params.yaml")["adapters"]["prefix"]
    os.killpg(first.pid, signal.SIGCONT)
    printed = first.communicate()[0]
    # All that was begun is done: a training deletes its checkpoints at its end.
    assert first.returncode == 0 and not list((folder / "checkpoints").iterdir()), printed
    # The first process tells of each trial once; the killed one, 1, has a new number.
    numbers = re.findall(r"^prefix-\w{4}-(\d+): log loss", printed, re.MULTILINE)
    table = trials(clone)
    assert numbers == ["0", "2", "3", "4"] == [str(number) for number in table["trial"]]
    assert table["learning_rate"].is_unique and table["learning_rate"][1] == settings["learning_rate"]
    assert len(recorded(clone)) == 4
