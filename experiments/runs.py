"""Train and predict what is missing in this workspace, several runs at a time: python -m experiments.runs --jobs 4

A run is one adapter, one fold and one seed: the stages train@RUN and predict@RUN. Each is a `dvc repro --single-item`,
several of which can run in one workspace at a time; plain `dvc repro` cannot. Afterwards `dvc repro` finds every run
done. After an interruption, the same command goes on where it was. A batch job lists its runs as arguments (cluster/).
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout
from tqdm import tqdm

from peftqa import program
from peftqa.config.params import Params, read_params
from peftqa.errors import UserError
from stages import run_stage, workspace
from stages import runs as stage_runs

DVC = ("-m", "dvc")
# Without --wait-for-lock DVC gives up after three seconds if another run is writing to dvc.lock. If that happens at a
# training's end, the training is lost.
REPRO = (*DVC, "--wait-for-lock", "repro")
LOCKS = Path(".dvc/tmp")
EPOCH = re.compile(r" epoch (\d+)/\d+: ")  # in the line that a training prints after each
# How lines begin that are not about the result: DVC prints them for people who type its commands one by one.
CHATTER = ("\n", "Stage '", "> ", "Updating lock file", "Generating lock file", "Data and pipelines are up to date")
CHATTER += ("To track the changes", "\tgit add ", "To enable auto staging", "\tdvc config ", "Use `dvc push`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    parser.add_argument("runs", nargs="*", help="names as --list prints them (default: all that are missing)")
    parser.add_argument("--list", action="store_true", help="print the names of the missing runs, and start none")
    options = parser.parse_args()
    if options.list:
        print("".join(f"{run}\n" for run in missing_runs(read_params())), end="")
    else:
        train_and_predict(options.jobs, options.runs)


def train_and_predict(jobs: int, runs: Sequence[str] = ()) -> None:
    """Do these runs, by default all that are missing, `jobs` at a time. Raises UserError if one is unknown or fails."""
    if not 1 <= jobs <= 1000:
        raise UserError(f"--jobs is {jobs}; it must be from 1 to 1000.")
    params = read_params()
    for name in runs:
        if name not in all_runs(params):
            raise UserError(f"no run {name!r} in {workspace.PARAMS}; --list names those that are missing.")
    if not runs:
        runs = missing_runs(params)
        print(f"{len(runs)} of {len(all_runs(params))} runs are missing", flush=True)
    failed = run_all(runs, params, min(jobs, len(runs))) if runs else []
    if failed:
        raise UserError(f"{len(failed)} runs failed: {', '.join(failed)}; what they printed is above.")


def all_runs(params: Params) -> dict[str, list[str]]:
    """The stages of every run in params.yaml, by the run's name."""
    return {run: [f"train@{run}", f"predict@{run}"] for run in stage_runs.named_runs(params.adapters, params)} | {
        run: [f"predict_untrained@{run}"] for run in stage_runs.named_runs(params.evaluate.untrained, params)
    }


def missing_runs(params: Params) -> list[str]:
    """The runs with a stage that has changed or has not run yet. The stages of data and model run first."""
    run_python(*REPRO, "split", "fetch_model")
    runs = all_runs(params)
    stages = {stage.partition("@")[0] for stages in runs.values() for stage in stages}
    changed = json.loads(run_python(*DVC, "--wait-for-lock", "status", "--json", *stages).stdout)
    return [run for run, stages in runs.items() if any(stage in changed for stage in stages)]


def run_all(runs: Sequence[str], params: Params, jobs: int) -> list[str]:
    """Run all of them, `jobs` at a time, with a line when one starts and when it is done; returns those that failed.

    In a terminal there is one bar over all runs, in epochs. A run without training counts as one epoch.
    """
    stages, lock, done, failed = all_runs(params), threading.Lock(), [], []
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for variables in job_variables(jobs):
        slots.put(variables)
    epochs = {name: params.train.epochs if len(stages[name]) > 1 else 1 for name in runs}
    bar = tqdm(total=sum(epochs.values()), desc=f"{len(runs)} runs", unit="epoch", disable=None)

    def say(*lines: str) -> None:
        with tqdm.external_write_mode():
            print(*lines, sep="\n", flush=True)

    def run(name: str) -> None:
        started, slot, reached = time.monotonic(), slots.get(), 0

        def advance(epoch: int) -> None:
            nonlocal reached
            with lock:
                bar.update(epoch - reached)
            reached = epoch

        def follow(line: str) -> None:
            if found := EPOCH.search(line):
                advance(int(found[1]))

        say(f"{name}: started")
        try:
            code, printed = run_one(name, stages[name], slot, follow)
        finally:
            slots.put(slot)
        advance(epochs[name])
        (failed if code else done).append(name)
        took = f"in {(time.monotonic() - started) / 60:.1f} min, {len(done)} of {len(runs)} runs are done"
        say(f"{name}: {'FAILED' if code else 'done'} {took}", *([printed] if code else []))

    with bar, ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(run, runs):  # which starts no other run after an error or Ctrl-C
            pass
    return failed


def run_one(name: str, stages: list[str], variables: Mapping[str, str], each: Callable[[str], None]) -> tuple[int, str]:
    """Bring a run's stages up to date, in their order; returns DVC's exit status, and all that was printed.

    Two processes that do the same run would write over each other's files, and DVC knows only processes of its own
    machine. So each run has a lock in the file system.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    command = (*REPRO, "--single-item", *stages)
    try:
        with FileLock(LOCKS / f"run-{name}.lock", timeout=0):
            result = run_python(*command, each=each, stderr=subprocess.STDOUT, check=False, variables=variables)
    except Timeout:
        return 1, f"error: another process is at {name}."
    return result.returncode, result.stdout


def repro(*targets: str) -> None:
    """`dvc repro`, without DVC's lines that are not about the result. Ends the program if it fails."""
    run_python(*REPRO, *targets, each=lambda line: line.startswith(CHATTER) or print(line, end="", flush=True))


def run_python(
    *arguments: str,
    folder: Path = Path(),
    each: Callable[[str], None] | None = None,
    stderr: int | None = None,
    check: bool = True,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess:
    """Run this Python in a folder; it ends if this process is killed.

    each: called with every line as it is printed. check: end this program if the child fails; it has said why.
    variables: further environment variables. After Ctrl-C, which reaches both processes, it has time to end by itself.
    """
    command, printed = [sys.executable, *arguments], []
    options = {"cwd": folder, "text": True, "env": os.environ | variables, "preexec_fn": program.end_with_parent}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, **options) as process:
        try:
            for line in process.stdout:
                printed.append(line)
                if each:
                    each(line)
            process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            raise
    if check and process.returncode:
        sys.exit(process.returncode)
    return subprocess.CompletedProcess(command, process.returncode, "".join(printed))


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


if __name__ == "__main__":
    run_stage(main)
