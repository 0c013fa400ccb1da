"""Run a named experiment in a folder of its own, and record it for DVC: python -m experiments study --jobs 2

experiments/NAME.yaml says what it changes in params.yaml, as `key.path: value`; `include:` names such files that come
first. It runs in experiments/NAME/, a clone of this repository with the same DVC cache. Your workspace stays as it is,
and an interrupted experiment goes on where it was. At the end it is the DVC experiment NAME.
"""

import argparse

from experiments.named import run
from experiments.overrides import FOLDER, known_names
from stages import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help=f"the name of a file in {FOLDER}/: {', '.join(known_names())}")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_stage(main)
