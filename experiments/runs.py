"""Train and predict what is missing in this workspace, several runs at a time: python -m experiments.runs --jobs 4

A run is one adapter, one fold and one seed: the stages train@RUN and predict@RUN. Each is a `dvc repro --single-item`
of its own, which may run beside others in one workspace, as plain `dvc repro` may not. Afterwards `dvc repro` finds
every run in place. Interrupted, it goes on where it was when it is started again. With names, it runs those alone, as
a job of a batch system does (cluster/).
"""

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import TextIO

from filelock import FileLock, Timeout

from peftqa.config.params import Params, read_params
from peftqa.errors import UserError
from stages import runs as stage_runs
from stages import workspace

DVC = (sys.executable, "-m", "dvc")
# Without --wait-for-lock DVC gives up after three seconds when other runs are writing to dvc.lock: at the start, or at
# the end of a training, which would then be lost.
REPRO = (*DVC, "--wait-for-lock", "repro")
LOCKS = Path(".dvc/tmp")
SECONDS_TO_END = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    parser.add_argument("runs", nargs="*", help="names as --list prints them (default: all that are missing)")
    parser.add_argument("--list", action="store_true", help="name the missing runs, one a line, and start none")
    options = parser.parse_args()
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}; it must be 1 or more.")
    params = read_params()
    unknown = [name for name in options.runs if name not in all_runs(params)]
    if unknown:
        raise UserError(f"no run {unknown[0]!r} in {workspace.PARAMS}; --list names those that are missing.")
    runs = options.runs
    if not runs:
        # What --list prints is read by other programs: what stages say goes elsewhere.
        run_python(*REPRO[1:], "--quiet", "split", "fetch_model", stdout=sys.stderr)
        runs = missing_runs(params)
        if options.list:
            print(*runs, sep="\n", end="\n" if runs else "")
            return
        print(f"{len(runs)} of {len(all_runs(params))} runs are missing{time_needed(runs, params, options.jobs)}")
    failed = run_all(runs, params, options.jobs)
    if failed:
        raise UserError(f"{len(failed)} runs failed: {', '.join(failed)}; what they printed stands above.")


def all_runs(params: Params) -> dict[str, list[str]]:
    """Every run that params.yaml lists, with the stages that make it up."""
    return {run: [f"train@{run}", f"predict@{run}"] for run in stage_runs.named_runs(params.adapters, params)} | {
        run: [f"predict_untrained@{run}"] for run in stage_runs.named_runs(params.evaluate.untrained, params)
    }


def missing_runs(params: Params) -> list[str]:
    """Those of which DVC finds a stage changed or not yet run."""
    runs = all_runs(params)
    stages = {stage.partition("@")[0] for stages in runs.values() for stage in stages}
    changed = json.loads(run_python(*DVC[1:], "--wait-for-lock", "status", "--json", *stages, stdout=subprocess.PIPE))
    return [run for run, stages in runs.items() if any(stage in changed for stage in stages)]


def time_needed(missing: list[str], params: Params, jobs: int) -> str:
    """What finished runs of the same adapters say about the missing ones, in words; nothing where there are none."""
    rates = {}
    for name in params.adapters:
        finished = [workspace.read_json(path) for path in (stage_runs.RUNTIME / "train" / name).rglob("*.json")]
        if finished:
            rates[name] = mean(run["seconds"] / run["epochs"] for run in finished)
    seconds = [rates.get(run.partition("-")[0]) for run in missing if run.partition("-")[0] in params.adapters]
    if not seconds or None in seconds:
        return ""
    return f", at most about {duration(sum(seconds) * params.train.epochs / jobs)} on this machine"


def run_all(runs: list[str], params: Params, jobs: int) -> list[str]:
    """Run all of them, `jobs` at a time, with a line for each that is done; returns those that failed."""
    stages, gpus, began, failed = all_runs(params), visible_gpus(), time.monotonic(), []
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for slot in range(jobs):
        slots.put({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})

    def run(name: str) -> tuple[subprocess.CompletedProcess, float]:
        slot, clock = slots.get(), time.monotonic()
        try:
            return run_one(name, stages[name], slot), time.monotonic() - clock
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, name): name for name in runs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                name, (result, seconds) = futures[future], future.result()
                how = "FAILED" if result.returncode else "done"
                left = len(runs) - done
                rest = (
                    f"{left} left, about {duration((time.monotonic() - began) / done * left)}" if left else "none left"
                )
                print(f"{name}: {how} in {duration(seconds)}; {rest}", flush=True)
                if result.returncode:
                    failed.append(name)
                    print(result.stdout, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return failed


def run_one(name: str, stages: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess:
    """Bring a run's stages up to date, in their order; what they print is kept for the case that one fails.

    DVC tells processes of other runs by their pid, which says nothing about another machine that works in this folder:
    two that do the same run would write over each other's files. So each run has a lock of the file system's.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(LOCKS / f"run-{name}.lock", timeout=0):
            return subprocess.run(
                [*REPRO, "--single-item", *stages],
                env=environment() | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=workspace.end_with_parent,
            )
    except Timeout:
        return subprocess.CompletedProcess(stages, 1, f"error: another process is at {name}.")


def run_python(
    *arguments: str, folder: Path = Path(), stdout: int | TextIO | None = None, **variables: str
) -> str | None:
    """Run this Python in a folder; returns what it printed where `stdout` is a pipe.

    Ends the program where that fails: its own message stands above then. After Ctrl-C, of which the terminal has told
    it too, it has time to end by itself. Killed, this process takes it along.
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment() | variables,
        stdout=stdout,
        text=True,
        preexec_fn=workspace.end_with_parent,
    ) as process:
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
            process.kill()
            raise
    if process.returncode:
        sys.exit(process.returncode)
    return printed


def visible_gpus() -> list[str]:
    """Names of the GPUs that a run may use, as CUDA_VISIBLE_DEVICES takes them; none where there is at most one."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    else:
        import pynvml

        try:
            pynvml.nvmlInit()
            names = [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            names = []
    return names if len(names) > 1 else []


def environment() -> dict[str, str]:
    """This process's, with this Python first: a stage's command is `python -m ...`.

    And with threads that sleep while they wait for each other. By default they wait by computing, which where several
    runs share the cores takes the time from those that have work to do: two runs of two threads on two cores then took
    1.6 times as long.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"PATH": path}


def duration(seconds: float) -> str:
    """`35 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    workspace.run_stage(main)
