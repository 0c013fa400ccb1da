"""cluster/array.sbatch: the tasks of an array, here all on one machine, do the runs of a small study in one folder."""

import re
import signal
import subprocess

from tests.clone import Clone
from tests.faults.drill import commands, send, wait_for

VICTIM = 1


def missing_runs(clone: Clone) -> list[str]:
    # DVC warns, on standard error, of what a killed task has left in its lock file.
    printed = clone("python", "-m", "experiments.runs", "--list").splitlines()
    return [line for line in printed if re.fullmatch(r"\w+-\d+(-\d+)?", line)]


def start(clone: Clone, runs: list[str]) -> list[subprocess.Popen]:
    """The tasks that `sbatch --array=1-N cluster/array.sbatch RUNS...` starts; Slurm gives each its number."""
    command = ("bash", "cluster/array.sbatch", *runs)
    return [clone.start(*command, SLURM_ARRAY_TASK_ID=str(task)) for task in range(1, len(runs) + 1)]


def ended(tasks: list[subprocess.Popen]) -> tuple[list[bool], str]:
    """Which tasks succeeded, and what all of them printed."""
    printed = "".join(task.communicate()[0] for task in tasks)
    return [task.returncode == 0 for task in tasks], printed


def trains(task: subprocess.Popen) -> bool:
    return any("stages.train" in command for command in commands(task.pid).values())


def runtimes(clone: Clone) -> dict[str, str]:
    """How long each stage took: a stage that runs again writes another number."""
    return {str(path): path.read_text() for path in (clone.folder / "runtime").rglob("*.json")}


def test_an_array_with_a_killed_task_ends_with_the_bytes_of_one_process(study_clone):
    alone, shared = study_clone("alone"), study_clone("together")
    alone("dvc", "repro")
    runs = missing_runs(shared)
    tasks = start(shared, runs)
    wait_for(lambda: trains(tasks[VICTIM]), tasks[VICTIM])
    send(tasks[VICTIM], signal.SIGKILL, None)
    succeeded, printed = ended(tasks)
    assert [run for run, good in zip(runs, succeeded, strict=True) if not good] == [runs[VICTIM]], printed
    assert missing_runs(shared) == [runs[VICTIM]]

    # All of them once more: a list made before the others had ended does no harm.
    finished = runtimes(shared)
    succeeded, printed = ended(start(shared, runs))
    assert all(succeeded), printed
    after = runtimes(shared)
    assert finished.items() <= after.items() and len(after) == len(finished) + 2
    assert missing_runs(shared) == []
    rest = shared("dvc", "repro")
    assert "Running stage 'train@" not in rest and "Running stage 'predict@" not in rest
    assert shared.bytes() == alone.bytes()


def test_two_tasks_never_do_one_run(study_clone):
    """DVC itself would not notice if they were on two machines: it takes a process of another one for a dead one."""
    clone = study_clone("twice")
    run = missing_runs(clone)[0]
    (first,) = start(clone, [run])
    wait_for(lambda: trains(first), first)
    succeeded, printed = ended([*start(clone, [run]), first])
    assert succeeded == [False, True] and "another process is at" in printed, printed
