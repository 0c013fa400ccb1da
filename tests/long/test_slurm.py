"""cluster/array.sbatch, by a real Slurm with two nodes: all runs of a small study in one shared folder."""

import os
import re
import signal
import time

from tests.long.slurm import NODES, task_processes

VICTIM = 2


def missing_runs(clone) -> list[str]:
    # DVC warns, on standard error, of what a killed task has left in its lock file.
    printed = clone("python", "-m", "experiments.runs", "--list").splitlines()
    return [line for line in printed if re.fullmatch(r"\w+-\d+(-\d+)?", line)]


def submit(slurm, clone, runs: list[str]) -> str:
    """Submit as the head of array.sbatch says; returns the job's number."""
    (clone.folder / ".runs").mkdir(exist_ok=True)
    array = f"--array=1-{len(runs)}"
    variables = {"SLURM_CONF": str(slurm.conf)}
    return clone("sbatch", "--parsable", array, "cluster/array.sbatch", *runs, **variables).split()[-1]


def kill_in_training(slurm, clone, job: str, task: int) -> None:
    """SIGKILL for every process of one task, once it trains: as when a node runs out of memory."""
    end = time.monotonic() + 300
    while not any("stages.train" in command for command in task_processes(clone.folder, task).values()):
        assert time.monotonic() < end and job in slurm.command("squeue", "--noheader"), log(clone, job, task)
        time.sleep(0.05)
    # Parents first: none of them is to see its child die and put things in order.
    for pid in sorted(task_processes(clone.folder, task)):
        os.kill(pid, signal.SIGKILL)


def runtimes(clone) -> dict[str, str]:
    """How long each stage took: a stage that runs again writes another number."""
    return {str(path): path.read_text() for path in (clone.folder / "runtime").rglob("*.json")}


def log(clone, job: str, task: int) -> str:
    path = clone.folder / f".runs/{job}-{task}.log"
    return path.read_text() if path.exists() else f"no {path}"


def test_an_array_with_a_killed_task_ends_with_the_bytes_of_one_process(slurm, study_clone):
    alone, shared = study_clone("alone"), study_clone("together")
    alone("dvc", "repro")

    runs = missing_runs(shared)
    assert len(runs) >= 4
    job = submit(slurm, shared, runs)
    kill_in_training(slurm, shared, job, VICTIM)
    tasks = slurm.wait(job, 900)
    for task in range(1, len(runs) + 1):
        assert tasks[task][0] == ("FAILED" if task == VICTIM else "COMPLETED"), log(shared, job, task)
    assert {node for _, node in tasks.values()} == set(NODES)

    assert missing_runs(shared) == [runs[VICTIM - 1]]
    # All of them once more: a list made before the others had ended does no harm.
    finished = runtimes(shared)
    again = submit(slurm, shared, runs)
    for task, (state, _) in slurm.wait(again, 900).items():
        assert state == "COMPLETED", log(shared, again, task)
    assert {path: content for path, content in runtimes(shared).items() if path in finished} == finished
    assert len(runtimes(shared)) == len(finished) + 2
    assert missing_runs(shared) == []

    rest = shared("dvc", "repro")
    assert "Running stage 'train@" not in rest and "Running stage 'predict@" not in rest
    assert shared.bytes() == alone.bytes()


def test_two_tasks_never_do_one_run(slurm, study_clone):
    """DVC itself would not notice: it takes a process of another node for a dead one."""
    clone = study_clone("twice")
    run = missing_runs(clone)[0]
    job = submit(slurm, clone, [run, run])
    states = sorted(state for state, _ in slurm.wait(job, 600).values())
    assert states == ["COMPLETED", "FAILED"], log(clone, job, 1) + log(clone, job, 2)
    assert sum("another process is at" in log(clone, job, task) for task in (1, 2)) == 1
    assert run not in missing_runs(clone)
