"""Record each variant as a DVC experiment, for `dvc metrics diff base prefix`: python -m experiments.compare

An experiment of a variant is this workspace with the variant as `selected`, so metrics/selected.json has its numbers.
"""

import argparse
import contextlib

from experiments.clone import claimed, prepare, record
from experiments.overrides import FOLDER, write_params
from experiments.runs import repro
from peftqa.config.params import read_params
from peftqa.data.files import remove
from stages import run_stage, workspace

CLONE = FOLDER / ".compare"  # not a name that an experiment can have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help="which (default: all of evaluate.variants)")
    variants = parser.parse_args().variants or read_params().evaluate.variants
    with claimed(CLONE):
        remove(CLONE)  # of a process that was killed
        prepare(CLONE, {})
        for variant in variants:
            write_params(CLONE / workspace.PARAMS, {"selected": variant})
            with contextlib.chdir(CLONE):
                repro("select")
            record(CLONE, variant, ["select"])
        remove(CLONE)
    print("Now, for example: dvc metrics diff base prefix --targets metrics/selected.json")


if __name__ == "__main__":
    run_stage(main)
