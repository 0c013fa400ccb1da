"""Run a named experiment in a folder of its own, and record it for DVC: python -m experiments study --jobs 2

experiments/NAME.yaml says what changes in params.yaml, as `key.path: value`; files under `include:` apply first. It
runs in experiments/NAME/, a clone of this repository with the same DVC cache. Your workspace stays as it is, and an
interrupted experiment goes on where it was. At the end it is the DVC experiment NAME.
"""

import argparse
import contextlib
import shlex

from experiments.clone import claimed, prepare, record
from experiments.overrides import FOLDER, files_of, known_names, read_overrides
from experiments.runs import repro, train_and_predict
from stages import run_stage

# Question and abstract; made up, in the words of the embedded data.
EXAMPLE = (
    "Does aspirin reduce pain in nursing home residents?",
    "The value of aspirin in nursing home residents is uncertain. We randomly assigned 120 nursing home residents to "
    "aspirin or placebo and followed them for 12 weeks. Aspirin reduced pain compared with placebo (p = 0.002). There "
    "was no significant decrease in fatigue in the aspirin group (p = 0.62).",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help=f"the name of a file in {FOLDER}/: {', '.join(known_names())}")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    options = parser.parse_args()
    overrides, folder = read_overrides(options.name), FOLDER / options.name
    with claimed(folder):
        prepare(folder, overrides, files_of(options.name))
        with contextlib.chdir(folder):
            train_and_predict(options.jobs)
            repro()
        record(folder, options.name)
    print(
        f"\nReport:         {folder / 'report/index.html'}"
        f"\nEvery number:   (cd {folder} && dvc metrics show)    once you have typed: . .venv/bin/activate"
        f"\nIts files:      {folder}/    (delete it when you no longer need it; DVC's cache keeps the results)"
    )
    adapters = sorted((folder / "release").iterdir())
    if adapters:
        print("\nAsk it a question of your own (after . .venv/bin/activate):")
        print(f"python -m peftqa ask --adapter {adapters[0]} {shlex.join(EXAMPLE)}")


if __name__ == "__main__":
    run_stage(main)
