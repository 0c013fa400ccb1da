"""Train and predict what is missing in this workspace, several runs at a time: python -m experiments.runs --jobs 4

A run is one adapter, one fold and one seed: the stages train@RUN and predict@RUN. Each is a `dvc repro --single-item`,
several of which can run in one workspace at a time; plain `dvc repro` cannot. Afterwards `dvc repro` finds every run
done. After an interruption, the same command goes on where it was. A job of a batch system names its runs (cluster/).
"""

import argparse
import contextlib
import json
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from experiments.git import PLACES
from peftqa import program
from peftqa.config.params import Params, read_params
from peftqa.errors import UserError
from stages import run_stage, workspace
from stages import runs as stage_runs

DVC = (sys.executable, "-m", "dvc")
# Without --wait-for-lock DVC gives up after three seconds if another run is writing to dvc.lock. If that happens at a
# training's end, the training is lost.
REPRO = (*DVC, "--wait-for-lock", "repro")
LOCKS = Path(".dvc/tmp")
SECONDS_TO_END = 10
DATA_STAGES = ("download", "clean", "split", "fetch_model")
EPOCH = re.compile(r" epoch (\d+)/\d+: ")  # in the line that a training prints after each
# Lines that DVC prints for people who type its commands one by one.
CHATTER = re.compile(
    r"Stage '.*' (didn't change, skipping|is cached - skipping run)|> (exec )?python -m stages\.|"
    r"(Updating|Generating) lock file|"
    r"To track the changes with git, run:|\tgit add |To enable auto staging, run:|\tdvc config core\.autostage|"
    r"Use `dvc push` to send"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    parser.add_argument("runs", nargs="*", help="names as --list prints them (default: all that are missing)")
    parser.add_argument("--list", action="store_true", help="print the names of the missing runs, and start none")
    options = parser.parse_args()
    check_jobs(options.jobs)
    params = read_params()
    unknown = [name for name in options.runs if name not in all_runs(params)]
    if unknown:
        raise UserError(f"no run {unknown[0]!r} in {workspace.PARAMS}; --list names those that are missing.")
    runs = options.runs or missing_runs(params)
    if options.list:
        print(*runs, sep="\n", end="\n" if runs else "")
        return
    if not options.runs:
        print(f"{len(runs)} of {len(all_runs(params))} runs are missing")
    failed = run_all(runs, params, options.jobs)
    if failed:
        raise UserError(f"{len(failed)} runs failed: {', '.join(failed)}; what they printed is above.")


def check_jobs(jobs: int) -> None:
    """Raise UserError if the number of jobs is not from 1 to 1,000."""
    if not 1 <= jobs <= 1000:
        raise UserError(f"--jobs is {jobs}; it must be from 1 to 1000.")


def all_runs(params: Params) -> dict[str, list[str]]:
    """The stages of every run in params.yaml, by the run's name."""
    return {run: [f"train@{run}", f"predict@{run}"] for run in stage_runs.named_runs(params.adapters, params)} | {
        run: [f"predict_untrained@{run}"] for run in stage_runs.named_runs(params.evaluate.untrained, params)
    }


def missing_runs(params: Params) -> list[str]:
    """The runs with a stage that has changed or has not run yet. The stages of data and model run first."""
    runs = all_runs(params)
    stages = {stage.partition("@")[0] for stages in runs.values() for stage in stages}
    changed = changed_stages(*DATA_STAGES, *stages)
    if changed.intersection(DATA_STAGES):
        repro("split", "fetch_model", out=sys.stderr)  # because other programs read what --list prints
        changed = changed_stages(*stages)
    return [run for run, stages in runs.items() if changed.intersection(stages)]


def changed_stages(*stages: str) -> set[str]:
    return set(json.loads(run_python(*DVC[1:], "--wait-for-lock", "status", "--json", *stages, stdout=subprocess.PIPE)))


def run_all(runs: list[str], params: Params, jobs: int) -> list[str]:
    """Run all of them, `jobs` at a time, with a line when one starts and when it is done; returns those that failed.

    In a terminal there is one bar over all runs, in epochs.
    """
    stages, began, left, failed = all_runs(params), time.monotonic(), len(runs), []
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for variables in job_variables(max(1, min(jobs, len(runs)))):
        slots.put(variables)
    steps = {name: params.train.epochs if len(stages[name]) > 1 else 1 for name in runs}
    bar = tqdm(total=sum(steps.values()), desc=f"{len(runs)} runs", unit="epoch", disable=None if runs else True)
    lock = threading.Lock()

    def say(*lines: str) -> None:
        with tqdm.external_write_mode():
            print(*lines, sep="\n", flush=True)

    def run(name: str) -> None:
        nonlocal left
        clock, slot, reached = time.monotonic(), slots.get(), 0

        def advance(epoch: int) -> None:
            nonlocal reached
            with lock:
                bar.update(epoch - reached)
            reached = epoch

        try:
            say(f"{name}: started")
            code, printed = run_one(name, stages[name], slot, advance)
        finally:
            slots.put(slot)
        advance(steps[name])
        with lock:
            left -= 1
            needed = (time.monotonic() - began) / (len(runs) - left) * left
            rest = f"{left} left, about {duration(needed)}" if left else "none left"
            line = f"{name}: {'FAILED' if code else 'done'} in {duration(time.monotonic() - clock)}; {rest}"
            if code:
                failed.append(name)
            say(line, *([printed] if code else []))

    with bar, ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(run, runs):  # which starts no other run after an error or Ctrl-C
            pass
    return failed


def run_one(
    name: str, stages: list[str], variables: dict[str, str], on_epoch: Callable[[int], None]
) -> tuple[int, str]:
    """Bring a run's stages up to date, in their order; returns DVC's exit status, and all that was printed.

    on_epoch: called with the number of each epoch when it ends. Two processes that do the same run would write over
    each other's files, and DVC knows only processes of its own machine. So each run has a lock in the file system.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    command, printed = [*REPRO, "--single-item", *stages], []
    options = {"env": environment() | variables, "text": True, "preexec_fn": program.end_with_parent}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        with (
            FileLock(LOCKS / f"run-{name}.lock", timeout=0),
            subprocess.Popen(command, **options, **streams) as process,
        ):
            for line in process.stdout:
                printed.append(line)
                if found := EPOCH.search(line):
                    on_epoch(int(found[1]))
    except Timeout:
        return 1, f"error: another process is at {name}."
    return process.returncode, "".join(printed)


def repro(*targets: str, folder: Path = Path(), out: TextIO | None = None) -> None:
    """`dvc repro` in a folder, without DVC's lines that are not about the result. Ends the program if it fails."""
    left_out = False
    with started(*REPRO[1:], *targets, folder=folder, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            left_out = bool(CHATTER.match(line)) or (left_out and not line.strip())
            if not left_out:
                print(line, end="", file=out or sys.stdout, flush=True)


def run_python(*arguments: str, folder: Path = Path(), stdout: int | None = None, **variables: str) -> str | None:
    """Run this Python in a folder; returns what it printed if `stdout` is a pipe. Ends the program if that fails."""
    with started(*arguments, folder=folder, stdout=stdout, **variables) as process:
        return process.communicate()[0]


@contextlib.contextmanager
def started(*arguments: str, folder: Path, stdout: int | None, **variables: str) -> Iterator[subprocess.Popen]:
    """This Python, started in a folder; it has ended when the block ends, and ends if this process is killed.

    If it fails, it has said why, and the program ends. After Ctrl-C, which reaches both, it has time to end by itself.
    """
    command, place = [sys.executable, *arguments], {"cwd": folder, "env": environment() | variables}
    with subprocess.Popen(command, **place, stdout=stdout, text=True, preexec_fn=program.end_with_parent) as process:
        try:
            yield process
            process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
            process.kill()
            raise
    if process.returncode:
        sys.exit(process.returncode)


def job_variables(jobs: int) -> list[dict[str, str]]:
    """Environment variables for each of `jobs` runs at a time: its GPU, and its share of the GPU's memory.

    peftqa/model/backbone.py reads PEFTQA_GPU_SHARE. Without a GPU there are none: model.threads is used.
    """
    gpus = visible_gpus()
    if not gpus:
        return [{}] * jobs
    each = math.ceil(jobs / len(gpus))
    common = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, os.cpu_count() // jobs)))}
    if each > 1:
        common["PEFTQA_GPU_SHARE"] = f"{math.floor(10_000 / each) / 10_000:g}"
    return [common | {"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]


def visible_gpus() -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name for name in names if name.strip() not in ("", "-1")]
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def environment() -> dict[str, str]:
    """This process's environment, with this Python first: a stage's command is `python -m ...`.

    It leaves out what would lead git to another repository. OMP_WAIT_POLICY lets threads sleep while they wait for each
    other: by default they take time from other runs, and two runs of two threads on two cores took 1.6 times as long.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    kept = {key: value for key, value in os.environ.items() if key not in PLACES}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"PATH": path}


def duration(seconds: float) -> str:
    """`35 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    run_stage(main)
