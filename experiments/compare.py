"""Record each variant as a DVC experiment, for `dvc metrics diff base prefix`: python -m experiments.compare

An experiment of a variant is this workspace with the variant as `selected`, so metrics/selected.json has its numbers.
"""

import argparse
from collections.abc import Sequence

from filelock import FileLock, Timeout

from experiments.clone import explain_untracked, prepare, record
from experiments.overrides import FOLDER, write_params
from experiments.runs import repro
from peftqa.config.params import read_params
from peftqa.data.files import remove
from peftqa.errors import UserError
from stages import run_stage, workspace

CLONE = FOLDER / ".compare"  # not a name that an experiment can have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help="which (default: all of evaluate.variants)")
    compare(parser.parse_args().variants)
    print("Now, for example: dvc metrics diff base prefix --targets metrics/selected.json")


def compare(variants: Sequence[str] = ()) -> None:
    """Record variants, by default all, as experiments of their names; older ones of these names are replaced.

    It works in a clone, which it deletes. Raises UserError for a variant that is not in evaluate.variants.
    """
    known = read_params().evaluate.variants
    for variant in variants:
        if variant not in known:
            raise UserError(f"{variant!r} is not in evaluate.variants of params.yaml, which has: {', '.join(known)}.")
    try:
        with FileLock(f"{CLONE}.lock", timeout=0), explain_untracked():
            remove(CLONE)  # of a process that was killed
            try:
                prepare(CLONE, {})
                for variant in variants or known:
                    write_params(CLONE / workspace.PARAMS, {"selected": variant})
                    repro("select", folder=CLONE)
                    record(CLONE, variant, ["select"])
            finally:
                remove(CLONE)
    except Timeout:
        raise UserError("`make compare` is running already; wait for it, or end that process.") from None


if __name__ == "__main__":
    run_stage(main)
