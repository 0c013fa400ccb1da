"""Run a named experiment, or continue an interrupted one, until it is recorded as a DVC experiment."""

from __future__ import annotations

import shlex

from filelock import FileLock, Timeout

from experiments.clone import explain_untracked, prepare, record
from experiments.overrides import FOLDER, files_of, read_overrides
from experiments.runs import check_jobs, repro, run_python
from peftqa.errors import UserError

# Question and abstract; made up, in the words of the embedded data.
EXAMPLE = (
    "Does aspirin reduce pain in nursing home residents?",
    "The value of aspirin in nursing home residents is uncertain. We randomly assigned 120 nursing home residents to "
    "aspirin or placebo and followed them for 12 weeks. Aspirin reduced pain compared with placebo (p = 0.002). There "
    "was no significant decrease in fatigue in the aspirin group (p = 0.62).",
)


def run(name: str, jobs: int) -> None:
    """Run experiments/NAME.yaml in experiments/NAME/, `jobs` runs at a time, record it, and say where its results are.

    Raises UserError if it cannot start, and SystemExit if a stage fails.
    """
    check_jobs(jobs)
    overrides, folder = read_overrides(name), FOLDER / name
    try:
        with FileLock(f"{folder}.lock", timeout=0), explain_untracked():
            prepare(folder, overrides, files_of(name))
            run_python("-m", "experiments.runs", "--jobs", str(jobs), folder=folder)
            repro(folder=folder)
            record(folder, name)
    except Timeout:
        raise UserError(f"experiment {name} is running already; wait for it, or end that process.") from None
    print(
        f"\nReport:         {folder / 'report/index.html'}"
        f"\nEvery number:   (cd {folder} && dvc metrics show)    once you have typed: . .venv/bin/activate"
        f"\nIts files:      {folder}/    (delete it when you no longer need it; DVC's cache keeps the results)"
    )
    adapters = sorted((folder / "release").iterdir())
    if adapters:
        print("\nAsk it a question of your own (after . .venv/bin/activate):")
        print(f"python -m peftqa ask --adapter {adapters[0]} {shlex.join(EXAMPLE)}")
